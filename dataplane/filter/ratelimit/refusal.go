package ratelimit

import (
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// refuse makes the answer to a request that an enforcing limit does not admit.
func (f *limiter) refuse(ex *message.Exchange, l *lease) {
	reason := message.ReasonConcurrencyLimited
	var titles []string
	var wait int64 // the longest: only then do all admit
	var slowest *rate
	never := false
	for i := range f.limits {
		limit, a := &f.limits[i], &l.limits[i]
		if !a.applies || !a.refused || limit.shadow {
			continue
		}
		limit.refused.Add(1)
		titles = append(titles, limit.title)
		never = never || a.never
		if a.wait > wait {
			wait, slowest, reason = a.wait, a.slowest, message.ReasonRateLimited
		}
	}
	by := strings.Join(titles, ",")
	ex.Note("limit", by)

	r := message.Respond(message.OriginFilter, reason.Status(), "text/plain; charset=utf-8", reason.Text()+"\n")
	r.Reason, r.Detail = reason, by
	if !never { // nobody is told to come back for what will be refused again
		r.Header.Set("Retry-After", strconv.FormatInt(seconds(wait), 10))
	}
	if slowest != nil {
		setFields(&r.Header, slowest, 0, wait)
	}
	ex.Response = r
}

// setFields tells the client about one rate (draft-ietf-httpapi-ratelimit-headers-11). The fields are lists, which may be split over
// lines: what a backend says about its own limits stays, and ours is a further member.
func setFields(h *message.Header, r *rate, left, nanoseconds int64) {
	var room [96]byte
	b := append(room[:0], r.item...)
	b = strconv.AppendInt(b, min(left, r.requests), 10)
	b = append(b, ";t="...)
	b = strconv.AppendInt(b, seconds(nanoseconds), 10)
	h.Add("RateLimit-Policy", r.policy)
	h.Add("RateLimit", string(b))
}
