package expr

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common"
	"github.com/google/cel-go/common/operators"
)

// Error is why a text is refused: where, and what to change, in one line.
type Error struct {
	Line    int // from 1
	Column  int // from 1, in characters
	Message string
}

func (e *Error) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
}

// firstIssue makes an Error of the first thing that CEL found: what follows is mostly a consequence of it.
func firstIssue(key memoKey, issues *cel.Issues) *Error {
	text := key.text
	all := issues.Errors()
	if len(all) == 0 {
		return &Error{1, 1, oneLine(issues.Err().Error())}
	}
	first := all[0]
	line, column := first.Location.Line(), first.Location.Column()+1
	if strings.TrimSpace(text) == "" {
		return &Error{1, 1, "the expression is empty"}
	}
	return &Error{max(line, 1), max(column, 1), explain(key, first)}
}

// explain says in our words what CEL says in its own.
func explain(key memoKey, e *common.Error) string {
	m := e.Message
	if name, ok := between(m, "undeclared reference to '", "'"); ok {
		return unknownName(nameAt(key.text, e.Location, name), key.response)
	}
	if fn, ok := between(m, "found no matching overload for '", "'"); ok {
		types, _ := between(m, "applied to '", "'")
		if symbol, isOperator := operators.FindReverse(fn); isOperator && symbol != "" {
			return fmt.Sprintf("%s cannot be applied to %s; convert one side with string(...) or int(...)", symbol, types)
		}
		return fmt.Sprintf("%s cannot be applied to %s", fn, types)
	}
	if strings.Contains(m, "comprehension exceeds nesting limit") {
		return "all, exists, filter and map cannot stand three deep inside each other"
	}
	if s, ok := strings.CutPrefix(m, "Syntax error: "); ok {
		s, _, _ = strings.Cut(s, " expecting {") // all the tokens of the grammar
		return "syntax error: " + oneLine(s)
	}
	return oneLine(m)
}

// unknownName says what there is instead of a name that is not there.
func unknownName(name string, response bool) string {
	root, _, _ := strings.Cut(name, ".")
	if root == "response" && !response {
		return "response is not there: the expression is evaluated before there is an answer; use request, source or identity"
	}
	var there []string
	for _, v := range variables {
		if r, _, _ := strings.Cut(v.name, "."); r != root || v.response && !response {
			continue
		}
		if v.name == identityList {
			there = append(there, `identity.list("groups")`)
		} else {
			there = append(there, v.name)
		}
	}
	switch {
	case there != nil:
		return fmt.Sprintf("%s is not there; there are %s", name, strings.Join(there, ", "))
	case response:
		return name + " is not there; there are request, source, identity and response"
	}
	return name + " is not there; there are request, source and identity"
}

// nameAt is the dotted name that stands at a place of the text: CEL names only its first word. The fallback is returned when there is
// none.
func nameAt(text string, at common.Location, fallback string) string {
	lines := strings.Split(text, "\n")
	if at.Line() < 1 || at.Line() > len(lines) {
		return fallback
	}
	line := lines[at.Line()-1]
	for i := 0; i < at.Column() && line != ""; i++ {
		_, n := utf8.DecodeRuneInString(line)
		line = line[n:]
	}
	end := 0
	for end < len(line) && (nameByte(line[end]) || line[end] == '.') {
		end++
	}
	if name := strings.TrimRight(line[:end], "."); strings.HasPrefix(name, fallback) {
		return name
	}
	return fallback
}

func nameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
}

func between(s, before, after string) (string, bool) {
	_, s, ok := strings.Cut(s, before)
	if !ok {
		return "", false
	}
	s, _, ok = strings.Cut(s, after)
	return s, ok
}

// oneLine makes a message of at most 300 bytes out of any.
func oneLine(s string) string {
	s = strings.ToValidUTF8(strings.Join(strings.Fields(s), " "), "?")
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:297], "") + "..."
	}
	return s
}
