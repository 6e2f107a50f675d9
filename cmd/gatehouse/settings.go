package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"unicode"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-dev/gatehouse/dataplane"
)

// settingsFlags adds a flag for each setting of the data plane. Each flag is a key of the --config file too, in camelCase
// (--head-timeout is headTimeout); a flag that is given wins over the file.
func settingsFlags(f *pflag.FlagSet, s *dataplane.Settings) {
	f.DurationVar(&s.TLSHandshake, "tls-handshake-timeout", s.TLSHandshake, "from accept to the end of the TLS handshake")
	f.DurationVar(&s.HeadTimeout, "head-timeout", s.HeadTimeout, "for a request head to come in (408)")
	f.DurationVar(&s.IdleTimeout, "idle-timeout", s.IdleTimeout, "between two requests on a client's connection")
	f.DurationVar(&s.BodyTimeout, "body-timeout", s.BodyTimeout, "between two pieces of a request body (408)")
	f.DurationVar(&s.RequestTimeout, "request-timeout", s.RequestTimeout, "from the head to the head of the answer, all attempts together (504); 0: none; a route's timeouts.request replaces it")
	f.DurationVar(&s.ConnectTimeout, "connect-timeout", s.ConnectTimeout, "for a connection to an endpoint")
	f.DurationVar(&s.AttemptTimeout, "attempt-timeout", s.AttemptTimeout, "for the head of an endpoint's answer (504); 0: none; a route's timeouts.backendRequest replaces it")
	f.DurationVar(&s.StreamIdle, "stream-idle-timeout", s.StreamIdle, "between two pieces of an answer or tunnel")
	f.DurationVar(&s.WriteTimeout, "write-timeout", s.WriteTimeout, "for a client that does not read")
	f.DurationVar(&s.UpstreamIdle, "upstream-idle-timeout", s.UpstreamIdle, "an idle connection to an endpoint is closed after it")
	f.DurationVar(&s.StreamGrace, "stream-grace", s.StreamGrace, "how long a stream lives whose rule is gone")
	f.DurationVar(&s.DrainDelay, "drain-delay", s.DrainDelay, "after SIGTERM, while others notice that this replica is not ready")
	f.DurationVar(&s.DrainTimeout, "drain-timeout", s.DrainTimeout, "for what is under way at the end")

	f.IntVar(&s.MaxHeadBytes, "max-head-bytes", s.MaxHeadBytes, "of request line and fields (431)")
	f.IntVar(&s.MaxFields, "max-fields", s.MaxFields, "field lines of a head (431)")
	f.IntVar(&s.MaxURIBytes, "max-uri-bytes", s.MaxURIBytes, "of a request target (414)")
	f.Int64Var(&s.MaxBodyBytes, "max-body-bytes", s.MaxBodyBytes, "of a request body (413); 0: no limit")
	f.IntVar(&s.MaxStreams, "max-streams", s.MaxStreams, "HTTP/2 streams at once on a client's connection")
	f.IntVar(&s.MaxConnections, "max-connections", s.MaxConnections, "clients' connections at once; 0: no limit")
	f.IntVar(&s.MaxIdlePerEndpoint, "max-idle-per-endpoint", s.MaxIdlePerEndpoint, "idle connections kept to an endpoint")
	f.IntVar(&s.MaxInformations, "max-informations", s.MaxInformations, "1xx answers passed on per exchange")
	f.IntVar(&s.RetryBodyBytes, "retry-body-bytes", s.RetryBodyBytes, "of a request body held for another attempt or a mirror")
	f.Int64Var(&s.BodyBudget, "body-budget-bytes", s.BodyBudget, "for all held bodies together")
	f.IntVar(&s.ConnectRetries, "connect-retries", s.ConnectRetries, "extra attempts on other endpoints when no byte has been sent")

	f.Var((*prefixes)(&s.TrustedProxies), "trusted-proxies", "addresses and networks whose X-Forwarded-* and Forwarded fields are believed, by commas")
	f.BoolVar(&s.Forwarded, "forwarded", s.Forwarded, "add the Forwarded field (RFC 7239) beside X-Forwarded-*")
	f.BoolVar(&s.Paths.KeepDoubleSlash, "keep-double-slash", s.Paths.KeepDoubleSlash, "do not merge // in paths")
	f.BoolVar(&s.Paths.AllowEncodedSlash, "allow-encoded-slash", s.Paths.AllowEncodedSlash, "let %2F in paths through, undecoded")
	f.StringVar(&s.ServerName, "server-name", s.ServerName, "value of the Server field in answers of our own; empty: none")
	f.StringVar(&s.Zone, "zone", s.Zone, "topology zone of this process")
}

// prefixes is a list of addresses and networks as one flag.
type prefixes []netip.Prefix

func (p *prefixes) Type() string { return "networks" }

func (p *prefixes) String() string {
	words := make([]string, len(*p))
	for i, x := range *p {
		words[i] = x.String()
	}
	return strings.Join(words, ",")
}

func (p *prefixes) Set(text string) error {
	*p = nil
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
		if a, err := netip.ParseAddr(word); err == nil {
			*p = append(*p, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		n, err := netip.ParsePrefix(word)
		if err != nil {
			return fmt.Errorf("%q is neither an address nor a network such as 10.0.0.0/8", word)
		}
		*p = append(*p, n.Masked())
	}
	return nil
}

// readConfig sets the flags that were not given from a YAML file of camelCase keys. What it cannot use is an error with its line.
func readConfig(path string, f *pflag.FlagSet) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if len(doc.Content) == 0 {
		return nil
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: settings are a mapping such as \"headTimeout: 5s\"", path, top.Line)
	}
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		flag := f.Lookup(kebab(key.Value))
		if flag == nil || flag.Name == "config" || flag.Name == "filename" {
			return fmt.Errorf("%s:%d: there is no setting %q; see gatehouse run --help", path, key.Line, key.Value)
		}
		text, err := scalar(value)
		if err != nil {
			return fmt.Errorf("%s:%d: %s: %w", path, value.Line, key.Value, err)
		}
		if flag.Changed {
			continue
		}
		if err := flag.Value.Set(text); err != nil {
			return fmt.Errorf("%s:%d: %s: %w", path, value.Line, key.Value, err)
		}
	}
	return nil
}

func scalar(n *yaml.Node) (string, error) {
	switch n.Kind {
	case yaml.ScalarNode:
		return n.Value, nil
	case yaml.SequenceNode:
		words := make([]string, len(n.Content))
		for i, c := range n.Content {
			if c.Kind != yaml.ScalarNode {
				return "", fmt.Errorf("want a list of values")
			}
			words[i] = c.Value
		}
		return strings.Join(words, ","), nil
	}
	return "", fmt.Errorf("want a value or a list of values")
}

// kebab turns headTimeout into head-timeout; runs of capitals stay together (maxURIBytes, tlsHandshakeTimeout).
func kebab(camel string) string {
	var b strings.Builder
	for i, r := range camel {
		if unicode.IsUpper(r) {
			prev := i > 0 && unicode.IsUpper(rune(camel[i-1]))
			next := i+1 < len(camel) && unicode.IsLower(rune(camel[i+1]))
			if i > 0 && (!prev || next) {
				b.WriteByte('-')
			}
			r = unicode.ToLower(r)
		}
		b.WriteRune(r)
	}
	return b.String()
}
