package store

import (
	"strconv"
	"time"
)

// group is what one script call decides: parts of calls whose keys have one slot. Without a cluster there is one group.
type group struct {
	name    string
	parts   []part
	numbers int // in the answer

	// Keys and words, one behind the other in one text: it becomes one string, and they parts of it.
	text        []byte
	keys, words []span

	answers []int64
	err     error
	next    int // the part that is read next: they stand in the order of calls
}

// part is the claims of one call that belong to a group.
type part struct {
	call   *Call
	claims []int // in the call
	at     int   // where its answers begin
}

type span struct{ from, to int }

// groups sorts the claims of calls.
func (s *Store) groups(batch []*Call) []*group {
	var all []*group
	for _, c := range batch {
		for i := range c.Claims {
			name := s.slot(c.Claims[i].Counter)
			g := find(&all, name)
			if n := len(g.parts); n == 0 || g.parts[n-1].call != c {
				g.begin(c, s.claimsOf(c, name))
				g.claims(s.options.LeaseTTL)
			}
		}
	}
	return all
}

// slot is by what keys hang together.
func (s *Store) slot(c Counter) string {
	if s.options.Mode == Cluster {
		return c.group
	}
	return ""
}

func (s *Store) claimsOf(c *Call, slot string) []int {
	claims := make([]int, 0, len(c.Claims))
	for i := range c.Claims {
		if s.slot(c.Claims[i].Counter) == slot {
			claims = append(claims, i)
		}
	}
	return claims
}

func find(all *[]*group, name string) *group {
	for _, g := range *all {
		if g.name == name {
			return g
		}
	}
	g := &group{name: name}
	*all = append(*all, g)
	return g
}

// begin opens a part.
func (g *group) begin(c *Call, claims []int) {
	g.parts = append(g.parts, part{call: c, claims: claims, at: g.numbers})
	g.numbers += 1 + len(claims)
	g.number(int64(len(claims)))
}

// claims writes those of the last part.
func (g *group) claims(ttl time.Duration) {
	p := g.parts[len(g.parts)-1]
	for _, i := range p.claims {
		c := &p.call.Claims[i]
		g.key(c.Counter, c.Key)
		if c.Places > 0 {
			g.word(opPlace)
			g.shadow(c.Shadow)
			g.number(c.Places)
			g.number(ttl.Milliseconds())
			g.word(c.id)
			g.word("")
		} else {
			g.word(opRate)
			g.shadow(c.Shadow)
			g.number(int64(c.Cost))
			g.number(int64(c.Most))
			g.number(int64(c.Deepest))
			g.number(int64(c.Least))
		}
	}
}

func (g *group) shadow(n int) {
	if n == 0 {
		g.word("")
	} else {
		g.number(int64(n))
	}
}

// partOf is the part of a call, or nil. Calls are gone through in their order.
func (g *group) partOf(c *Call) *part {
	if g.next < len(g.parts) && g.parts[g.next].call == c {
		return &g.parts[g.next]
	}
	return nil
}

// read fills in the answers, and reports whether the part was admitted.
func (p *part) read(answers []int64) bool {
	for n, i := range p.claims {
		c, v := &p.call.Claims[i], answers[p.at+1+n]
		if c.Refused = v < 0; c.Refused {
			v = -1 - v
		}
		if c.Places > 0 {
			c.Under = v
		} else {
			c.Debt = time.Duration(v) * time.Microsecond
		}
	}
	return answers[p.at] == 1
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// key writes a key, its hash in base64.
func (g *group) key(c Counter, k Key) {
	from := len(g.text)
	g.text = append(g.text, c.name...)
	var bits, n uint32
	for _, b := range k {
		for bits, n = bits<<8|uint32(b), n+8; n >= 6; {
			n -= 6
			g.text = append(g.text, alphabet[bits>>n&63])
		}
	}
	g.text = append(g.text, alphabet[bits<<(6-n)&63])
	g.keys = append(g.keys, span{from, len(g.text)})
}

func (g *group) word(w string) {
	from := len(g.text)
	g.text = append(g.text, w...)
	g.words = append(g.words, span{from, len(g.text)})
}

func (g *group) number(n int64) {
	from := len(g.text)
	g.text = strconv.AppendInt(g.text, n, 10)
	g.words = append(g.words, span{from, len(g.text)})
}

// strings are the keys and words.
func (g *group) strings() (keys, words []string) {
	whole := string(g.text)
	all := make([]string, 0, len(g.keys)+len(g.words))
	for _, s := range g.keys {
		all = append(all, whole[s.from:s.to])
	}
	for _, s := range g.words {
		all = append(all, whole[s.from:s.to])
	}
	return all[:len(g.keys):len(g.keys)], all[len(g.keys):]
}
