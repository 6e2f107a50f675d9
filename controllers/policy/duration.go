package policy

import (
	"fmt"
	"regexp"
	"time"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// durations are those of GEP-2257, a subset of Go's.
var durations = regexp.MustCompile(`^([0-9]{1,5}(h|m|s|ms)){1,4}$`)

// ParseDuration reads a duration of the Gateway API (GEP-2257). The error says how to write one.
func ParseDuration(text gwv1.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(string(text))
	if err != nil || !durations.MatchString(string(text)) {
		return 0, fmt.Errorf("%.40q is not a duration; write it like 10s, 1m or 1h30m", text)
	}
	return d, nil
}
