package jwt

import (
	"crypto/sha256"
	"sync"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// What a cache remembers at most, in each of its two generations. Claims take some five times the bytes of their token.
const (
	maxVerified      = 4096
	maxVerifiedBytes = 4 << 20 // of tokens
)

// cache remembers tokens that were verified, by their SHA-256. Only what was verified gets in, so that nobody can flood it who has not got
// thousands of good tokens. It has two generations: when the young one is full it becomes the old one, and what is asked for again moves
// into the young one.
type cache struct {
	mu         sync.Mutex // guards what follows
	young, old map[tokenID]verified
	bytes      int // of the tokens in young
}

type tokenID = [sha256.Size]byte

// verified is good while its keys are the issuer's, and until its identity expires.
type verified struct {
	identity *message.Identity
	keys     *keySet
	size     int // of the token
}

func newCache() *cache { return &cache{young: map[tokenID]verified{}} }

func (c *cache) get(id tokenID) (verified, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, found := c.young[id]
	if found {
		return v, true
	}
	if v, found = c.old[id]; found {
		delete(c.old, id)
		c.put(id, v)
	}
	return v, found
}

func (c *cache) add(id tokenID, v verified) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.put(id, v)
}

func (c *cache) put(id tokenID, v verified) {
	if before, found := c.young[id]; found {
		c.bytes -= before.size
	} else if len(c.young) >= maxVerified || c.bytes+v.size > maxVerifiedBytes {
		c.old, c.young, c.bytes = c.young, map[tokenID]verified{}, 0
	}
	c.young[id] = v
	c.bytes += v.size
}

// remove forgets a token that is no longer good.
func (c *cache) remove(id tokenID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, found := c.young[id]; found {
		c.bytes -= v.size
		delete(c.young, id)
	}
	delete(c.old, id)
}

// len is how many tokens are remembered.
func (c *cache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.young) + len(c.old)
}
