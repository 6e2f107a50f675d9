package source

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Loader reads files and remembers them: only a file whose content has changed is read anew, and a file in error keeps
// what it said when it was right.
type Loader struct {
	paths    []string
	now      func() time.Time
	patience time.Duration

	mu      sync.Mutex // guards what follows
	roots   []root
	files   map[string]*file
	implied map[string]Object // Namespaces that no file declares
	last    Result
	loaded  bool // Load has been called

	// settle is how long a file that lost something, or has become wrong, must stay as it is before that is believed.
	// Zero: at once. Watch sets it to patience.
	settle  time.Duration
	doubted bool // something is not believed yet
	dirty   bool // the files say something else than at the call before
}

// place is where an object was written.
type place struct {
	file   string
	line   int
	offset int        // what to add to a node's line
	root   *yaml.Node // nil for what is implied
}

// file is what is known about one file.
type file struct {
	serving *version  // what Objects come from
	current *version  // what it says now, and Problems come from; the same unless it is in error
	doubt   uint64    // the state that is not believed yet (content and time of writing), 0: none
	since   time.Time // when that state was first seen
	unsure  time.Time // when the doubt began, about whichever state
	emptied bool      // it has no byte now: most likely somebody is about to write it
}

// version is one content of a file.
type version struct {
	hash     uint64
	size     int
	pieces   map[uint64]*piece // by the hash of their text
	items    []item
	problems []Problem
}

// item is one object of a file.
type item struct {
	object Object
	rank   int64 // its age among all objects that the object carries; see age
	place  place
}

// NewLoader returns a Loader for files and folders; their order is the order of age.
func NewLoader(paths []string) *Loader {
	l := &Loader{now: time.Now, patience: patience, files: map[string]*file{}, implied: map[string]Object{}}
	for _, path := range paths {
		l.paths = append(l.paths, filepath.Clean(path))
	}
	return l
}

// Load reads what has changed since the last call and returns all objects and problems. At the first call the objects
// of a file in error are those that are right; what to make of that is the caller's business.
func (l *Loader) Load() Result {
	result, _ := l.load()
	return result
}

// load also tells whether the files say something else than at the call before.
func (l *Loader) load() (result Result, changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doubted, l.dirty = false, !l.loaded
	problems := l.listRoots()
	order := l.readAll()
	result = l.collect(order, problems)
	changed = l.dirty || !slices.Equal(result.Problems, l.last.Problems)
	l.last, l.loaded = result, true
	return result, changed
}

// listRoots lists the given paths again. One that cannot be listed keeps the files that it had, unread: a folder that is
// being mounted anew, or a file that an editor is about to replace, is no reason to drop all routes.
func (l *Loader) listRoots() (problems []Problem) {
	roots := make([]root, len(l.paths))
	for i, path := range l.paths {
		roots[i] = list(path)
		err := roots[i].err
		if err == nil {
			continue
		}
		roots[i].failing, roots[i].stamp = l.now(), stamp(filepath.Dir(path))
		if l.loaded {
			before := l.roots[i]
			roots[i].files = before.files
			if before.err != nil && before.stamp == roots[i].stamp {
				roots[i].failing = before.failing
			}
		}
		if l.now().Sub(roots[i].failing) < l.settle {
			l.doubted = true
			continue
		}
		problems = append(problems, Problem{File: path, Message: withoutPath(err)})
	}
	l.roots = roots
	return problems
}

// readAll brings all files up to date and returns their names in the order of age.
func (l *Loader) readAll() (order []string) {
	seen := map[string]bool{} // absolute: one file may be given in two ways
	there := map[string]bool{}
	for _, r := range l.roots {
		for _, name := range r.files {
			abs, err := filepath.Abs(name)
			if err != nil || seen[abs] {
				continue
			}
			seen[abs], there[name] = true, true
			order = append(order, name)
			if r.err == nil {
				l.read(name)
			}
		}
	}
	for name := range l.files {
		if !there[name] && !l.forget(name) {
			at, _ := slices.BinarySearch(order, name)
			order = slices.Insert(order, at, name)
		}
	}
	return order
}

// forget drops a file that is gone, once that is believed.
func (l *Loader) forget(name string) bool {
	gone := stamp(filepath.Dir(name)) // of the folder: it changes when the file comes back
	if l.settle > 0 && !l.believed(l.files[name], gone) {
		l.doubted = true
		return false
	}
	delete(l.files, name)
	l.dirty = true
	return true
}

// read brings what is known about a file up to date.
func (l *Loader) read(name string) {
	f := l.files[name]
	if f == nil {
		f = new(file)
		l.files[name] = f
	}
	text, err := os.ReadFile(name)
	if err != nil {
		hash := xxhash.Sum64String(err.Error())
		l.take(f, &version{hash: hash, problems: []Problem{{File: name, Message: withoutPath(err)}}}, hash)
		return
	}
	hash := xxhash.Sum64(text)
	if f.current != nil && f.current.hash == hash {
		f.doubt = 0
		return
	}
	state := hash ^ stamp(name)
	if f.doubt == state && !l.settled(f) {
		l.doubted = true
		return
	}
	var before map[uint64]*piece
	if f.current != nil {
		before = f.current.pieces
	}
	l.take(f, readVersion(name, text, before), state)
}

// stamp tells two states of a file apart that have the same content: two empty ones, most of all, which may stand at the
// begin of two writings. Zero if there is no file.
func stamp(name string) uint64 {
	info, err := os.Stat(name)
	if err != nil {
		return 0
	}
	return uint64(info.ModTime().UnixNano())
}

// take makes a version the current one, and the one that is served if nothing is wrong with it.
func (l *Loader) take(f *file, v *version, state uint64) {
	f.emptied = v.size == 0
	if l.settle > 0 && f.looksUnfinished(v) && !l.believed(f, state) {
		l.doubted = true
		return
	}
	f.doubt, f.current, l.dirty = 0, v, true
	switch {
	case f.serving == nil:
		if l.loaded && failed(v.problems) {
			v.items = nil // a new file in error: there is nothing to go on with
		}
		f.serving = v
	case !failed(v.problems) || failed(f.serving.problems):
		v.keepObjects(f.serving)
		f.serving = v
	}
}

// keepObjects takes over the objects of the version before that are the same in this one.
func (v *version) keepObjects(before *version) {
	old := map[identity]item{}
	for _, item := range slices.Backward(before.items) { // of a name that stands twice, the first is the one in use
		old[identityOf(item.object)] = item
	}
	for i := range v.items {
		item := &v.items[i]
		if was, ok := old[identityOf(item.object)]; ok && was.object.GetGeneration() == item.object.GetGeneration() {
			item.object, item.rank = was.object, was.rank
		}
	}
}

// believed says whether a doubtful state has stood long enough; if it is new, its time begins.
func (l *Loader) believed(f *file, state uint64) bool {
	if state == 0 {
		state = 1
	}
	if f.doubt == 0 {
		f.unsure = l.now()
	}
	if f.doubt != state {
		f.doubt, f.since = state, l.now()
	}
	return l.settled(f)
}

// settled also ends the doubt about a file that never stands still.
func (l *Loader) settled(f *file) bool {
	wait := l.settle
	if f.emptied {
		wait *= emptyPatience
	}
	return l.now().Sub(f.since) >= wait || l.now().Sub(f.unsure) >= 20*l.settle
}

// looksUnfinished says whether a new version of a file looks as if it were still being written: it is in error, it is
// shorter, or an object is missing. A change of another kind can be trusted at once.
func (f *file) looksUnfinished(next *version) bool {
	if failed(next.problems) {
		return true
	}
	if f.serving == nil {
		return false
	}
	there := map[identity]bool{}
	for _, item := range next.items {
		there[identityOf(item.object)] = true
	}
	missing := func(item item) bool { return !there[identityOf(item.object)] }
	return next.size < f.serving.size || slices.ContainsFunc(f.serving.items, missing)
}

func failed(problems []Problem) bool { return Result{Problems: problems}.Failed() }

// collect puts the files together: the first object of a name wins, and age is the place in the files.
func (l *Loader) collect(order []string, problems []Problem) Result {
	result := Result{Problems: problems, places: map[identity]place{}}
	ranks := map[string]int{}
	for rank, name := range order {
		ranks[name] = rank
		f := l.files[name]
		if f == nil || f.serving == nil {
			continue
		}
		result.Problems = append(result.Problems, f.current.problems...)
		for i := range f.serving.items {
			item := &f.serving.items[i]
			id := identityOf(item.object)
			if first, twice := result.places[id]; twice {
				result.Problems = append(result.Problems, duplicate(id, first, item.place))
				continue
			}
			setAge(item, int64(rank)<<20+int64(i))
			result.Objects = append(result.Objects, item.object)
			result.places[id] = item.place
		}
	}
	l.imply(&result)
	slices.SortStableFunc(result.Problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(ranks[a.File], ranks[b.File]), cmp.Compare(a.Line, b.Line))
	})
	return result
}

func duplicate(id identity, first, second place) Problem {
	return Problem{
		File: second.file, Line: second.line, Object: id.String(),
		Message: fmt.Sprintf("is already in %s:%d; the first one is used", first.file, first.line),
	}
}

// imply adds the Namespaces that are used and not declared, by name.
func (l *Loader) imply(result *Result) {
	first := map[string]Object{}
	for _, obj := range result.Objects {
		if ns := obj.GetNamespace(); ns != "" && first[ns] == nil {
			first[ns] = obj
		}
	}
	for _, name := range sortedKeys(first) {
		id := identity{"Namespace", "", name}
		if _, declared := result.places[id]; declared {
			continue
		}
		user := first[name]
		ns := l.implied[name]
		if ns == nil || !ns.GetCreationTimestamp().Time.Equal(user.GetCreationTimestamp().Time) {
			ns = impliedNamespace(name, user.GetCreationTimestamp())
			l.implied[name] = ns
		}
		result.Objects = append(result.Objects, ns)
		p := result.places[identityOf(user)]
		result.places[id] = place{file: p.file, line: p.line}
	}
}

func impliedNamespace(name string, age metav1.Time) Object {
	ns := &corev1.Namespace{}
	ns.APIVersion, ns.Kind, ns.Name = "v1", "Namespace", name
	defaultNamespace(ns)
	identify(ns, map[string]any{"metadata": map[string]any{"name": name}})
	ns.CreationTimestamp = age
	return ns
}
