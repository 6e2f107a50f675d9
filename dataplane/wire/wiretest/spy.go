package wiretest

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Spy is a Handler that counts, and remembers how exchanges ended.
type Spy struct {
	Answer func(ex *message.Exchange) // Serve; nil answers 200 "ok"

	mu      sync.Mutex // guards what follows
	changed *sync.Cond
	served  int
	ends    []End
	open    map[*message.Exchange]bool // served, not done
	faults  []string
}

// End is how an exchange ended, as Done found it.
type End struct {
	Served  bool // false: the engine refused it by itself
	Status  int
	Reason  message.Reason // of the answer
	Outcome message.Outcome
	Method  string
	Target  string
}

// NewSpy returns a Spy whose Serve is answer.
func NewSpy(answer func(ex *message.Exchange)) *Spy {
	s := &Spy{Answer: answer, open: map[*message.Exchange]bool{}}
	s.changed = sync.NewCond(&s.mu)
	return s
}

func (s *Spy) Serve(ex *message.Exchange) {
	s.mu.Lock()
	if s.open[ex] {
		s.faults = append(s.faults, "Serve again before Done")
	}
	s.open[ex] = true
	s.served++
	s.changed.Broadcast()
	s.mu.Unlock()
	ex.State = s
	if s.Answer == nil {
		ex.Response = Text(200, "ok")
		return
	}
	s.Answer(ex)
}

func (s *Spy) Done(ex *message.Exchange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	end := End{Served: s.open[ex], Outcome: ex.Outcome, Method: ex.Request.Method, Target: ex.Request.Target.Raw}
	if ex.Response != nil {
		end.Status, end.Reason = ex.Response.Status, ex.Response.Reason
	} else {
		s.faults = append(s.faults, "Done without an answer")
	}
	if !end.Served && ex.State != nil {
		s.faults = append(s.faults, "Done twice, or a refusal with State")
	}
	if ex.Conn == nil {
		s.faults = append(s.faults, "Done without a connection")
	}
	delete(s.open, ex)
	s.ends = append(s.ends, end)
	s.changed.Broadcast()
}

// Ends waits until n exchanges have ended, and returns them.
func (s *Spy) Ends(t testing.TB, n int) []End {
	t.Helper()
	s.wait(t, fmt.Sprintf("%d exchanges to end", n), func() bool { return len(s.ends) >= n && len(s.open) == 0 })
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ends) != n {
		t.Errorf("%d exchanges ended, want %d: %+v", len(s.ends), n, s.ends)
	}
	for _, f := range s.faults {
		t.Error(f)
	}
	return slices.Clone(s.ends)
}

// Served is the number of exchanges that reached Serve so far.
func (s *Spy) Served() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served
}

// AwaitServed waits until n exchanges have reached Serve.
func (s *Spy) AwaitServed(t testing.TB, n int) {
	t.Helper()
	s.wait(t, fmt.Sprintf("%d exchanges in Serve", n), func() bool { return s.served >= n })
}

func (s *Spy) wait(t testing.TB, what string, true_ func() bool) {
	t.Helper()
	late := time.AfterFunc(patience, s.changed.Broadcast)
	defer late.Stop()
	until := time.Now().Add(patience)
	s.mu.Lock()
	defer s.mu.Unlock()
	for !true_() {
		if time.Now().After(until) {
			t.Fatalf("waited in vain for %s: served %d, ended %+v", what, s.served, s.ends)
		}
		s.changed.Wait()
	}
}

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// Text is an answer with a body.
func Text(status int, body string) *message.Response {
	return &message.Response{Status: status, Length: -1, Body: message.BodyOf([]byte(body))}
}

// Pieces is a Source of pieces that comes to an end, or breaks with err.
type Pieces struct {
	Rest []string
	Tail *message.Header
	Err  error
	Wait <-chan struct{} // the end comes when it is closed; nil at once

	once  sync.Once
	given chan struct{}
	mu    sync.Mutex // guards cause
	cause error
}

func (p *Pieces) Next() ([]byte, error) {
	if len(p.Rest) > 0 {
		s := p.Rest[0]
		p.Rest = p.Rest[1:]
		return []byte(s), nil
	}
	if p.Wait != nil {
		select {
		case <-p.Wait:
		case <-p.up():
			return nil, &message.Error{Reason: message.ReasonClientLeft}
		}
	}
	if p.Err != nil {
		return nil, p.Err
	}
	return nil, io.EOF
}

func (p *Pieces) up() chan struct{} {
	p.once.Do(func() { p.given = make(chan struct{}) })
	return p.given
}

func (p *Pieces) More() bool               { return len(p.Rest) > 0 }
func (p *Pieces) Trailer() *message.Header { return p.Tail }
func (p *Pieces) Abort(err error) {
	up := p.up()
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-up:
	default:
		p.cause = err
		close(up)
	}
}

// ReadAll pulls a body to its end.
func ReadAll(b *message.Body) (string, error) {
	if b == nil {
		return "", nil
	}
	var all strings.Builder
	for {
		p, err := b.Next()
		if err == io.EOF {
			return all.String(), nil
		}
		if err != nil {
			return all.String(), err
		}
		all.Write(p)
	}
}

// Dump is an exchange as filters see it, but for order and spelling of names, which not every engine knows.
func Dump(ex *message.Exchange) string {
	var b strings.Builder
	r := &ex.Request
	fmt.Fprintf(&b, "%s %s://%s[%s:%d] %s path=%s", r.Method, r.Scheme, r.Host.Raw, r.Host.Name, r.Host.Port, r.Target.Raw, r.Target.Path)
	if r.Target.HasQuery {
		fmt.Fprintf(&b, " query=%s", r.Target.Query)
	}
	if r.Upgrade != "" {
		fmt.Fprintf(&b, " upgrade=%s", r.Upgrade)
	}
	if r.TETrailers {
		b.WriteString(" te")
	}
	b.WriteString("\n")
	b.WriteString(lines(&r.Header))
	length := r.Body.Len()
	content, err := ReadAll(r.Body)
	if r.Body != nil {
		if len(content) > 40 {
			content = fmt.Sprintf("%s… (%d)", content[:8], len(content))
		}
		fmt.Fprintf(&b, "body %d %q", length, content)
		if err != nil {
			fmt.Fprintf(&b, " %v", err)
		}
		b.WriteString("\n")
		if t := r.Body.Trailer(); t != nil {
			b.WriteString("trailer " + lines(t))
		}
	}
	return b.String()
}

// lines are fields, sorted, their names in lower case. The order of lines of one name stays.
func lines(h *message.Header) string {
	var out []string
	for name, value := range h.All() {
		out = append(out, strings.ToLower(name)+": "+value+"\n")
	}
	slices.SortStableFunc(out, func(a, b string) int {
		return strings.Compare(a[:strings.IndexByte(a, ':')], b[:strings.IndexByte(b, ':')])
	})
	return strings.Join(out, "")
}

// Fields makes a Header of "Name: value" lines.
func Fields(list ...string) message.Header {
	var h message.Header
	for _, l := range list {
		name, value, _ := strings.Cut(l, ": ")
		h.Add(name, value)
	}
	return h
}

// NothingLeaks runs f and demands that goroutines and descriptors come back to what they were.
func NothingLeaks(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	goroutines, files := runtime.NumGoroutine(), descriptors()
	f(t)
	Await(t, "goroutines and descriptors to end", func() bool {
		return runtime.NumGoroutine() <= goroutines && descriptors() <= files
	}, func() string {
		buf := make([]byte, 1<<20)
		return fmt.Sprintf("%d goroutines, were %d; %d descriptors, were %d\n%s",
			runtime.NumGoroutine(), goroutines, descriptors(), files, buf[:runtime.Stack(buf, true)])
	})
}

// descriptors is the number of open file descriptors, where the system tells.
func descriptors() int {
	entries, _ := os.ReadDir("/proc/self/fd")
	return len(entries)
}

// Await waits for a condition that nobody announces.
func Await(t testing.TB, what string, condition func() bool, detail func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s: %s", what, detail())
		}
	}
}
