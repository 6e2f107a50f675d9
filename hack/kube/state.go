package kube

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	stateName = "gatehouse-kube-" // and a random number, in the directory for temporary files
	lockName  = "in-use"

	// A path of a Unix socket fits into 108 bytes, the last of them zero (unix(7)).
	socketPathLimit = 107
	longestSocket   = "/peer.sock"

	// A directory is older than this before it may count as left behind: its owner has locked it by then.
	sweepAge = time.Minute
)

// state is the directory of one control plane, locked for as long as it is in use.
type state struct {
	dir  string
	lock *os.File
}

func newState() (*state, error) {
	sweep(os.TempDir(), time.Now())

	dir, err := os.MkdirTemp("", stateName) // mode 0700: it holds keys
	if err != nil {
		return nil, err
	}
	lock, err := os.Create(filepath.Join(dir, lockName))
	if err == nil && !claim(lock) {
		err = fmt.Errorf("lock %s: somebody else has it", lock.Name())
	}
	if len(dir+longestSocket) > socketPathLimit {
		err = fmt.Errorf("%s is too long a path for a Unix socket: set TMPDIR to a shorter one", dir)
	}
	s := &state{dir, lock}
	if err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

func (s *state) path(name string) string { return filepath.Join(s.dir, name) }

func (s *state) remove() error {
	if s.lock != nil {
		s.lock.Close() // a second time it says so, and that is all
	}
	return os.RemoveAll(s.dir)
}

// sweep removes what was left behind by processes that could not: each is some 64 MiB, which etcd
// lays aside for its log.
func sweep(temporary string, now time.Time) {
	dirs, _ := filepath.Glob(filepath.Join(temporary, stateName+"*"))
	for _, dir := range dirs {
		if info, err := os.Lstat(dir); err != nil || !info.IsDir() || now.Sub(info.ModTime()) < sweepAge {
			continue
		}
		lock, err := os.Open(filepath.Join(dir, lockName))
		if err != nil {
			continue // another user's, or not ours at all
		}
		if claim(lock) {
			os.RemoveAll(dir)
		}
		lock.Close()
	}
}
