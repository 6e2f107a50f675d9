package keyring

import (
	"bytes"
	"testing"
	"time"
)

func ring(life time.Duration) (*Ring, *time.Time) {
	now := time.Unix(1000, 0)
	return New(life, func() time.Time { return now }), &now
}

func key(b byte) []byte { return bytes.Repeat([]byte{b}, Size) }

func TestReplicasWithTheSameKeysDeriveTheSame(t *testing.T) {
	a, _ := ring(time.Hour)
	b, now := ring(time.Hour)
	if bytes.Equal(a.Derive("x")[0], b.Derive("x")[0]) {
		t.Error("two rings made the same keys")
	}
	for _, r := range []*Ring{a, b} {
		if err := r.Set([][]byte{key(1), key(2), key(3)}); err != nil {
			t.Fatal(err)
		}
	}
	*now = now.Add(1000 * time.Hour)
	for i := range 3 {
		if !bytes.Equal(a.Derive("x")[i], b.Derive("x")[i]) {
			t.Errorf("key %d differs", i)
		}
		if bytes.Equal(a.Derive("x")[i], a.Derive("y")[i]) || bytes.Equal(a.Derive("x")[i], key(byte(i+1))) {
			t.Errorf("key %d is not of its purpose alone", i)
		}
	}
}

// A replica that has heard of the rotation and one that has not open what the other seals.
func TestARotationIsUnderstoodBeforeItIsHeardOf(t *testing.T) {
	ahead, _ := ring(0)
	behind, _ := ring(0)
	current, next, previous := key(1), key(2), key(3)
	if err := behind.Set([][]byte{current, next, previous}); err != nil {
		t.Fatal(err)
	}
	if err := ahead.Set([][]byte{next, key(4), current}); err != nil {
		t.Fatal(err)
	}
	opens := func(r *Ring, sealed []byte) bool {
		for _, k := range r.Derive("cookie") {
			if bytes.Equal(k, sealed) {
				return true
			}
		}
		return false
	}
	if !opens(behind, ahead.Derive("cookie")[0]) || !opens(ahead, behind.Derive("cookie")[0]) {
		t.Error("one replica cannot open what the other seals")
	}
}

func TestARingOfItsOwnForgetsTheOldest(t *testing.T) {
	r, now := ring(time.Hour)
	first := r.Derive("x")[0]
	for hours, want := range []bool{true, true, true, false} {
		if hours > 0 {
			*now = now.Add(time.Hour)
		}
		keys := r.Derive("x")
		found := false
		for _, k := range keys {
			found = found || bytes.Equal(k, first)
		}
		if found != want {
			t.Errorf("after %d rotations: opens %v", hours, found)
		}
		if hours > 0 && bytes.Equal(keys[0], first) {
			t.Errorf("after %d rotations the first key still seals", hours)
		}
	}
	*now = now.Add(100 * time.Hour)
	if n := len(r.Derive("x")); n != 1 {
		t.Errorf("after a long silence %d keys open", n)
	}
}

func TestTheRoundTellsAChange(t *testing.T) {
	r, _ := ring(0)
	before := r.Round()
	for range 2 {
		if err := r.Set([][]byte{key(1)}); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.Round(); got != before+1 {
		t.Errorf("the same keys twice are %d changes", got-before)
	}
}

func TestAKeyThatIsTooShortChangesNothing(t *testing.T) {
	r, _ := ring(0)
	was := r.Derive("x")[0]
	for _, keys := range [][][]byte{nil, {key(1)[:31]}, {key(1), {}}} {
		if r.Set(keys) == nil {
			t.Errorf("%d keys were taken", len(keys))
		}
	}
	if !bytes.Equal(r.Derive("x")[0], was) {
		t.Error("the keys changed")
	}
}
