package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// patience is how long a file that looks unfinished must stay as it is to be believed. Programs that empty a file
	// before they write it need microseconds, but on a busy machine they may be held up in between for a tenth of a
	// second. A person who deletes something hardly notices that it takes so long.
	patience = 200 * time.Millisecond

	// emptyPatience is how many times longer a file must stay empty: whoever wants nothing served deletes it.
	emptyPatience = 10

	// coalesce is the shortest time between two readings: a folder that is copied is a few changes, not thousands.
	coalesce = 5 * time.Millisecond

	// poll is how often we look while a folder cannot be watched (no rights, or the system's limit is reached).
	poll = time.Second
)

// Watch calls changed with what the files say whenever that differs from what Load or Watch returned last, until ctx
// ends. The first change is read at once; those that come while it is read, or within 5 ms, are read together. A file
// that became shorter, lost an object or went wrong is believed after 200 ms without a further change, since many
// programs write a file by emptying it first.
//
// Watch sees files that are written, replaced by renaming, created and deleted, new folders, and volumes of Kubernetes
// (the link ..data that points elsewhere). It returns an error only if the system refuses to watch at the begin.
func (l *Loader) Watch(ctx context.Context, changed func(Result)) error {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch files: %w", err)
	}
	defer notify.Close()
	w := watcher{Loader: l, notify: notify, folders: map[string]bool{}}
	if err := w.addFolders(); err != nil {
		return err
	}
	l.mu.Lock()
	l.settle = l.patience
	l.mu.Unlock()

	again := time.NewTimer(0) // what changed before we watched
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		case event := <-notify.Events:
			if !w.concerns(event) {
				continue
			}
		case <-notify.Errors: // the queue overflowed, or a folder vanished: look
		}
		w.drain()
		unwatched := w.addFolders()
		if result, differs := l.load(); differs {
			changed(result)
		}
		switch {
		case l.unsure():
			again.Reset(l.patience)
		case unwatched != nil:
			again.Reset(poll)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(coalesce):
		}
	}
}

// unsure says whether Load has seen something that it did not believe yet.
func (l *Loader) unsure() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.doubted
}

// watcher is the part of Watch that knows about folders. Folders are watched rather than files, as a file that is
// replaced is another one.
type watcher struct {
	*Loader
	notify  *fsnotify.Watcher
	folders map[string]bool // below given folders: all YAML files in them concern us
}

// addFolders watches the folders that are there now. Adding one again is free.
func (w *watcher) addFolders() error {
	var failed error
	add := func(folder string) {
		err := w.notify.Add(folder)
		if err != nil && !errors.Is(err, os.ErrNotExist) && failed == nil {
			failed = fmt.Errorf("watch %s: %w", folder, err)
		}
	}
	w.folders = map[string]bool{}
	for _, path := range w.paths {
		add(filepath.Dir(path)) // where the path itself appears and goes
		if resolved, err := filepath.EvalSymlinks(path); err == nil && resolved != path {
			add(filepath.Dir(resolved))
		}
		info, err := os.Stat(path)
		if err != nil || !info.IsDir() {
			continue
		}
		err = walk(path, func(string) {}, func(folder string) {
			w.folders[folder] = true
			add(folder)
		})
		if err != nil && !errors.Is(err, os.ErrNotExist) && failed == nil {
			failed = err
		}
	}
	return failed
}

// concerns says whether an event may change what the files say.
func (w *watcher) concerns(event fsnotify.Event) bool {
	name := filepath.Clean(event.Name)
	for _, path := range w.paths {
		if name == path {
			return true
		}
		if resolved, err := filepath.EvalSymlinks(path); err == nil && name == resolved {
			return true
		}
	}
	if base := filepath.Base(name); strings.HasPrefix(base, "..") {
		return true // a volume of Kubernetes points elsewhere
	}
	if !w.folders[filepath.Dir(name)] {
		return false
	}
	if isYAML(name) || w.folders[name] {
		return true
	}
	info, err := os.Stat(name) // a new folder, or a link
	return err == nil && info.IsDir() && event.Has(fsnotify.Create)
}

// drain takes the events that have come meanwhile; one reading serves them all.
func (w *watcher) drain() {
	for {
		select {
		case <-w.notify.Events:
		case <-w.notify.Errors:
		default:
			return
		}
	}
}
