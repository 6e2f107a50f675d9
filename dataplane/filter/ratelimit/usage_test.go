package ratelimit

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

func (h *house) shown() string {
	h.t.Helper()
	ex := &message.Exchange{}
	h.page.Serve(ex)
	b, err := ex.Response.Body.Buffer(1 << 20)
	if err != nil {
		h.t.Fatal(err)
	}
	h.page.Done(ex)
	return string(b)
}

func TestThePageShowsWhatIsUsedOfEachLimit(t *testing.T) {
	h := newHouse(t)
	client := limitOf("per-client", perMinute(10, 2), perHour(100))
	client.Key = []string{"source.ip"}
	at := concurrent(5)
	at.Name, at.Key = "places", nil
	chains := h.apply(Config{[]Limit{client, at}}, Config{[]Limit{client}})
	admitted(chains[0], 9, "10.0.0.1")
	admitted(chains[1], 3, "10.0.0.2")
	ex := from("10.0.0.3")
	ask(chains[0], ex)
	got := h.shown()
	want := `
shop/api-limits#0b1c2d3e/per-client 10/1m+2,100/1h by source.ip
  1m, keys: 3
    3 of 12 left, all in 54s  "10.0.0.1"
    9 of 12 left, all in 18s  "10.0.0.2"
    11 of 12 left, all in 6s  "10.0.0.3"
  1h, keys: 3
    91 of 100 left, all in 5m24s  "10.0.0.1"
    97 of 100 left, all in 1m48s  "10.0.0.2"
    99 of 100 left, all in 36s  "10.0.0.3"

shop/api-limits#0b1c2d3e/places 5 at once
  at once, keys: 1
    1 of 5 under way  everybody
`
	if _, got, _ = strings.Cut(got, "\n"); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if n := h.gauges["ratelimit_used_ratio policy shop/api-limits limit per-client"](); n != 0.75 {
		t.Errorf("used %v, want 9 of 12", n)
	}
	if n := h.gauges["ratelimit_used_ratio policy shop/api-limits limit places"](); n != 0.2 {
		t.Errorf("used %v, want 1 of 5", n)
	}
	if n := h.gauges["ratelimit_keys policy shop/api-limits limit per-client"](); n != 3 {
		t.Errorf("%v keys, want 3", n)
	}
	chains[0].Done(ex)
}

func TestALimitThatIsGoneOrChangedLeavesThePage(t *testing.T) {
	h := newHouse(t)
	l := limitOf("l", perMinute(10, 0))
	h.chain(l, limitOf("gone", perMinute(1, 0)))
	l.Rates[0].Requests = 20
	h.chain(l)
	if got := h.shown(); strings.Contains(got, "gone") || strings.Contains(got, "10/1m") || !strings.Contains(got, "/l 20/1m") {
		t.Error(got)
	}
	l.Rates[0].Requests = 10
	h.chain(l)
	if got := h.shown(); strings.Contains(got, "20/1m") || !strings.Contains(got, "/l 10/1m") {
		t.Error(got)
	}
}

func TestThePageBetraysNoCredential(t *testing.T) {
	h := newHouse(t)
	l := limitOf("l", perMinute(10, 0))
	l.Key = []string{`request.headers["authorization"]`, "source.ip"}
	c := h.chain(l)
	for _, secret := range []string{"Bearer s3cr3t", strings.Repeat("s3cr3t", 100)} {
		ex := from("10.0.0.1")
		ex.Request.Header.Set("Authorization", secret)
		over(c, ex)
	}
	got := h.shown()
	if strings.Contains(got, "s3cr3t") || !strings.Contains(got, `sha256 3c8533c6c845, "10.0.0.1"`) || !strings.Contains(got, "a long key") {
		t.Error(got)
	}
	// A counter that was once keyed so still remembers it.
	l.Key = []string{"identity.subject"}
	h.chain(l)
	if got := h.shown(); strings.Contains(got, "s3cr3t") {
		t.Error(got)
	}
}

func TestTheTenThatUsedMostAreShown(t *testing.T) {
	h := newHouse(t)
	l := limitOf("l", Rate{Requests: 1000, Window: time.Hour})
	l.Key = []string{"source.ip"}
	c := h.chain(l)
	for i := range 50 {
		admitted(c, 1+i*7%50, fmt.Sprint("10.0.0.", i))
	}
	lines := strings.Split(strings.TrimSpace(h.shown()), "\n")
	lines = lines[len(lines)-topKeys-1:]
	if lines[0] != "  1h, keys: 50" || !strings.HasPrefix(lines[1], "    950 of 1000") || !strings.HasPrefix(lines[10], "    959 of 1000") {
		t.Error(strings.Join(lines, "\n"))
	}
}
