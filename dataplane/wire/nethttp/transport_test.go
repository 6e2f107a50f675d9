package nethttp_test

import (
	"context"
	"errors"
	"testing"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/nethttp"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/wiretest"
)

func TestTheTransportKeepsTheContract(t *testing.T) {
	wiretest.RunTransport(t, "http1", nethttp.NewTransport, message.ProtocolHTTP1)
	wiretest.RunTransport(t, "h2c", nethttp.NewTransport, message.ProtocolH2C)
}

func TestTLSToBackendsIsRefusedUntilItIsBuilt(t *testing.T) {
	for _, key := range []message.ConnKey{
		{Protocol: message.ProtocolHTTPS},
		{Protocol: message.ProtocolH2},
		{Protocol: message.ProtocolHTTP1, TLS: message.TLSKey{ServerName: "a"}},
	} {
		err := nethttp.NewTransport(key, message.TransportOptions{}).RoundTrip(context.Background(), &message.Attempt{})
		var known *message.Error
		if !errors.As(err, &known) || known.Reason != message.ReasonTLSFailed {
			t.Errorf("%s: %v", key.Protocol, err)
		}
	}
}
