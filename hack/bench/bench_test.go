//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestALoadProgramsReportIsRead(t *testing.T) {
	for name, c := range map[string]struct {
		read func(string) (report, error)
		text string
		want report
	}{
		"wrk": {readWrk, `Running 5s test @ http://127.0.0.1:1/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Req/Sec    30.86k    34.69k   81.21k    75.00%
  250875 requests in 5.10s, 2.95MB read
Requests/sec:  49191.17
`, report{250875, 0, 5100 * time.Millisecond}},
		"wrk with errors": {readWrk, `  100 requests in 1.00m, 2.95MB read
  Socket errors: connect 1, read 20, write 300, timeout 4000
  Non-2xx or 3xx responses: 50000
`, report{100, 54321, time.Minute}},
		"h2load": {readH2load, `finished in 1.02s, 37887.00 req/s, 2.42MB/s
requests: 37887 total, 37895 started, 37887 done, 37887 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 37887 2xx, 0 3xx, 0 4xx, 0 5xx
`, report{37887, 0, 1020 * time.Millisecond}},
		"h2load with errors": {readH2load, `finished in 224.08ms, 37887.00 req/s, 2.42MB/s
requests: 10 total, 10 started, 10 done, 3 succeeded, 4 failed, 2 errored, 1 timeout
status codes: 3 2xx, 0 3xx, 1 4xx, 1 5xx
`, report{10, 7, 224080 * time.Microsecond}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.read(c.text)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got, cmp.AllowUnexported(report{})); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestAReportOfNothingIsAnError(t *testing.T) {
	for _, text := range []string{"", "unable to connect", "  0 requests in 5.00s, 0.00B read"} {
		if got, err := readWrk(text); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
		if got, err := readH2load(text); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

func TestCPUTimeIsThatOfBothModesWhateverTheProgramIsCalled(t *testing.T) {
	got, err := cpuOfStat([]byte("42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 75 9 9 20 0 5 0 100 1000 10"))
	if want := 3250 * time.Millisecond; got != want || err != nil {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if _, err := cpuOfStat([]byte("42 (a) S 1 42")); err == nil {
		t.Error("a line cut off is accepted")
	}
}

func TestCoresAreReadFromTheKernelsList(t *testing.T) {
	got, err := coreList("0-2,5,7-8")
	if d := cmp.Diff([]int{0, 1, 2, 5, 7, 8}, got); d != "" || err != nil {
		t.Error(d, err)
	}
	if _, err := coreList(""); err == nil {
		t.Error("an empty list is accepted")
	}
}

func TestTheTableShowsMediansAndRatiosToNginx(t *testing.T) {
	turn := func(cpuMS, requests int) round {
		return round{report: report{requests: requests, took: time.Second}, cpu: time.Duration(cpuMS) * time.Millisecond}
	}
	r := result{
		loadCase: loadCase{bytes: 100},
		rounds: map[string][]round{
			"gatehouse": {turn(900, 10_000), turn(300, 10_000), turn(400, 20_000)},
			"nginx":     {turn(100, 10_000), turn(150, 10_000), turn(200, 10_000)},
		},
		peakRSS: map[string]int{"gatehouse": 51_200, "nginx": 5_120},
	}
	kinds := []kind{{name: "gatehouse"}, {name: "nginx"}}

	for bytes, want := range map[int]string{
		100: `| proxy | CPU/request | vs nginx | requests/s | of its core | peak resident |
|---|---|---|---|---|---|
| gatehouse | 30.0 µs (20.0–90.0) | 2.00 | 10000 | 40 % | 50 MiB |
| nginx | 15.0 µs (10.0–20.0) | 1.00 | 10000 | 15 % | 5 MiB |
`,
		mib: `| proxy | CPU/GiB | vs nginx | GiB/s | of its core | peak resident |
|---|---|---|---|---|---|
| gatehouse | 30.7 ms (20.5–92.2) | 2.00 | 9.77 | 40 % | 50 MiB |
| nginx | 15.4 ms (10.2–20.5) | 1.00 | 9.77 | 15 % | 5 MiB |
`,
	} {
		r.bytes = bytes
		var b strings.Builder
		r.table(&b, kinds)
		if d := cmp.Diff(want, b.String()); d != "" {
			t.Errorf("%d bytes: %s", bytes, d)
		}
	}
}

func TestOnlyWhatStandsBetweenTheMarkersIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "README.md")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("before\n" + beginMarker + "old\n" + endMarker + "after\n")
	if err := writeBetweenMarkers(path, "new\n"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if d := cmp.Diff("before\n"+beginMarker+"new\n"+endMarker+"after\n", string(got)); d != "" || err != nil {
		t.Error(d, err)
	}

	write("no markers")
	if err := writeBetweenMarkers(path, "new\n"); err == nil {
		t.Error("a file without markers is written")
	}
}

func TestTheREADMEHasAPlaceForTheFigures(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if _, rest, found := strings.Cut(string(text), beginMarker); !found || !strings.Contains(rest, endMarker) {
		t.Error("the markers are gone")
	}
}
