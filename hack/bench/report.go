//go:build linux

package main

import (
	"cmp"
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// round is one measurement.
type round struct {
	report
	cpu    time.Duration // of the proxy
	others float64       // share of two cores that went to processes which are none of ours
}

func (r round) String() string {
	return fmt.Sprintf("%6.1f µs/request  %7.0f requests/s  %3.0f %% of a core  errors %d  others %.0f %%",
		r.perRequest(), r.rate(), 100*r.busy(), r.errors, 100*r.others)
}

// perRequest is CPU time in µs.
func (r round) perRequest() float64 { return float64(r.cpu) / 1e3 / float64(r.requests) }

func (r round) rate() float64 { return float64(r.requests) / r.took.Seconds() }

// busy is the share of its core that the proxy used.
func (r round) busy() float64 { return r.cpu.Seconds() / r.took.Seconds() }

// result is what one case came to.
type result struct {
	loadCase
	rounds  map[string][]round // by proxy
	peakRSS map[string]int     // KiB, by proxy
}

// spread is the middle of some numbers, and the ends.
type spread struct{ median, min, max float64 }

func spreadOf(rounds []round, value func(round) float64) spread {
	var v []float64
	for _, r := range rounds {
		v = append(v, value(r))
	}
	slices.Sort(v)
	n := len(v)
	return spread{(v[(n-1)/2] + v[n/2]) / 2, v[0], v[n-1]}
}

// figures are the tables, and what one must know to compare them with others.
func figures(ctx context.Context, o options, kinds []kind, results []result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s: %s, Linux %s; %d rounds of %s each, medians (least–most). No request failed.\n",
		time.Now().UTC().Format(time.DateOnly), processor(), kernel(), o.rounds, o.duration)
	var versions []string
	for _, k := range kinds {
		versions = append(versions, version(ctx, k))
	}
	fmt.Fprintf(&b, "%s.\n", strings.Join(versions, "; "))
	if others := worstOthers(results); others > 0.05 {
		fmt.Fprintf(&b, "**The machine was not quiet**: in the worst round %.0f %% of the two cores went to other processes.\n", 100*others)
	}
	for _, r := range results {
		fmt.Fprintf(&b, "\n%s:\n\n", r.title)
		r.table(&b, kinds)
	}
	return b.String()
}

func (r result) table(b *strings.Builder, kinds []kind) {
	base := kinds[0].name
	if r.rounds["nginx"] != nil {
		base = "nginx"
	}
	baseCPU := spreadOf(r.rounds[base], round.perRequest).median

	u := unitOf(r.loadCase)
	fmt.Fprintf(b, "| proxy | CPU/%s | vs %s | %s/s | of its core | peak resident |\n|---|---|---|---|---|---|\n", u.one, base, u.many)
	for _, k := range kinds {
		rounds := r.rounds[k.name]
		cpu, rate, busy := spreadOf(rounds, round.perRequest), spreadOf(rounds, round.rate), spreadOf(rounds, round.busy)
		fmt.Fprintf(b, "| %s | %.1f %s (%.1f–%.1f) | %.2f | %.*f | %.0f %% | %.0f MiB |\n",
			k.name, cpu.median*u.scale, u.cpu, cpu.min*u.scale, cpu.max*u.scale, cpu.median/baseCPU,
			u.digits, rate.median/u.requests, 100*busy.median, float64(r.peakRSS[k.name])/1024)
	}
}

// unit is what the costs of a case are told for.
type unit struct {
	one, many string
	requests  float64 // in one of it
	cpu       string  // unit of CPU time
	scale     float64 // makes it of µs per request
	digits    int     // of the rate
}

// unitOf is a request, or a GiB where an answer is 1 MiB and what costs is the byte.
func unitOf(c loadCase) unit {
	if c.bytes < mib {
		return unit{one: "request", many: "requests", requests: 1, cpu: "µs", scale: 1}
	}
	requests := float64(1<<30) / float64(c.bytes)
	return unit{one: "GiB", many: "GiB", requests: requests, cpu: "ms", scale: requests / 1000, digits: 2}
}

func worstOthers(results []result) float64 {
	worst := 0.0
	for _, r := range results {
		for _, rounds := range r.rounds {
			worst = max(worst, spreadOf(rounds, func(m round) float64 { return m.others }).max)
		}
	}
	return worst
}

// version is the first line that the program says of itself, and the Go that built it.
func version(ctx context.Context, k kind) string {
	out, err := exec.CommandContext(ctx, k.program, k.version...).CombinedOutput()
	if err != nil {
		return k.name + " (version unknown)"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	line, _, _ = strings.Cut(line, " - ")
	line = strings.TrimPrefix(strings.TrimSpace(line), "nginx version: ")
	if info, err := buildinfo.ReadFile(k.program); err == nil {
		line += ", " + info.GoVersion
	}
	return line
}

func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimLeft(strings.TrimSpace(name), ": \t")
		}
	}
	return runtime.GOARCH
}

func kernel() string {
	text, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return cmp.Or(strings.TrimSpace(string(text)), "(version unknown)")
}

const (
	beginMarker = "<!-- figures: written by make bench, do not edit -->\n"
	endMarker   = "<!-- end of figures -->\n"
)

// writeBetweenMarkers replaces what stands between the markers of a file.
func writeBetweenMarkers(path, text string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, rest, ok1 := strings.Cut(string(old), beginMarker)
	_, tail, ok2 := strings.Cut(rest, endMarker)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s lacks the markers between which the figures stand", path)
	}
	return os.WriteFile(path, []byte(head+beginMarker+text+endMarker+tail), 0o644)
}
