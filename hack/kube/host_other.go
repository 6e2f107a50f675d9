//go:build !linux

package kube

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

const (
	terminate = syscall.SIGTERM
	kill      = syscall.SIGKILL
)

// hostFits says what the machine lacks. Tests fail with it rather than pass without having tested.
func hostFits() error {
	return fmt.Errorf("hack/kube needs Linux (this is %s): run these tests in a Linux container or virtual machine that has Go", runtime.GOOS)
}

func endsWithUs(syscall.Signal) *syscall.SysProcAttr { return nil }

func claim(*os.File) bool { return false }
