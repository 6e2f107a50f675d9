package ratelimit

import (
	"strconv"
	"time"
)

// A rate is kept as the generic cell rate algorithm does (ITU-T I.371): one number for a key, the time at which it is fresh again. Each
// request puts that time off by an interval, Window/Requests; it may lie at most so far ahead as all Requests and the Burst put it.
//
// What lies ahead, the debt, is time and not a number of requests. So it has a meaning when Requests or Burst change: who had used half
// of the old rate has used half of the new one. A debt that is larger than the new rate knows is cut to it, so that nobody waits longer
// for the next request than an interval of the new rate, which is at most its window.

// maxDebt in nanoseconds keeps all sums of times far from the end of an int64.
const maxDebt = int64(1) << 60

// rate is a Rate ready to be asked. All times are nanoseconds.
type rate struct {
	interval int64  // what one request costs
	most     int64  // the largest debt: all requests and the burst
	burst    int64  // the part of it that is the burst
	requests int64  // for the fields
	policy   string // `"name";q=100;w=60`
	item     string // `"name";r=`
}

// interval is rounded up: never more is admitted than was allowed. (A million a second is exact to a thousandth.)
func (r Rate) interval() time.Duration {
	return (r.Window + time.Duration(r.Requests) - 1) / time.Duration(r.Requests)
}

func newRate(r Rate, name string) rate {
	name = structuredString(name)
	interval := int64(r.interval())
	seconds := int64((r.Window + time.Second - 1) / time.Second)
	return rate{
		interval: interval,
		most:     (r.Requests + r.Burst) * interval,
		burst:    r.Burst * interval,
		requests: r.Requests,
		policy:   name + ";q=" + strconv.FormatInt(r.Requests, 10) + ";w=" + strconv.FormatInt(seconds, 10),
		item:     name + ";r=",
	}
}

// debt is what lies ahead at a time, for a key that is fresh at that other time.
func (r *rate) debt(fresh, now int64) int64 { return min(max(fresh-now, 0), r.most) }

// wait is how long until the next request is admitted; 0 or less: now.
func (r *rate) wait(debt int64) int64 { return debt + r.interval - r.most }

// left is how many requests would be admitted at once.
func (r *rate) left(debt int64) int64 { return (r.most - debt) / r.interval }

// restored is how long until all requests are there again, the burst left out; when nothing is left, how long until something is.
func (r *rate) restored(debt int64) int64 {
	if r.left(debt) == 0 {
		return r.wait(debt)
	}
	return debt - r.burst
}

// seconds rounds up, to at least one.
func seconds(nanoseconds int64) int64 {
	return max(1, (nanoseconds+int64(time.Second)-1)/int64(time.Second))
}

// structuredString is s as a String of RFC 9651 3.3.3; what it cannot hold becomes "?".
func structuredString(s string) string {
	b := make([]byte, 0, len(s)+2)
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c < ' ' || c > '~':
			b = append(b, '?')
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		default:
			b = append(b, c)
		}
	}
	return string(append(b, '"'))
}
