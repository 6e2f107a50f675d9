// Package racetest keeps tests that count allocations from the race detector, under which pools drop things at random and more is allocated.
package racetest

import (
	"runtime/debug"
	"slices"
	"testing"
)

// SkipsAllocations skips the test if the race detector watches it.
func SkipsAllocations(t testing.TB) {
	t.Helper()
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("allocations are others under the race detector")
	}
}
