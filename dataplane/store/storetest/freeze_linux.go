package storetest

import (
	"os/exec"
	"syscall"
)

// Freeze stops it without ending it: connections stay, and nothing answers.
func (s *Server) Freeze() { s.process.Process.Signal(syscall.SIGSTOP) }

// Thaw lets it go on.
func (s *Server) Thaw() { s.process.Process.Signal(syscall.SIGCONT) }

// dieWithUs ends a server whose test was killed.
func dieWithUs(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
