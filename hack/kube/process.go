package kube

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// process is a program that runs until we end it.
type process struct {
	name  string
	log   string // path of what it wrote to stdout and stderr
	pid   int
	kill  func() error
	ended chan struct{} // closed when it is gone and reaped
	err   error         // how it ended; set before ended is closed
}

// start runs bin/name in dir with its log in dir/name.log.
func start(bin, dir, name string, args ...string) (*process, error) {
	logFile, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer logFile.Close()

	cmd := exec.Command(filepath.Join(bin, name), args...)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = endsWithUs(kill)

	p := &process{name: name, log: logFile.Name(), kill: func() error { return cmd.Process.Kill() }, ended: make(chan struct{})}
	started := make(chan error)
	go p.run(cmd, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.pid = cmd.Process.Pid
	return p, nil
}

// run keeps one thread for the life of the child: Linux sends the death signal when the thread that
// started it ends, which Go may let happen long before the process ends (golang.org/issue/27505).
func (p *process) run(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	err := cmd.Start()
	started <- err
	if err != nil {
		return
	}
	p.err = cmd.Wait()
	close(p.ended)
}

// stop ends it at once and waits until it is gone. Nothing is asked politely: what it holds is thrown
// away with it, and a graceful API server waits for its watchers.
func (p *process) stop() {
	p.kill() // fails only when it is gone
	<-p.ended
}

// outcome is how it ended: never nil, since none of our programs should end by itself.
func (p *process) outcome() error {
	if p.err == nil {
		return errors.New("exit status 0")
	}
	return p.err
}

// failed is an error that tells the last lines that the program wrote.
func (p *process) failed(what string, cause error) error {
	return fmt.Errorf("%s %s: %w\nlast lines of its log:\n%s", p.name, what, cause, tail(p.log, 4<<10))
}

// tail reads the end of a file, at most limit bytes and whole lines only.
func tail(file string, limit int64) []byte {
	f, err := os.Open(file)
	if err != nil {
		return []byte(err.Error())
	}
	defer f.Close()

	info, err := f.Stat()
	if err != nil {
		return []byte(err.Error())
	}
	from := max(0, info.Size()-limit)
	text := make([]byte, info.Size()-from)
	n, _ := f.ReadAt(text, from)
	text = text[:n]
	if from > 0 {
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	return bytes.TrimSpace(text)
}
