package translate

import (
	"cmp"
	"strings"
)

// hostnamesIntersect reports whether there is a name that both match. "" matches every name, "*.example.com" every name with one or
// more labels in front of example.com, anything else itself. Both are in lower case.
func hostnamesIntersect(a, b string) bool {
	if a == "" || b == "" || a == b {
		return true
	}
	aSuffix, aWild := strings.CutPrefix(a, "*")
	bSuffix, bWild := strings.CutPrefix(b, "*")
	switch {
	case aWild && bWild:
		return strings.HasSuffix(aSuffix, bSuffix) || strings.HasSuffix(bSuffix, aSuffix)
	case aWild:
		return len(b) > len(aSuffix) && strings.HasSuffix(b, aSuffix)
	case bWild:
		return len(a) > len(bSuffix) && strings.HasSuffix(a, bSuffix)
	}
	return false
}

// compareHostnames orders from the most specific on: exact names before wildcards, more labels before fewer, "" last.
func compareHostnames(a, b string) int {
	return cmp.Or(
		cmp.Compare(hostnameRank(a), hostnameRank(b)),
		-cmp.Compare(strings.Count(a, "."), strings.Count(b, ".")),
		cmp.Compare(a, b),
	)
}

func hostnameRank(name string) int {
	switch {
	case name == "":
		return 2
	case strings.HasPrefix(name, "*"):
		return 1
	}
	return 0
}
