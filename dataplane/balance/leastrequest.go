package balance

import "math/rand/v2"

// leastRequest takes the less busy of two picked at random: nearly as good as the least busy of all, without looking at all of them,
// and without every replica rushing to the same one (Mitzenmacher, "The power of two choices in randomized load balancing", 2001).
type leastRequest struct{ set []*Endpoint }

func newLeastRequest(set []*Endpoint) Picker { return leastRequest{set} }

func (l leastRequest) Pick(q Request) *Endpoint {
	c := candidatesOf(l.set, q.Excluded)
	if c.n == 1 {
		return c.at(0)
	}

	i := rand.IntN(c.n)
	j := rand.IntN(c.n - 1)
	if j >= i {
		j++ // two different ones, each pair as likely as any other
	}
	a, b := c.at(i), c.at(j)
	if b.Active.Load() < a.Active.Load() {
		return b
	}
	return a
}
