//go:build !linux

package kube

import "testing"

func TestWhatNeedsLinuxFailsElsewhereAndIsNotSkipped(t *testing.T) {
	Need(t)
}
