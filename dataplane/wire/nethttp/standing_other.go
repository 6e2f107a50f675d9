//go:build !unix

package nethttp

// nothingToRead cannot be told here.
func nothingToRead(uintptr) bool { return true }
