package external

import (
	"sync"
	"time"
)

// cache remembers answers that allow, each until its time. It is bounded twice, by number and by bytes, and forgets in halves: what was
// not asked for during a whole half is gone. A refusal is never remembered: whoever gets a right gets it at once.
type cache struct {
	mu    sync.Mutex // guards what follows
	young map[fingerprint]remembered
	old   map[fingerprint]remembered
	bytes int // of young, about
}

type remembered struct {
	*allowed
	until time.Time
}

// Bounds of each half.
const (
	halfEntries = 8 << 10
	halfBytes   = 4 << 20
)

func newCache() *cache { return &cache{young: map[fingerprint]remembered{}} }

// get returns what is remembered of that, nil when nothing is.
func (c *cache) get(key fingerprint, now time.Time) *allowed {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.young[key]
	if !ok {
		if r, ok = c.old[key]; ok && now.Before(r.until) {
			c.insert(key, r)
		}
	}
	if !ok || !now.Before(r.until) {
		return nil
	}
	return r.allowed
}

func (c *cache) put(key fingerprint, a *allowed, until, now time.Time) {
	if !now.Before(until) {
		return // it took longer to answer than it may be remembered
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.insert(key, remembered{a, until})
}

// insert puts it into the young half; c.mu is held.
func (c *cache) insert(key fingerprint, r remembered) {
	if len(c.young) >= halfEntries || c.bytes >= halfBytes {
		c.old, c.young, c.bytes = c.young, map[fingerprint]remembered{}, 0
	}
	if before, ok := c.young[key]; ok {
		c.bytes -= before.size
	}
	c.young[key] = r
	c.bytes += r.size
}
