package nethttp_test

import (
	"testing"

	"github.com/gatehouse-dev/gatehouse/dataplane/wire/nethttp"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/wiretest"
)

func TestTheEngineKeepsTheContract(t *testing.T) {
	wiretest.Run(t, wiretest.OverHTTP1("nethttp", nethttp.New()))
	wiretest.Run(t, wiretest.OverH2C("nethttp", nethttp.New()))
}

func TestTheEngineStandsWhatClientsSend(t *testing.T) {
	wiretest.RunBytes(t, "nethttp", nethttp.New())
}
