//go:build unix

package nethttp

import "syscall"

// nothingToRead reports whether a connection is open and silent, which is how an idle one must be.
func nothingToRead(fd uintptr) bool {
	var b [1]byte
	_, err := syscall.Read(int(fd), b[:])
	return err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
}
