//go:build !linux

package storetest

import "os/exec"

// Freeze does nothing but end the test: only Linux is known well enough.
func (s *Server) Freeze() { s.t.Skip("freezing a server is for Linux") }

// Thaw lets it go on.
func (s *Server) Thaw() {}

func dieWithUs(*exec.Cmd) {}
