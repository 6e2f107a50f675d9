package process

import (
	"os/exec"
	"syscall"
)

// endsWithUs ends a process whose test was killed.
func endsWithUs(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
