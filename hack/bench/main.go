//go:build linux

// Command bench measures what a request costs: CPU time of Gatehouse per proxied request, beside nginx and HAProxy as Debian ships
// them, in one run, and writes the figures into a README so that later work has a base to be compared with.
//
// The proxies take turns, and the order changes from round to round, so that whatever else the machine does meets all of them. One core
// is the proxy's; load and origin have another one, so that neither is counted with it. What is compared is CPU time, as /proc tells it,
// divided by the answers that the load program counted. Requests per second stand beside it, but with one core for load and origin they
// may say more about those.
//
// Limits: Linux, two cores, loopback. The kernel's work for TCP is counted with whoever calls it, which loopback blurs a little. Run
// hack/bench/run.sh, which installs what is needed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	runtime.LockOSThread() // children end with the thread that started them (process.go); this one lives as long as we do
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	gatehouse string        // the program
	readme    string        // gets the figures; empty: none
	proxies   string        // names, by commas
	cases     string        // names, by commas; empty: all
	duration  time.Duration // of one measurement, whole seconds
	rounds    int
}

func run(ctx context.Context, args []string) error {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&o.gatehouse, "gatehouse", "bin/gatehouse", "the program")
	f.StringVar(&o.readme, "readme", "hack/bench/README.md", "file that gets the figures of a run of all cases, between its markers; empty: none")
	f.StringVar(&o.proxies, "proxies", "nginx,haproxy,gatehouse", "which, by commas; ratios are to nginx, or else to the first")
	f.StringVar(&o.cases, "cases", "", "which, by commas, of "+strings.Join(caseNames(), ", ")+"; empty: all")
	f.DurationVar(&o.duration, "duration", 5*time.Second, "of one measurement, in whole seconds")
	f.IntVar(&o.rounds, "rounds", 3, "measurements of each proxy in each case")
	if err := f.Parse(args); err != nil {
		return err
	}
	if o.duration < time.Second || o.duration%time.Second != 0 || o.rounds < 1 || f.NArg() > 0 {
		return fmt.Errorf("want a duration of whole seconds, at least one round, and no further arguments")
	}

	kinds, err := pick(o.proxies, allProxies(o.gatehouse), func(k kind) string { return k.name })
	if err != nil {
		return err
	}
	chosen, err := pick(o.cases, cases, func(c loadCase) string { return c.name })
	if err != nil {
		return err
	}
	for _, k := range kinds {
		if _, err := exec.LookPath(k.program); err != nil {
			return fmt.Errorf("%w: see hack/bench/run.sh and make build", err)
		}
	}

	b := bench{options: o, kinds: kinds}
	results, err := b.measureAll(ctx, chosen)
	if err != nil {
		return err
	}
	text := figures(ctx, o, kinds, results)
	fmt.Print("\n", text)
	if o.readme == "" || o.cases != "" {
		return nil
	}
	return writeBetweenMarkers(o.readme, text)
}

// pick chooses from all by names divided by commas, in the order of the names; no name means all.
func pick[T any](names string, all []T, name func(T) string) ([]T, error) {
	if names == "" {
		return all, nil
	}
	var out []T
	for _, n := range strings.Split(names, ",") {
		i := slices.IndexFunc(all, func(x T) bool { return name(x) == n })
		if i < 0 {
			return nil, fmt.Errorf("there is no %q", n)
		}
		out = append(out, all[i])
	}
	return out, nil
}

// bench is one run.
type bench struct {
	options
	kinds               []kind
	dir                 string // for all files
	proxyCore, loadCore int
	originPort          int
}

// measureAll leaves nothing behind, neither processes nor files.
func (b *bench) measureAll(ctx context.Context, cases []loadCase) (results []result, err error) {
	if b.proxyCore, b.loadCore, err = twoCores(); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp("", "gatehouse-bench-"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(b.dir)
	origin, err := b.startOrigin(ctx)
	if err != nil {
		return nil, err
	}
	defer origin.stop()

	for _, c := range cases {
		r, err := b.measureCase(ctx, c, origin)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		results = append(results, r)
	}
	return results, nil
}

// measureCase starts all proxies anew, so that the memory shown is this case's, and lets them take turns. A failed request ends it:
// a proxy that refuses is fast.
func (b *bench) measureCase(ctx context.Context, c loadCase, origin *process) (result, error) {
	r := result{loadCase: c, rounds: map[string][]round{}, peakRSS: map[string]int{}}
	running := map[string]*proxy{}
	for _, k := range b.kinds {
		p, err := b.startProxy(ctx, k, c)
		if err != nil {
			return r, err
		}
		defer p.stop()
		running[k.name] = p
		if _, err := b.load(ctx, c, p.url(c), time.Second); err != nil { // connections, pools, caches
			return r, fmt.Errorf("%s, warming up: %w", k.name, p.blame(err))
		}
	}

	for n := range b.rounds {
		for i := range b.kinds {
			k := b.kinds[(n+i)%len(b.kinds)]
			m, err := b.measure(ctx, c, running[k.name], origin)
			if err != nil {
				return r, fmt.Errorf("%s: %w", k.name, err)
			}
			fmt.Fprintf(os.Stderr, "%-8s round %d  %-9s  %s\n", c.name, n+1, k.name, m)
			if m.errors > 0 {
				return r, fmt.Errorf("%s: %d of %d requests failed", k.name, m.errors, m.requests)
			}
			r.rounds[k.name] = append(r.rounds[k.name], m)
		}
	}
	for name, p := range running {
		kib, err := p.peakRSS()
		if err != nil {
			return r, err
		}
		r.peakRSS[name] = kib
	}
	return r, nil
}

// measure is one turn of one proxy.
func (b *bench) measure(ctx context.Context, c loadCase, p *proxy, origin *process) (round, error) {
	before, err := readClocks(p.process, origin)
	if err != nil {
		return round{}, err
	}
	l, err := b.load(ctx, c, p.url(c), b.duration)
	if err != nil {
		return round{}, p.blame(err)
	}
	after, err := readClocks(p.process, origin)
	if err != nil {
		return round{}, err
	}
	ours := after.proxy - before.proxy
	others := (after.machine - before.machine) - ours - (after.origin - before.origin) - l.cpu
	return round{report: l.report, cpu: ours, others: max(0, float64(others)/float64(2*l.took))}, nil
}
