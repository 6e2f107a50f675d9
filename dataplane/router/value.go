package router

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// condition is a Value, ready.
type condition struct {
	name  string
	value string
	re    *regexp.Regexp // nil: value itself
}

// conditions compiles the first of each name; fold makes equal names the same.
func conditions(values []Value, fold func(string) string) ([]condition, error) {
	var out []condition
	seen := map[string]bool{}
	for _, v := range values {
		if seen[fold(v.Name)] {
			continue
		}
		seen[fold(v.Name)] = true
		c := condition{name: v.Name, value: v.Value}
		if v.Regex {
			re, err := whole(v.Value)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", v.Name, err)
			}
			c.re = re
		}
		out = append(out, c)
	}
	return out, nil
}

// whole compiles an expression so that it matches the whole of a text. It is compiled alone first: "a)|(?:b" must not get out of the
// brackets that are put around it.
func whole(pattern string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(pattern); err != nil {
		return nil, err
	}
	return regexp.Compile(`\A(?:` + pattern + `)\z`)
}

// header reports whether the header, all lines taken together, has the value.
func (c *condition) header(h *message.Header) bool {
	got, ok := h.Joined(c.name)
	switch {
	case !ok:
		return false
	case c.re == nil:
		return got == c.value || sameList(got, c.value)
	case strings.IndexByte(got, ',') < 0:
		return c.re.MatchString(got)
	}
	return c.re.MatchString(spell(got, ",")) || c.re.MatchString(spell(got, ", "))
}

// sameList compares two lists without the white space around their commas.
func sameList(a, b string) bool {
	for {
		x, restA, moreA := strings.Cut(a, ",")
		y, restB, moreB := strings.Cut(b, ",")
		if moreA != moreB || trim(x) != trim(y) {
			return false
		}
		if !moreA {
			return true
		}
		a, b = restA, restB
	}
}

// spell writes a list with that separator.
func spell(list, separator string) string {
	parts := strings.Split(list, ",")
	for i := range parts {
		parts[i] = trim(parts[i])
	}
	return strings.Join(parts, separator)
}

func trim(s string) string { return strings.Trim(s, " \t") }

// query reports whether the first parameter of the name has the value.
func (c *condition) query(query string) bool {
	for more := true; more; {
		var pair string
		pair, query, more = strings.Cut(query, "&")
		name, value, _ := strings.Cut(pair, "=")
		if pair == "" || !decodesTo(name, c.name) {
			continue
		}
		if c.re == nil {
			return decodesTo(value, c.value)
		}
		decoded, ok := decode(value)
		return ok && c.re.MatchString(decoded)
	}
	return false
}

// decodesTo compares the decoded form of s with want, without making it.
func decodesTo(s, want string) bool {
	n := 0
	for i := 0; i < len(s); n++ {
		c, size := decodeByte(s, i)
		if size == 0 || n == len(want) || c != want[n] {
			return false
		}
		i += size
	}
	return n == len(want)
}

// decode is the decoded form of s (application/x-www-form-urlencoded); ok is false when an escape is malformed.
func decode(s string) (decoded string, ok bool) {
	if !strings.ContainsAny(s, "%+") {
		return s, true
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		c, size := decodeByte(s, i)
		if size == 0 {
			return "", false
		}
		out = append(out, c)
		i += size
	}
	return string(out), true
}

// decodeByte is the byte that stands at i and how many bytes it takes there; 0 for a malformed escape.
func decodeByte(s string, i int) (c byte, size int) {
	switch s[i] {
	case '+':
		return ' ', 1
	case '%':
		if i+2 >= len(s) {
			return 0, 0
		}
		hi, lo := hexDigit(s[i+1]), hexDigit(s[i+2])
		if hi < 0 || lo < 0 {
			return 0, 0
		}
		return byte(hi<<4 | lo), 3
	}
	return s[i], 1
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
