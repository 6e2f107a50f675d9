package source

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// wanted are the message that a file in testdata is refused with (its first line) and the line marked with "# here", 0
// for any.
func wanted(t *testing.T, file string) (message string, line int) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	message, ok := strings.CutPrefix(lines[0], "# want: ")
	if !ok {
		t.Fatalf("%s: the first line does not say what is wanted", file)
	}
	for i, l := range lines {
		if strings.HasSuffix(l, "# here") {
			line = i + 1
		}
	}
	return message, line
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no files at %s: %v", pattern, err)
	}
	return files
}

func TestAnInvalidObjectIsRefusedWithItsMessageAndLine(t *testing.T) {
	files := append(glob(t, "testdata/invalid/*.yaml"), glob(t, "testdata/unread/*.yaml")...)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			message, line := wanted(t, file)
			result := NewLoader([]string{file}).Load()
			if !result.Failed() {
				t.Fatalf("not refused: %v", result.Problems)
			}
			if len(result.Objects) > 0 {
				t.Errorf("objects in spite of it: %v", result.Objects)
			}
			var said []string
			for _, p := range result.Problems {
				said = append(said, p.String())
				if strings.Contains(p.String(), message) && (line == 0 || p.Line == line) {
					return
				}
			}
			t.Errorf("want line %d to say %q; said:\n%s", line, message, strings.Join(said, "\n"))
		})
	}
}

func TestValidFilesHaveNoProblems(t *testing.T) {
	result := NewLoader([]string{"testdata/valid"}).Load()
	for _, p := range result.Problems {
		t.Error(p)
	}
	kindsSeen := map[string]bool{}
	for _, obj := range result.Objects {
		kindsSeen[identityOf(obj).kind] = true
	}
	for _, k := range kinds {
		if !kindsSeen[k.name] {
			t.Errorf("no valid sample of kind %s", k.name)
		}
	}
}
