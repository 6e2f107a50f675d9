package scenarios

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane"
)

// A script is paragraphs of lines; "#" begins a comment. A paragraph is a request, or something else that happens.
//
//	GET /cart?x=1            the request line; the target goes out byte by byte
//	Host: shop.example.com   fields; Host is example.com if nothing is said
//	| text                   a line of the body
//	via default/gw:80 h2c    which Gateway and port of its spec, and how: h1 (the usual), h2c, tls or h2, the last two with sni=NAME
//	x500                     so many times, over one connection
//	wire nethttp             only on that wire
//	< 200 from blue          the status, and who answered
//	< location: /x           a field of the answer (several values joined by ", ")
//	< location ~ ^/x         one that matches
//	< no location            one that is not there
//	< body text              a body that has this in it
//	< 70% from blue ±5       of many: a share, with its tolerance in points; also "< 25% 500 ±5"
//	saw x-a: 1               what the backend that was asked last saw: a field, and in the same way "saw no x-a", "saw host H",
//	                         "saw target T", "saw method M", "saw proto P", "saw body B". Backends whose names begin with
//	                         "mirror" are left out: they are asked at any time
//	grey saw …               the same of a backend of that name, as soon as it was asked
//	reached blue 2           how many requests came to a backend; "reached grey 20% ±6" of those sent
//	reached nobody
//
//	raw                      bytes: each "> " line with CRLF, each ">> " line without; \r \n \t \0 \xNN are escapes
//	< 400 close              the status of the only answer, after which the connection is closed; "< 200 408 close": of the answers
//
//	apply NAME.yaml          objects of that file are added, or replace those of the same name
//	delete HTTPRoute default/shop
//	endpoints default/blue: blue-1 blue-2(draining)
//	status HTTPRoute default/shop @default/gw: Accepted=False(NoMatchingParent)
type paragraph struct {
	line  int
	first string
	more  []string
}

// paragraphs splits a script.
func paragraphs(text string) (all []paragraph) {
	var now *paragraph
	for i, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(trimmed, "#"):
		case trimmed == "":
			now = nil
		case now == nil:
			all = append(all, paragraph{line: i + 1, first: trimmed})
			now = &all[len(all)-1]
		default:
			now.more = append(now.more, strings.TrimLeft(line, " \t"))
		}
	}
	return all
}

// request is a paragraph that asks something.
type request struct {
	method, target string
	fields         []field
	body           string
	gateway        string
	port           uint16
	how            string // h1, h2c, tls, h2
	sni            string
	times          int
	wires          string
	expect         []string
	raw            []string // what is sent as it is
}

type field struct{ name, value string }

func (r *request) host() string {
	for _, f := range r.fields {
		if strings.EqualFold(f.name, "Host") {
			return f.value
		}
	}
	return "example.com"
}

// answer is what a client got.
type answer struct {
	status  int
	header  map[string][]string // by lower-case name
	body    string
	trailer map[string][]string
}

func (a answer) get(name string) (string, bool) {
	v, ok := a.header[strings.ToLower(name)]
	return strings.Join(v, ", "), ok
}

func parseRequest(p paragraph) (*request, error) {
	r := &request{gateway: "default/gw", port: 80, how: "h1", times: 1}
	if p.first != "raw" {
		method, target, ok := strings.Cut(p.first, " ")
		if !ok {
			return nil, fmt.Errorf("%q is not a request line", p.first)
		}
		r.method, r.target = method, target
	} else {
		r.raw = []string{}
	}
	for _, line := range p.more {
		if err := r.add(line); err != nil {
			return nil, err
		}
	}
	return r, nil
}

var (
	timesLine = regexp.MustCompile(`^x(\d+)$`)
	fieldLine = regexp.MustCompile("^([!#$%&'*+.^_`|~0-9A-Za-z-]+):(?: (.*))?$")
	sawLine   = regexp.MustCompile(`^(?:[\w-]+ )?saw `)
)

func (r *request) add(line string) error {
	switch {
	case strings.HasPrefix(line, "| "):
		r.body += line[2:] + "\n"
	case strings.HasPrefix(line, "> "):
		text, err := unescape(line[2:])
		r.raw = append(r.raw, text+"\r\n")
		return err
	case line == ">", line == "> ":
		r.raw = append(r.raw, "\r\n")
	case strings.HasPrefix(line, ">> "):
		text, err := unescape(line[3:])
		r.raw = append(r.raw, text)
		return err
	case strings.HasPrefix(line, "< "), strings.HasPrefix(line, "reached "), sawLine.MatchString(line):
		r.expect = append(r.expect, line)
	case strings.HasPrefix(line, "via "):
		return r.via(strings.Fields(line[4:]))
	case strings.HasPrefix(line, "wire "):
		r.wires = line[5:]
	case timesLine.MatchString(line):
		r.times, _ = strconv.Atoi(line[1:])
	case fieldLine.MatchString(line):
		m := fieldLine.FindStringSubmatch(line)
		r.fields = append(r.fields, field{m[1], m[2]})
	default:
		return fmt.Errorf("%q says nothing that is known", line)
	}
	return nil
}

func (r *request) via(words []string) error {
	for _, w := range words {
		gateway, port, isGateway := strings.Cut(w, ":")
		switch {
		case isGateway:
			n, err := strconv.ParseUint(port, 10, 16)
			if err != nil {
				return err
			}
			r.gateway, r.port = gateway, uint16(n)
		case strings.HasPrefix(w, "sni="):
			r.sni = w[4:]
		case w == "h1", w == "h2c", w == "tls", w == "h2":
			r.how = w
		default:
			return fmt.Errorf("via %q is not known", w)
		}
	}
	return nil
}

// unescape reads the escapes of Go's strings.
func unescape(text string) (string, error) {
	text = strings.ReplaceAll(strings.ReplaceAll(text, `"`, `\x22`), `\0`, `\x00`)
	return strconv.Unquote(`"` + text + `"`)
}

// settingsOf reads lines such as "HeadTimeout 200ms": fields of dataplane.Settings.
func settingsOf(t testing.TB, text string) dataplane.Settings {
	t.Helper()
	s := dataplane.Defaults()
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		if line == "" {
			continue
		}
		name, value, _ := strings.Cut(line, " ")
		f := reflect.ValueOf(&s).Elem()
		for _, part := range strings.Split(name, ".") {
			f = f.FieldByName(part)
		}
		if err := setField(f, value); err != nil {
			t.Fatalf("setting %q: %v", line, err)
		}
	}
	return s
}

func setField(f reflect.Value, text string) error {
	if !f.IsValid() {
		return fmt.Errorf("there is none of that name")
	}
	switch f.Interface().(type) {
	case time.Duration:
		d, err := time.ParseDuration(text)
		f.SetInt(int64(d))
		return err
	case int, int64:
		n, err := strconv.ParseInt(text, 10, 64)
		f.SetInt(n)
		return err
	case bool:
		f.SetBool(text == "true")
		return nil
	case string:
		f.SetString(text)
		return nil
	}
	return setNetworks(f, text)
}
