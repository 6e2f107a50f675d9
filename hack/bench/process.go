//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a program of ours in the background, on one core.
type process struct {
	name  string
	cmd   *exec.Cmd
	log   string        // path of what it says
	ended chan struct{} // closed when it has ended
}

// start runs a program on one core; what it says goes to a file beside its configuration.
func start(dir, name string, core int, command ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, "output"), ended: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd = exec.Command("taskset", append([]string{"-c", strconv.Itoa(core)}, command...)...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = endsWithUs()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// endsWithUs lets the kernel end a child when the thread that started it ends, so at the latest when we do, whatever ended us. The child has
// a process group of its own: Ctrl-C at the terminal is for us, and we end the child.
func endsWithUs() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
		p.cmd.Process.Kill()
		<-p.ended
	}
}

// await asks again and again until good says nil, the process ends, or ten seconds are over.
func (p *process) await(ctx context.Context, good func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		err := good(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended: %s", p.name, p.said())
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer as it should: %w; it said: %s", p.name, err, p.said())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// blame adds to an error what the process said, if it has ended: that will be the cause.
func (p *process) blame(err error) error {
	select {
	case <-p.ended:
		return fmt.Errorf("it has ended: %w; it said: %s", err, p.said())
	default:
		return err
	}
}

// said is the end of what the process has written.
func (p *process) said() string {
	text, _ := os.ReadFile(p.log)
	return string(text[max(0, len(text)-2000):])
}

// tick is the unit of CPU time in /proc: USER_HZ, 100 per second on whatever Go runs on (proc_pid_stat(5)).
const tick = 10 * time.Millisecond

// cpu is the time that all threads have used so far, in user and system mode.
func (p *process) cpu() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("%s has ended: %w; it said: %s", p.name, err, p.said()) // reaped as soon as it ended
	}
	return cpuOfStat(text)
}

// cpuOfStat reads utime and stime, the fields 14 and 15. The second field is the program's name in parentheses and may hold anything.
func cpuOfStat(text []byte) (time.Duration, error) {
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/PID/stat is too short: %q", text)
	}
	return ticks(string(fields[11]), string(fields[12]))
}

func ticks(counts ...string) (time.Duration, error) {
	var sum time.Duration
	for _, c := range counts {
		n, err := strconv.ParseInt(c, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}

// peakRSS is the most memory that was ever resident, in KiB.
func (p *process) peakRSS() (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSuffix(statusField(string(text), "VmHWM"), " kB"))
}

func statusField(text, name string) string {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// clocks are CPU times at one moment.
type clocks struct{ proxy, origin, machine time.Duration }

func readClocks(proxy, origin *process) (c clocks, err error) {
	if c.proxy, err = proxy.cpu(); err != nil {
		return c, err
	}
	if c.origin, err = origin.cpu(); err != nil {
		return c, err
	}
	c.machine, err = machineCPU()
	return c, err
}

// machineCPU is what all processors did so far for whomever: user, nice, system, irq, softirq and steal of the first line of /proc/stat.
func machineCPU() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	f := strings.Fields(line)
	if len(f) < 9 {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	return ticks(f[1], f[2], f[3], f[6], f[7], f[8])
}

// twoCores are the first two that we may use: the proxy's, and that of load and origin.
func twoCores() (proxy, load int, err error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, 0, err
	}
	cores, err := coreList(statusField(string(text), "Cpus_allowed_list"))
	if err != nil {
		return 0, 0, err
	}
	if len(cores) < 2 {
		return 0, 0, fmt.Errorf("two cores are needed, one for the proxy and one for load and origin; there is %d", len(cores))
	}
	return cores[0], cores[1], nil
}

// coreList reads "0-3,8".
func coreList(text string) ([]int, error) {
	var out []int
	for _, part := range strings.Split(text, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		a, err := strconv.Atoi(from)
		if err != nil {
			return nil, err
		}
		b, err := strconv.Atoi(to)
		if err != nil {
			return nil, err
		}
		for ; a <= b; a++ {
			out = append(out, a)
		}
	}
	return out, nil
}

// freePorts are ports of 127.0.0.1 that nobody had a moment ago.
func freePorts(n int) ([]int, error) {
	var out []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	return out, nil
}
