package kube

import (
	"os"
	"syscall"
)

const (
	terminate = syscall.SIGTERM
	kill      = syscall.SIGKILL
)

// hostFits says what the machine lacks.
func hostFits() error { return nil }

// endsWithUs makes a child get the signal when the thread that started it ends, so at the latest
// when this process does, whatever ended it: a panic, the test's timeout, SIGKILL. The child has a process
// group of its own: a Ctrl-C at the terminal is for us, and we end the child.
func endsWithUs(signal syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: signal}
}

// claim locks an open file until it is closed, or until this process ends. It reports false when
// another process has it.
func claim(f *os.File) bool {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}
