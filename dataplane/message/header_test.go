package message

import (
	"slices"
	"testing"
)

func TestNamesCompareWithoutCaseInASCIIOnly(t *testing.T) {
	h := NewHeader(Field{"X-Kelvin", "1"}, Field{"x-KELVIN", "2"})
	if v := h.Values("X-KELVIN"); !slices.Equal(v, []string{"1", "2"}) {
		t.Fatalf("Values: %v", v)
	}
	if h.Has("X-\u212aelvin") {
		t.Fatal("the Kelvin sign is no K")
	}
	if _, ok := h.Only("x-kelvin"); ok {
		t.Fatal("two lines are not one")
	}
	if v, _ := h.Joined("x-kelvin"); v != "1,2" {
		t.Fatalf("Joined: %q", v)
	}
	h.Set("x-kelvin", "3")
	if v, ok := h.Only("X-Kelvin"); !ok || v != "3" || h.Len() != 1 {
		t.Fatalf("after Set: %q, %d lines", v, h.Len())
	}
}

func TestASharedHeadIsCopiedByWhoeverWritesFirst(t *testing.T) {
	for _, writeFirst := range []string{"original", "share"} {
		a := NewHeader(Field{"A", "1"}, Field{"B", "2"})
		b := a.Share()
		w, other := &a, &b
		if writeFirst == "share" {
			w, other = &b, &a
		}
		w.Del("A")
		w.Set("B", "9")
		w.Add("C", "3")
		if other.Get("A") != "1" || other.Get("B") != "2" || other.Has("C") || w.Has("A") || w.Get("B") != "9" {
			t.Fatalf("%s writes first: it has %v, the other %v", writeFirst, w, other)
		}
	}
}

func TestAShareCostsNothingUntilItIsWritten(t *testing.T) {
	h := NewHeader(Field{"A", "1"})
	var sink Header
	if n := testing.AllocsPerRun(100, func() { sink = h.Share() }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
	_ = sink
}

func TestFramingFieldsAreKnownInEverySpelling(t *testing.T) {
	for _, name := range []string{"host", "CONNECTION", "Content-length", "transfer-Encoding", "te", "Trailer", "upgrade", "expect", "keep-alive", "proxy-connection"} {
		if !Framing(name) {
			t.Errorf("%s frames", name)
		}
	}
	if Framing("Content-Type") || Framing("Hos") {
		t.Error("not every field frames")
	}
}

func TestEachReasonHasItsRow(t *testing.T) {
	words := map[string]bool{}
	for _, r := range Reasons() {
		if r.String() == "" || r.Status() < 400 || r.Text() == "" || words[r.String()] {
			t.Errorf("reason %d: %q %d %q", r, r.String(), r.Status(), r.Text())
		}
		words[r.String()] = true
	}
}
