package ratelimit

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/store"
)

// board is the page /filters/ratelimit: what is used of each limit now, as this process sees it. There is one, which lives in keep; rows
// come and go with the limits that a plan has.
type board struct {
	now func() int64

	mu   sync.Mutex // guards rows
	rows map[*row]bool
}

type boardKey struct{}

// row is one limit.
type row struct {
	board    *board
	title    string
	counters []use
}

// use is one counter of a limit.
type use struct {
	claim   claim
	word    string // "1m", "at once"
	members func() int
}

// rowKey is what a row belongs to: a limit that was changed has a new row.
type rowKey struct {
	policy Policy
	limit  string
	text   string
}

// topKeys is how many keys of a counter are shown: those that have used most.
const topKeys = 10

// show enters the limits into the page, and offers what is used as metrics.
func (f *limiter) show(limits []Limit, env filter.Env) {
	b := keep.Get(env.Keep, boardKey{}, func() *board {
		return &board{now: f.now, rows: map[*row]bool{}}
	})
	if env.Admin != nil {
		env.Admin("ratelimit", b)
	}
	for i, l := range limits {
		r := keep.Get(env.Keep, rowKey{l.Policy, l.Name, Config{[]Limit{l}}.String()}, func() *row { return newRow(b, f, i, l) })
		if env.Gauge != nil {
			policy := l.Policy.Name.String()
			env.Gauge("ratelimit_used_ratio", r.used, "policy", policy, "limit", l.Name)
			env.Gauge("ratelimit_keys", r.keys, "policy", policy, "limit", l.Name)
		}
	}
}

func newRow(b *board, f *limiter, limit int, l Limit) *row {
	title := strings.TrimSuffix(strings.TrimPrefix(Config{[]Limit{l}}.String(), "ratelimit("), ")")
	r := &row{board: b, title: title}
	for _, claims := range [][]claim{f.claims, f.shared} {
		for _, c := range claims {
			if c.limit == limit {
				r.counters = append(r.counters, use{claim: c, word: strings.ReplaceAll(windowWord(c.window), "-", " "), members: f.members})
			}
		}
	}
	b.put(r, true)
	return r
}

// Retire takes the row off the page: no plan has the limit any more.
func (r *row) Retire() { r.board.put(r, false) }

// Revive puts it back.
func (r *row) Revive() { r.board.put(r, true) }

func (b *board) put(r *row, there bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if there {
		b.rows[r] = true
	} else {
		delete(b.rows, r)
	}
}

// used is the share of its limit that the key has used which has used most, over all windows; over 1: it is in debt for more.
func (r *row) used() (most float64) {
	now := r.board.now()
	for _, u := range r.counters {
		rate, places := u.ours()
		_, top := u.top(now, 1)
		for _, t := range top {
			if places > 0 {
				most = max(most, float64(t.value)/float64(places))
			} else {
				most = max(most, float64(t.value)/float64(rate.most))
			}
		}
	}
	return most
}

// keys is how many keys are remembered, in the window that has most.
func (r *row) keys() (n float64) {
	for _, u := range r.counters {
		keys, _ := u.top(0, 0)
		n = max(n, float64(keys))
	}
	return n
}

func (u *use) ours() (*rate, int64) {
	if u.claim.divided == nil || u.claim.stored != (store.Counter{}) {
		return &u.claim.rate, u.claim.places
	}
	s := u.claim.divided.of(u.members())
	return &s.rate, s.places
}

// usage is what one key has used: its debt, or those under way.
type usage struct {
	key   string
	value int64
}

// top is how many keys there are, and the n that have used most.
func (u *use) top(now int64, n int) (keys int, top []usage) {
	for i := range u.claim.counter.shards {
		s := &u.claim.counter.shards[i]
		s.mu.Lock()
		keys += len(s.index)
		for key, slot := range s.index {
			v := s.slots[slot].value
			if u.claim.places == 0 {
				v -= now
			}
			if v <= 0 || n == 0 || len(top) == n && v <= top[n-1].value {
				continue
			}
			at, _ := slices.BinarySearchFunc(top, v, func(t usage, v int64) int { return cmp.Compare(v, t.value) })
			top = slices.Insert(top, at, usage{key, v})
			top = top[:min(len(top), n)]
		}
		s.mu.Unlock()
	}
	return keys, top
}

// Serve answers with the page.
func (b *board) Serve(ex *message.Exchange) {
	ex.Response = message.Respond(message.OriginFilter, 200, "text/plain; charset=utf-8", b.text())
}

// Done is the end of the exchange.
func (b *board) Done(*message.Exchange) {}

func (b *board) text() string {
	b.mu.Lock()
	rows := make([]*row, 0, len(b.rows))
	for r := range b.rows {
		rows = append(rows, r)
	}
	b.mu.Unlock()
	slices.SortFunc(rows, func(x, y *row) int { return cmp.Compare(x.title, y.title) })
	var out strings.Builder
	out.WriteString("What this replica knows of; of shared limits what the store has told it last.\n")
	for _, r := range rows {
		fmt.Fprintf(&out, "\n%s\n", r.title)
		for i := range r.counters {
			r.counters[i].write(&out, b.now())
		}
	}
	return out.String()
}

func (u *use) write(out *strings.Builder, now int64) {
	rate, places := u.ours()
	keys, top := u.top(now, topKeys)
	fmt.Fprintf(out, "  %s, keys: %d\n", u.word, keys)
	for _, t := range top {
		key := u.claim.counter.words(t.key)
		if places > 0 {
			fmt.Fprintf(out, "    %d of %d under way  %s\n", t.value, places, key)
			continue
		}
		back := time.Duration(t.value).Round(time.Second)
		all := rate.most / rate.interval
		fmt.Fprintf(out, "    %d of %d left, all in %v  %s\n", rate.left(t.value), all, back, key)
	}
}

// public are expressions whose values betray nothing that opens a door.
var public = regexp.MustCompile(`^(source\.(ip|port)|source\.ip\.network\(\d+, ?\d+\)|request\.(method|scheme|host)|` +
	`identity\.(subject|method)|identity\.labels(\.\w+|\["[\w.-]+"\]))$`)

// words is a key for people. Once a counter was keyed by what may be a secret, such as a header, only addresses are shown as they are; of
// all else a hash: who knows a value finds it (printf %s VALUE | sha256sum).
func (c *counter) words(key string) string {
	if key == "" {
		return "everybody"
	}
	if key[0] == hashedKey {
		return fmt.Sprintf("a long key, sha256 %x", key[1:7])
	}
	var parts []string
	for rest := []byte(key); len(rest) > 0; {
		n, size := binary.Uvarint(rest)
		if size <= 0 || n > uint64(len(rest)-size) {
			break
		}
		part := string(rest[size:][:n])
		rest = rest[size+int(n):]
		if c.private.Load() && !isAddress(part) && part != "" {
			part = fmt.Sprintf("sha256 %x", sha256.Sum256([]byte(part)))[:7+12]
			parts = append(parts, part)
			continue
		}
		parts = append(parts, fmt.Sprintf("%q", part))
	}
	return strings.Join(parts, ", ")
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	_, perr := netip.ParsePrefix(s)
	return err == nil || perr == nil
}
