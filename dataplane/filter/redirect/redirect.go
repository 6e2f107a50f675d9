// Package redirect answers with another address: the RequestRedirect of the Gateway API.
//
// The Location is always a whole URL with scheme and host, so that no path ("//evil.example") can be read as a host (RFC 3986 4.2).
package redirect

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
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

// Config is where to. What is not set is as in the request.
type Config struct {
	Scheme   string // "http", "https"; "" the request's
	Hostname string // "" the request's
	Port     uint16 // 0: the well-known one of Scheme if that is set, else the listener's
	Path     Path
	Status   int // 301, 302, 303, 307, 308; 0: 302
}

// FilterName is "redirect".
func (Config) FilterName() string { return "redirect" }

// String is such as "redirect(301 scheme=https host=example.org port=8443 prefix=/new)".
func (c Config) String() string {
	words := []string{strconv.Itoa(c.status())}
	if c.Scheme != "" {
		words = append(words, "scheme="+c.Scheme)
	}
	if c.Hostname != "" {
		words = append(words, "host="+c.Hostname)
	}
	if c.Port != 0 {
		words = append(words, fmt.Sprintf("port=%d", c.Port))
	}
	if c.Path.Kind != filter.KeepPath {
		words = append(words, c.Path.String())
	}
	return "redirect(" + strings.Join(words, " ") + ")"
}

// Check says what is wrong, in words for whoever wrote it.
func (c Config) Check() error {
	switch {
	case c.Scheme != "" && c.Scheme != "http" && c.Scheme != "https":
		return fmt.Errorf("the scheme %q is neither http nor https", c.Scheme)
	case !slices.Contains([]int{301, 302, 303, 307, 308}, c.status()):
		return fmt.Errorf("the status %d is none of 301, 302, 303, 307 and 308", c.Status)
	}
	if c.Hostname != "" {
		if h, ok := message.ParseHost(c.Hostname); !ok || h.Port != 0 {
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
	return filter.Faces{Request: c.redirect}, nil
}

func (c Config) redirect(ex *message.Exchange) filter.Verdict {
	location, err := c.location(ex)
	if err != nil {
		return filter.Fail(message.ReasonFilterFailed, err.Error())
	}
	ex.Response = message.Respond(message.OriginFilter, c.status(), "", "")
	ex.Response.Header.Set("Location", location)
	return filter.Answer
}

func (c Config) location(ex *message.Exchange) (string, error) {
	target, ok := c.Path.Apply(ex.Request.Target, ex.MatchedPrefix)
	if !ok {
		return "", errors.New("the path does not begin with the prefix that the route matched")
	}
	scheme, host := ex.Request.Scheme, ex.Request.Host.Name
	if c.Scheme != "" {
		scheme = c.Scheme
	}
	if c.Hostname != "" {
		host = c.Hostname
	}
	if strings.Contains(host, ":") && host[0] != '[' {
		host = "[" + host + "]" // an IPv6 address
	}
	if port := c.port(ex); port != 0 && port != wellKnown(scheme) {
		host += ":" + strconv.Itoa(int(port))
	}
	return scheme + "://" + host + target.String(), nil
}

// port is the one that the Gateway API derives (HTTPRequestRedirectFilter.port); 0: the well-known one of the scheme.
func (c Config) port(ex *message.Exchange) uint16 {
	switch {
	case c.Port != 0:
		return c.Port
	case c.Scheme != "":
		return wellKnown(c.Scheme)
	case ex.Request.Scheme == "https" && ex.Conn != nil && ex.Conn.TLS == nil:
		// A trusted proxy in front of us ended TLS. The port of our listener is none that the client knows, and it is one in the clear.
		return 0
	}
	return ex.ListenerPort
}

func (c Config) status() int {
	if c.Status == 0 {
		return 302
	}
	return c.Status
}

func wellKnown(scheme string) uint16 {
	if scheme == "https" {
		return 443
	}
	return 80
}
