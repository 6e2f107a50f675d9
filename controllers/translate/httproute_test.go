package translate

import (
	"testing"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

func TestDurationsAreThoseOfGEP2257(t *testing.T) {
	for text, want := range map[string]string{
		"10s": "10s", "1h30m": "1h30m0s", "500ms": "500ms", "0s": "0s", "1h2m3s4ms": "1h2m3.004s", "99999h": "99999h0m0s",
		"": "", "1": "", "1d": "", "1.5s": "", "-1s": "", "100000s": "", "1us": "", "1s1s1s1s1s": "", "1s ": "",
	} {
		d, p := duration(gwv1.Duration(text), "f")
		if p != nil {
			if want != "" {
				t.Errorf("%q: %s", text, p)
			}
			continue
		}
		if d.String() != want {
			t.Errorf("%q is %s, want %q", text, d, want)
		}
	}
}
