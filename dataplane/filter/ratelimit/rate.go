package ratelimit

import (
	"math/bits"
	"strconv"
	"time"
)

// A rate is kept as the generic cell rate algorithm does (ITU-T I.371): one number for a key, the time at which it is fresh again. Each
// request puts that time off by an interval, Window/Requests; it may lie at most so far ahead as all Requests and the Burst put it.
//
// What lies ahead, the debt, is time and not a number of requests. So it has a meaning when Requests or Burst change: who had used half
// of the old rate has used half of the new one. A debt that is larger than the new rate knows is cut to it, so that nobody waits longer
// for the next request than an interval of the new rate, which is at most its window.

// maxDebt in nanoseconds keeps all sums of times far from the end of an int64. A debt of a share, or of an answer's cost, may be twice that.
const maxDebt = int64(1) << 60

// rate is a Rate, or a member's share of one, ready to be asked. All times are nanoseconds.
type rate struct {
	interval int64  // what costs one
	most     int64  // the largest debt of requests of which each costs no more than it: all requests and the burst
	deepest  int64  // the largest debt of any: a larger one is cut
	whole    int64  // what one request may cost: most, and for a share as much as the limit has in all
	burst    int64  // the part of most that is the burst
	requests int64  // for the fields
	policy   string // `"name";q=100;w=60`
	item     string // `"name";r=`
}

// interval is rounded up: never more is admitted than was allowed. (A million a second is exact to a thousandth.)
func (r Rate) interval() time.Duration {
	return (r.Window + time.Duration(r.Requests) - 1) / time.Duration(r.Requests)
}

// newRate makes a limit's rate ready. With several members it is the share of one: requests come back so many times slower, and there is
// room for as many times fewer, rounded up. With costs that are known only afterwards the debt may be twice as large.
func newRate(r Rate, name string, members int, after bool) rate {
	name = structuredString(name)
	seconds := int64((r.Window + time.Second - 1) / time.Second)
	s := rate{
		interval: int64(r.interval()),
		requests: r.Requests,
		policy:   name + ";q=" + strconv.FormatInt(r.Requests, 10) + ";w=" + strconv.FormatInt(seconds, 10),
		item:     name + ";r=",
	}
	all := r.Requests + r.Burst
	room := all
	if n := int64(members); n > 1 {
		s.interval = mulDivUp(int64(r.Window), n, r.Requests)
		room = (all + n - 1) / n
		s.burst = max(0, room-(r.Requests+n-1)/n)
	} else {
		s.burst = r.Burst
	}
	s.burst = bounded(s.burst, s.interval)
	s.most = bounded(room, s.interval)
	s.whole = bounded(all, s.interval)
	s.deepest = s.whole
	if after {
		s.deepest = max(s.whole, min(2*s.most, 2*maxDebt))
	}
	return s
}

// mulDivUp is a·b/c, rounded up, and at most maxDebt.
func mulDivUp(a, b, c int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi >= uint64(c) {
		return maxDebt
	}
	q, rest := bits.Div64(hi, lo, uint64(c))
	if rest > 0 {
		q++
	}
	return int64(min(q, uint64(maxDebt)))
}

// bounded is n·interval, and at most twice maxDebt.
func bounded(n, interval int64) int64 {
	if n > 2*maxDebt/interval {
		return 2 * maxDebt
	}
	return n * interval
}

// cost is what a request that counts as n adds to the debt. What costs more than there can ever be is all the same.
func (r *rate) cost(n int64) int64 {
	if n == 1 {
		return r.interval
	}
	return r.interval * min(n, r.whole/r.interval+1)
}

// debt is what lies ahead at a time, for a key that is fresh at that other time.
func (r *rate) debt(fresh, now int64) int64 { return min(max(fresh-now, 0), r.deepest) }

// wait is how long until a request of that cost is admitted; 0 or less: now. A cost that is larger than a member's share is admitted when
// nothing is owed, and leaves a debt that takes as long to come back as such a cost ought to.
func (r *rate) wait(debt, cost int64) int64 { return debt + cost - max(r.most, min(cost, r.whole)) }

// never reports whether such a request is admitted at no time: it costs more than a counter has.
func (r *rate) never(cost int64) bool { return cost > r.whole }

// left is how many requests would be admitted at once.
func (r *rate) left(debt int64) int64 { return max(0, r.most-debt) / r.interval }

// restored is how long until all requests are there again, the burst left out; when nothing is left, how long until something is.
func (r *rate) restored(debt, left int64) int64 {
	if left == 0 {
		return r.wait(debt, r.interval)
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
