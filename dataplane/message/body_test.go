package message

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// pieces is a source that gives these, in a buffer that it uses again, so that who keeps a piece is found out.
type pieces struct {
	list    []string
	buf     []byte
	aborted error
}

func (p *pieces) Next() ([]byte, error) {
	if p.aborted != nil {
		return nil, p.aborted
	}
	for i := range p.buf {
		p.buf[i] = '!'
	}
	if len(p.list) == 0 {
		return nil, io.EOF
	}
	p.buf = append(p.buf[:0], p.list[0]...)
	p.list = p.list[1:]
	return p.buf, nil
}
func (p *pieces) More() bool       { return len(p.list) > 0 }
func (p *pieces) Trailer() *Header { return nil }
func (p *pieces) Abort(err error)  { p.aborted = err }

func read(t *testing.T, b *Body) string {
	t.Helper()
	var out strings.Builder
	for {
		p, err := b.Next()
		if err == io.EOF {
			return out.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		out.Write(p)
	}
}

func TestABodyThatIsHeldCanBeReadAgain(t *testing.T) {
	b := NewBody(&pieces{list: []string{"ab", "cd", "e"}}, -1, nil)
	b.Keep(10)
	if _, err := b.Next(); err != nil || !b.Rewind() {
		t.Fatal("a body that is held in part can be read again", err)
	}
	if got := read(t, b); got != "abcde" {
		t.Fatalf("%q", got)
	}
	if !b.Rewind() || read(t, b) != "abcde" || b.Passed() != 5 {
		t.Fatal("and again at its end")
	}
	if held, ok := b.Held(); !ok || string(held) != "abcde" {
		t.Fatalf("held %q %v", held, ok)
	}
}

func TestABodyBeyondItsKeepStreamsOn(t *testing.T) {
	budget := NewBudget(100)
	b := NewBody(&pieces{list: []string{"abc", "def"}}, -1, budget)
	b.Keep(4)
	if got := read(t, b); got != "abcdef" {
		t.Fatalf("%q", got)
	}
	if b.Rewind() {
		t.Fatal("what is not held cannot be read again")
	}
	if _, ok := b.Held(); ok {
		t.Fatal("nothing is held")
	}
	if budget.Left() != 100 {
		t.Fatalf("budget %d, want all of it back", budget.Left())
	}
}

func TestABufferedBodyIsSharedByAllWhoAsk(t *testing.T) {
	b := NewBody(&pieces{list: []string{"ab", "cd"}}, -1, nil)
	one, err := b.Buffer(4)
	if err != nil || string(one) != "abcd" {
		t.Fatalf("%q %v", one, err)
	}
	two, err := b.Buffer(100)
	if err != nil || &one[0] != &two[0] {
		t.Fatal("buffered twice", err)
	}
	if got := read(t, b); got != "abcd" {
		t.Fatalf("and it still streams: %q", got)
	}
}

func TestTooLargeLosesNothing(t *testing.T) {
	b := NewBody(&pieces{list: []string{"abc", "def", "ghi"}}, -1, nil)
	if _, err := b.Buffer(4); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("%v", err)
	}
	if got := read(t, b); got != "abcdefghi" {
		t.Fatalf("%q", got)
	}
}

func TestASpentBudgetLosesNothing(t *testing.T) {
	b := NewBody(&pieces{list: []string{"abc", "def", "ghi"}}, -1, NewBudget(4))
	if _, err := b.Buffer(100); !errors.Is(err, ErrNoBudget) {
		t.Fatalf("%v", err)
	}
	if got := read(t, b); got != "abcdefghi" {
		t.Fatalf("%q", got)
	}
}

func TestTheBudgetIsGivenBackAtTheEnd(t *testing.T) {
	budget := NewBudget(10)
	b := NewBody(&pieces{list: []string{"abc"}}, -1, budget)
	if _, err := b.Buffer(10); err != nil || budget.Left() != 7 {
		t.Fatal(err, budget.Left())
	}
	b.Release()
	b.Release()
	if budget.Left() != 10 {
		t.Fatalf("left %d", budget.Left())
	}
}

type upper struct{ Source }

func (u upper) Next() ([]byte, error) {
	p, err := u.Source.Next()
	return []byte(strings.ToUpper(string(p))), err
}

func TestAWrappedBodyPassesWhatWasBuffered(t *testing.T) {
	b := NewBody(&pieces{list: []string{"ab", "cd"}}, 4, nil)
	if _, err := b.Buffer(10); err != nil {
		t.Fatal(err)
	}
	b.Wrap(func(s Source) Source { return upper{s} }, 4)
	if _, raw := b.Raw(); raw {
		t.Fatal("a wrapped body is not raw")
	}
	if got := read(t, b); got != "ABCD" {
		t.Fatalf("%q", got)
	}
}

func TestANilBodyIsEmpty(t *testing.T) {
	var b *Body
	b.Abort(nil)
	b.Release()
	b.Keep(5)
	if content, err := b.Buffer(1); content != nil || err != nil || b.Len() != 0 || !b.Rewind() || !b.Ended() {
		t.Fatal("a nil body misbehaves")
	}
}
