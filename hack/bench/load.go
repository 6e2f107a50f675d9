//go:build linux

package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// loadCase is one kind of load.
type loadCase struct {
	name, title string
	path        string // at the origin
	bytes       int    // of an answer's body
	connections int
	streams     int      // at once on a connection, over HTTP/2; 0: HTTP/1.1
	fields      []string // of a request, beside Host
}

const mib = 1 << 20

// cases are what is measured. The fields that a browser sends are long and many, and a proxy has to look at each.
var cases = []loadCase{
	{
		name: "small", title: "100-byte answers, three request fields, HTTP/1.1, 64 connections",
		path: "/small", bytes: 100, connections: 64,
		fields: []string{"User-Agent: bench/1.0", "Accept: */*"},
	},
	{
		name: "browser", title: "The same with a browser's ten request fields",
		path: "/small", bytes: 100, connections: 64,
		fields: []string{
			"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
			"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
			"Accept-Language: en-GB,en;q=0.7,de;q=0.3",
			"Accept-Encoding: gzip, deflate, br, zstd",
			"Referer: https://shop.example.com/catalogue/shoes?page=3",
			"Cookie: session=5f2b7c1e9a8d4e60b3c5d7f9a1b2c3d4; theme=dark; consent=all",
			"Cache-Control: max-age=0",
			"Sec-Fetch-Mode: navigate",
			"Sec-Fetch-Site: same-origin",
		},
	},
	{
		name: "mib", title: "1 MiB answers, HTTP/1.1, 16 connections",
		path: "/mib", bytes: mib, connections: 16,
		fields: []string{"User-Agent: bench/1.0", "Accept: */*"},
	},
	{
		name: "http2", title: "100-byte answers, HTTP/2 in the clear, 8 connections of 8 streams (HTTP/1.1 to the origin)",
		path: "/small", bytes: 100, connections: 8, streams: 8,
		fields: []string{"Accept: */*"}, // the load program adds user-agent
	},
}

func caseNames() []string {
	var out []string
	for _, c := range cases {
		out = append(out, c.name)
	}
	return out
}

// report is what a load program says at its end.
type report struct {
	requests int // answered
	errors   int // refused, cut, late, or answered with something else than 2xx or 3xx
	took     time.Duration
}

// load is a report, and the CPU time that making the load took.
type load struct {
	report
	cpu time.Duration
}

// load runs wrk, or h2load where the case is HTTP/2, on the core that is not the proxy's.
func (b *bench) load(ctx context.Context, c loadCase, url string, d time.Duration) (load, error) {
	seconds := strconv.Itoa(int(d / time.Second))
	args := []string{"-c", strconv.Itoa(b.loadCore)}
	read := readWrk
	if c.streams == 0 {
		args = append(args, "wrk", "-t1", "-c", strconv.Itoa(c.connections), "-d", seconds+"s")
	} else {
		read = readH2load
		args = append(args, "h2load", "-t1", "-c", strconv.Itoa(c.connections), "-m", strconv.Itoa(c.streams), "-D", seconds)
	}
	for _, f := range c.fields {
		args = append(args, "-H", f)
	}
	cmd := exec.CommandContext(ctx, "taskset", append(args, url)...)
	cmd.SysProcAttr = endsWithUs()
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return load{}, ctx.Err()
	}
	if err != nil {
		return load{}, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, out)
	}
	r, err := read(string(out))
	return load{r, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}, err
}

var (
	wrkTotal  = regexp.MustCompile(`(\d+) requests in (\S+),`)
	wrkSocket = regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)
	wrkStatus = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)

	h2Took     = regexp.MustCompile(`finished in (\S+),`)
	h2Requests = regexp.MustCompile(`requests: \d+ total, \d+ started, (\d+) done, \d+ succeeded, (\d+) failed, (\d+) errored, (\d+) timeout`)
	h2Status   = regexp.MustCompile(`status codes: \d+ 2xx, \d+ 3xx, (\d+) 4xx, (\d+) 5xx`)
)

// readWrk reads wrk's report. Its lines on errors are there only where there were some.
func readWrk(out string) (report, error) {
	total := wrkTotal.FindStringSubmatch(out)
	if total == nil {
		return report{}, fmt.Errorf("no report of wrk: %s", out)
	}
	return newReport(total[1], total[2], numbers(wrkSocket, out)+numbers(wrkStatus, out))
}

// readH2load reads h2load's report. A request that ended with 4xx or 5xx is among the failed ones as well.
func readH2load(out string) (report, error) {
	took, done := h2Took.FindStringSubmatch(out), h2Requests.FindStringSubmatch(out)
	if took == nil || done == nil {
		return report{}, fmt.Errorf("no report of h2load: %s", out)
	}
	failed := 0
	for _, n := range done[2:] {
		failed += number(n)
	}
	return newReport(done[1], took[1], max(failed, numbers(h2Status, out)))
}

func newReport(requests, took string, errors int) (report, error) {
	d, err := time.ParseDuration(took)
	r := report{requests: number(requests), errors: errors, took: d}
	if err != nil || d <= 0 || r.requests == 0 {
		return r, fmt.Errorf("%s requests in %q, with %d errors: nothing to measure", requests, took, errors)
	}
	return r, nil
}

// numbers adds up what the groups of the expression matched; 0 where it is not there.
func numbers(e *regexp.Regexp, text string) int {
	sum := 0
	if m := e.FindStringSubmatch(text); m != nil {
		for _, n := range m[1:] {
			sum += number(n)
		}
	}
	return sum
}

// number is for matches of \d+.
func number(digits string) int {
	n, _ := strconv.Atoi(digits)
	return n
}
