package source

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// root is one of the paths that were given: a file or a folder.
type root struct {
	path    string
	files   []string  // sorted; the file itself, or what lies in the folder
	err     error     // it cannot be listed
	failing time.Time // since when
	stamp   uint64    // of the folder around it, while it fails
}

// list finds the files of a path.
func list(path string) root {
	r := root{path: path}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		r.err = err
		return r
	case !info.IsDir():
		r.files = []string{path}
		return r
	}
	r.err = walk(path, func(file string) { r.files = append(r.files, file) }, func(string) {})
	slices.Sort(r.files)
	return r
}

// walk visits the YAML files and the folders below a folder, itself included. What vanishes meanwhile is passed over.
func walk(folder string, file, dir func(string)) error {
	top := folder
	if resolved, err := filepath.EvalSymlinks(folder); err == nil && resolved != folder {
		top = folder + string(filepath.Separator) // WalkDir does not follow a link without it
	}
	return filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		below := path != top
		switch {
		case err != nil && below && errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case below && strings.HasPrefix(entry.Name(), "."):
			if entry.IsDir() {
				return fs.SkipDir
			}
		case entry.IsDir():
			dir(filepath.Clean(path))
		case isYAML(path):
			if info, err := os.Stat(path); err == nil && !info.IsDir() { // a link to a file is a file
				file(filepath.Clean(path))
			}
		}
		return nil
	})
}

func isYAML(path string) bool {
	ext := strings.ToLower(filepath.Ext(path))
	return ext == ".yaml" || ext == ".yml"
}
