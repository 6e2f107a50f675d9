// Package rewrite changes host and path on the way to a backend: the URLRewrite of the Gateway API, on a rule or on a backendRef.
package rewrite

import (
	"fmt"
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Path says what becomes of the path; the zero value keeps it.
type Path = filter.PathChange

const (
	FullPath    = filter.FullPath
	PrefixMatch = filter.PrefixMatch
)

// Config is what is changed.
type Config struct {
	// OnBackend says that the filter stands on a backendRef: it then acts on each attempt, and never on the exchange.
	OnBackend bool
	Hostname  string // "" stays
	Path      Path
}

// FilterName is "rewrite".
func (Config) FilterName() string { return "rewrite" }

// String is such as "rewrite(host=example.org prefix=/new)".
func (c Config) String() string {
	var words []string
	if c.OnBackend {
		words = append(words, "backend:")
	}
	if c.Hostname != "" {
		words = append(words, "host="+c.Hostname)
	}
	if c.Path.Kind != filter.KeepPath {
		words = append(words, c.Path.String())
	}
	return "rewrite(" + strings.Join(words, " ") + ")"
}

// Check says what is wrong, in words for whoever wrote it.
func (c Config) Check() error {
	if c.Hostname != "" {
		if _, ok := message.ParseHost(c.Hostname); !ok {
			return fmt.Errorf("%q is no host name", c.Hostname)
		}
	}
	return c.Path.Check()
}

// Build makes the filter. The error is Check's.
func (c Config) Build(filter.Env) (filter.Faces, error) {
	if err := c.Check(); err != nil {
		return filter.Faces{}, err
	}
	host, _ := message.ParseHost(c.Hostname)
	change := func(r *message.Request, matched string) filter.Verdict {
		target, ok := c.Path.Apply(r.Target, matched)
		if !ok {
			return filter.Fail(message.ReasonFilterFailed, lost)
		}
		r.Target = target
		if c.Hostname != "" {
			r.Host = host
		}
		return filter.Continue
	}
	if c.OnBackend {
		return filter.Faces{Attempt: func(at *message.Attempt) filter.Verdict {
			return change(&at.Request, at.Exchange.MatchedPrefix)
		}}, nil
	}
	return filter.Faces{Request: func(ex *message.Exchange) filter.Verdict {
		return change(&ex.Request, ex.MatchedPrefix)
	}}, nil
}

// lost comes from a rule that replaces the path and a backendRef that replaces the prefix that was in it: what the second is to do is
// nowhere said, and a guess could reach what the path was meant to hide.
const lost = "the path does not begin any more with the prefix that the route matched"
