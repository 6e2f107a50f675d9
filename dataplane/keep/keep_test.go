package keep

import (
	"testing"
	"time"
)

type thingy struct {
	id     int
	events []string
}

func (t *thingy) Retire() { t.events = append(t.events, "retire") }
func (t *thingy) Revive() { t.events = append(t.events, "revive") }

func TestAThingLivesAsLongAsItIsAskedFor(t *testing.T) {
	now := time.Unix(1000, 0)
	s := New(func() time.Time { return now })
	made := 0
	ask := func(r *Round) *thingy {
		return Get(r, "k", func() *thingy { made++; return &thingy{id: made} })
	}
	round := func(want bool) (got *thingy) {
		r := s.Begin()
		if want {
			got = ask(r)
		}
		r.End()
		return got
	}

	first := round(true)
	if again := round(true); again != first {
		t.Fatal("asked for in every round, and yet made anew")
	}
	round(false)
	if len(first.events) != 1 || first.events[0] != "retire" {
		t.Fatalf("events %v, want one retire", first.events)
	}
	now = now.Add(Grace)
	round(false)
	if revived := round(true); revived != first || first.events[1] != "revive" {
		t.Fatalf("within Grace the same thing comes back; got %v, events %v", revived, first.events)
	}
	round(false)
	now = now.Add(Grace + time.Second)
	round(false)
	if later := round(true); later == first {
		t.Fatal("after Grace a thing is forgotten")
	}
}

func TestKeysOfDifferentTypesNeverMeet(t *testing.T) {
	type a struct{ x string }
	type b struct{ x string }
	s := New(time.Now)
	r := s.Begin()
	one := Get(r, a{"k"}, func() *thingy { return &thingy{id: 1} })
	two := Get(r, b{"k"}, func() *thingy { return &thingy{id: 2} })
	if one == two {
		t.Fatal("two rooms share a thing")
	}
}
