package translate

import (
	"slices"
	"strings"
	"testing"
)

func TestHostnamesIntersectWhereANameMatchesBoth(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"", "", true},
		{"", "*.example.com", true},
		{"a.example.com", "a.example.com", true},
		{"a.example.com", "b.example.com", false},
		{"*.example.com", "a.example.com", true},
		{"*.example.com", "a.b.example.com", true},
		{"*.example.com", "example.com", false},
		{"*.example.com", "aexample.com", false},
		{"*.example.com", "*.example.com", true},
		{"*.example.com", "*.a.example.com", true},
		{"*.example.com", "*.com", true},
		{"*.example.com", "*.example.org", false},
		{"*.example.com", "*.aexample.com", false},
	} {
		if got := hostnamesIntersect(c.a, c.b); got != c.want {
			t.Errorf("%q and %q: %v", c.a, c.b, got)
		}
		if got := hostnamesIntersect(c.b, c.a); got != c.want {
			t.Errorf("%q and %q: %v", c.b, c.a, got)
		}
	}
}

func TestHostnamesAreOrderedFromTheMostSpecificOn(t *testing.T) {
	want := []string{"a.b.example.com", "a.example.com", "b.example.com", "*.b.example.com", "*.example.com", "*.com", ""}
	got := slices.Clone(want)
	slices.Sort(got)
	slices.SortFunc(got, compareHostnames)
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// matchesSlowly compares label by label.
func matchesSlowly(pattern, name string) bool {
	if pattern == "" {
		return true
	}
	p, n := strings.Split(pattern, "."), strings.Split(name, ".")
	if p[0] != "*" {
		return slices.Equal(p, n)
	}
	return len(n) >= len(p) && slices.Equal(p[1:], n[len(n)-len(p)+1:])
}

// intersectSlowly looks for a name that both match: if there is one, there is one among the patterns themselves with a label for their
// star.
func intersectSlowly(a, b string) bool {
	for _, witness := range []string{a, b, "q"} {
		witness = strings.Replace(witness, "*", "q", 1)
		if witness != "" && matchesSlowly(a, witness) && matchesSlowly(b, witness) {
			return true
		}
	}
	return false
}

func FuzzHostnamesIntersect(f *testing.F) {
	for _, seed := range []string{"", "*.example.com", "a.example.com", "*.b.example.com", "example.com", "*.com", "com"} {
		f.Add(seed, "*.example.com")
		f.Add(seed, "a.b.example.com")
		f.Add(seed, "")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		a, b = hostnameOf(a), hostnameOf(b)
		if got, want := hostnamesIntersect(a, b), intersectSlowly(a, b); got != want {
			t.Errorf("%q and %q: %v, want %v", a, b, got, want)
		}
		if hostnamesIntersect(a, b) != hostnamesIntersect(b, a) {
			t.Errorf("%q and %q: it depends on who asks", a, b)
		}
	})
}

// hostnameOf makes a hostname, as the API lets it be, of anything: few letters, so that names meet.
func hostnameOf(text string) string {
	var labels []string
	for i, part := range strings.Split(text, ".") {
		label := strings.Map(func(r rune) rune {
			if r == '*' {
				return -1
			}
			return 'a' + r%3
		}, part)
		if i == 0 && strings.HasPrefix(part, "*") {
			label = "*"
		}
		if label != "" {
			labels = append(labels, label)
		}
	}
	if len(labels) == 1 && labels[0] == "*" {
		return ""
	}
	return strings.Join(labels, ".")
}
