package source

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// find returns the node that a field path leads to: of a mapping's entry its key, of a list's item the item. Where the
// path leads beyond what is written, it returns the last node on the way; nil only for a nil root.
func find(root *yaml.Node, path string) *yaml.Node {
	shown, _ := findBoth(root, path)
	return shown
}

// findBoth also returns the value, nil if the path leads beyond what is written.
func findBoth(root *yaml.Node, path string) (shown, value *yaml.Node) {
	if root == nil {
		return nil, nil
	}
	shown, value = root, root
	for depth := 0; path != ""; depth++ {
		nextShown, nextValue, rest := step(value, path, 0)
		if nextValue == nil || depth > 100 {
			return shown, nil
		}
		shown, value, path = nextShown, nextValue, rest
	}
	return shown, value
}

// step goes one step down: it returns the node to show, the node to go on from, and what is left of the path. The
// longest key wins, since keys may have dots in them (`metadata.annotations.example.com/owner`).
func step(node *yaml.Node, path string, depth int) (shown, value *yaml.Node, rest string) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if depth > 20 { // an anchor that contains itself
		return nil, nil, path
	}
	switch node.Kind {
	case yaml.SequenceNode:
		index, rest, ok := cutIndex(path)
		if !ok || index >= len(node.Content) {
			return nil, nil, path
		}
		item := node.Content[index]
		return item, item, rest
	case yaml.MappingNode:
		best := -1
		for i := 0; i+1 < len(node.Content); i += 2 {
			key := node.Content[i].Value
			if r, ok := cutKey(path, key); ok && (best < 0 || len(key) > len(node.Content[best].Value)) {
				best, rest = i, r
			}
		}
		if best >= 0 {
			return node.Content[best], node.Content[best+1], rest
		}
		return stepIntoMerged(node, path, depth)
	}
	return nil, nil, path
}

// stepIntoMerged looks for a key in what a mapping takes over by `<<: *anchor`.
func stepIntoMerged(node *yaml.Node, path string, depth int) (shown, value *yaml.Node, rest string) {
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value != "<<" {
			continue
		}
		merged := []*yaml.Node{node.Content[i+1]}
		if merged[0].Kind == yaml.SequenceNode {
			merged = merged[0].Content
		}
		for _, m := range merged {
			if shown, value, rest := step(m, path, depth+1); value != nil {
				return shown, value, rest
			}
		}
	}
	return nil, nil, path
}

// cutIndex takes `[3]` off the front of a path.
func cutIndex(path string) (index int, rest string, ok bool) {
	inside, ok := strings.CutPrefix(path, "[")
	if !ok {
		return 0, "", false
	}
	digits, rest, ok := strings.Cut(inside, "]")
	if !ok {
		return 0, "", false
	}
	index, err := strconv.Atoi(digits)
	return index, rest, err == nil && index >= 0
}

// cutKey takes a key off the front of a path, written as `.key`, `key` or `[key]`.
func cutKey(path, key string) (rest string, ok bool) {
	if inside, ok := strings.CutPrefix(path, "["); ok {
		rest, ok := strings.CutPrefix(inside, key+"]")
		return rest, ok
	}
	rest, ok = strings.CutPrefix(strings.TrimPrefix(path, "."), key)
	return rest, ok && key != "" && (rest == "" || rest[0] == '.' || rest[0] == '[')
}
