package snapshot

import (
	"strconv"
	"strings"
	"time"
)

// What the text forms of filters' settings have in common.

// DurationWord is a duration without the zeros that Go puts at its end: "1h" for 1h0m0s.
func DurationWord(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// UIDWord tells two policies of one name apart (one that was deleted and made again). The first digits of a UUID are random.
func UIDWord(uid string) string {
	if len(uid) == 36 {
		return uid[:8]
	}
	return uid
}

// Quote marks where an expression begins and ends, so that none can look like two.
func Quote(text string) string {
	if strings.ContainsAny(text, "`\n\r") {
		return strconv.Quote(text)
	}
	return "`" + text + "`"
}
