package telemetry

import (
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// passedOn is the trace context that a request brings, when nothing is made of it here: it goes on as it came. A malformed one is not
// reported, though the backend still sees it.
func passedOn(h *message.Header) (traceparent, tracestate string) {
	traceparent, ok := h.Only("Traceparent")
	if !ok || !validTraceparent(traceparent) {
		return "", ""
	}
	tracestate, _ = h.Joined("Tracestate")
	return traceparent, tracestate
}

// traceID cuts the trace id out of a valid traceparent.
func traceID(traceparent string) string {
	if len(traceparent) < 35 {
		return ""
	}
	return traceparent[3:35]
}

// validTraceparent holds a traceparent to W3C Trace Context 2.2 (version-traceid-parentid-flags, in lower-case hexadecimal digits): of
// version 00 nothing may follow, of a later one what begins with a dash, and version ff is none.
func validTraceparent(s string) bool {
	const size = 55
	if len(s) < size || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return false
	}
	if !lowerHex(s[:2]) || !lowerHex(s[3:35]) || !lowerHex(s[36:52]) || !lowerHex(s[53:55]) {
		return false
	}
	switch version := s[:2]; {
	case version == "ff", version == "00" && len(s) != size, len(s) > size && s[size] != '-':
		return false
	}
	return strings.Trim(s[3:35], "0") != "" && strings.Trim(s[36:52], "0") != ""
}

func lowerHex(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
