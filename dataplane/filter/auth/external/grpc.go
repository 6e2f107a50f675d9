package external

import (
	"context"
	"crypto/x509"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// envoy asks by envoy.service.auth.v3.Authorization/Check.
type envoy struct {
	config *Config
	client auth.AuthorizationClient
}

func overGRPC(config *Config, conn grpc.ClientConnInterface) *envoy {
	return &envoy{config, auth.NewAuthorizationClient(conn)}
}

// tells: all of them when none is named.
func (s *envoy) tells(name string) bool {
	allowed := s.config.AllowedRequestHeaders
	return len(allowed) == 0 || slices.ContainsFunc(allowed, func(n string) bool { return message.EqualName(n, name) })
}

func (s *envoy) ask(ctx context.Context, t *told) (*allowed, *method.Result) {
	res, err := s.client.Check(ctx, &auth.CheckRequest{Attributes: attributes(t)})
	if err != nil {
		return nil, unavailable(err)
	}
	return s.judge(res)
}

// judge reads the answer as Envoy does, but for what contradicts itself or says nothing: Envoy takes an empty answer for a yes.
func (s *envoy) judge(res *auth.CheckResponse) (*allowed, *method.Result) {
	code := codes.Code(res.GetStatus().GetCode())
	switch r := res.HttpResponse.(type) {
	case *auth.CheckResponse_ErrorResponse:
		return nil, nonsense("an error of its own")
	case *auth.CheckResponse_DeniedResponse:
		return nil, deny(r.DeniedResponse, code)
	case *auth.CheckResponse_OkResponse:
		if code == codes.OK {
			return s.allow(res)
		}
	default:
		if res.Status != nil && code == codes.OK {
			return s.allow(res)
		}
		if res.Status == nil {
			return nil, nonsense("neither a status nor a response")
		}
	}
	return nil, deny(nil, code)
}

func deny(d *auth.DeniedHttpResponse, code codes.Code) *method.Result {
	detail := "the service denied with " + code.String()
	status := int(d.GetStatus().GetCode())
	if status < 200 || status > 599 {
		status = 403
	}
	if d == nil || status == 403 && d.Body == "" && len(d.Headers) == 0 {
		return refusal(message.Failure(message.ReasonDenied, detail), detail)
	}
	changes, ok := changesOf(d.Headers, passes)
	if !ok || len(changes) > maxChanges {
		return nonsense("fields that cannot be sent")
	}
	fields := make([]message.Field, len(changes)) // nothing is there before: two of a name (Set-Cookie) are two
	for i, c := range changes {
		fields[i] = message.Field{Name: c.name, Value: c.value}
	}
	return refusal(denial(status, fields, []byte(d.Body)), detail)
}

// allow reads what an answer that allows changes.
func (s *envoy) allow(res *auth.CheckResponse) (*allowed, *method.Result) {
	out, ok := &allowed{}, res.GetOkResponse()
	var sound [2]bool
	mayChange := func(name string) bool { return !protected(name) }
	for _, name := range ok.GetHeadersToRemove() {
		if mayChange(name) {
			out.request = append(out.request, change{remove, name, ""})
		}
	}
	var changes []change
	changes, sound[0] = changesOf(ok.GetHeaders(), mayChange)
	out.request = append(out.request, changes...)
	out.response, sound[1] = changesOf(ok.GetResponseHeadersToAdd(), passes)
	for _, name := range ok.GetQueryParametersToRemove() {
		out.query = append(out.query, change{remove, name, ""})
	}
	for _, p := range ok.GetQueryParametersToSet() {
		out.query = append(out.query, change{set, p.GetKey(), p.GetValue()})
	}
	out.identity = s.identity(res, changes)
	if !sound[0] || !sound[1] || !out.weigh() {
		return nil, nonsense("fields that cannot be sent")
	}
	return out, nil
}

// changesOf reads fields. One that may not be changed is left out, as Envoy does; one that cannot stand in a message spoils the answer.
func changesOf(options []*core.HeaderValueOption, may func(name string) bool) (out []change, ok bool) {
	for _, o := range options {
		name, value := o.GetHeader().GetKey(), o.GetHeader().GetValue()
		if raw := o.GetHeader().GetRawValue(); value == "" && len(raw) > 0 {
			value = string(raw)
		}
		value = strings.Trim(value, " \t")
		if !may(name) {
			continue
		}
		if !message.ValidName(name) || !message.ValidValue(value) {
			return nil, false
		}
		out = append(out, change{actionOf(o), name, value})
	}
	return out, true
}

// actionOf: in these messages a field replaces what is there unless it says that it is to be appended (external_auth.proto), which
// append_action, whose zero means append elsewhere, cannot say.
func actionOf(o *core.HeaderValueOption) action {
	//lint:ignore SA1019 deprecated, and what services set
	said := o.GetAppend()
	switch {
	case said.GetValue():
		return add
	case said != nil:
		return set
	case o.GetAppendAction() == core.HeaderValueOption_ADD_IF_ABSENT:
		return addIfAbsent
	case o.GetAppendAction() == core.HeaderValueOption_OVERWRITE_IF_EXISTS:
		return setIfPresent
	}
	return set
}

// nobody is the subject of an answer that says something about who asks, and not who it is.
const nobody = "external"

// identity is whom the answer names: dynamic metadata is the claims.
func (s *envoy) identity(res *auth.CheckResponse, changes []change) *message.Identity {
	metadata := res.GetDynamicMetadata()
	//lint:ignore SA1019 Envoy lets it win, until it is removed
	if old := res.GetOkResponse().GetDynamicMetadata(); old != nil {
		metadata = old
	}
	claims := metadata.AsMap()
	subject := ""
	for _, name := range []string{s.config.Subject, "subject", "sub"} {
		if text, ok := claims[name].(string); ok && subject == "" && (s.config.Subject == "" || name == s.config.Subject) {
			subject = text
		}
	}
	for _, c := range changes {
		if s.config.Subject != "" && message.EqualName(c.name, s.config.Subject) {
			subject = c.value
		}
	}
	switch {
	case subject == "" && len(claims) == 0:
		return nil
	case subject == "":
		subject = nobody
	}
	return &message.Identity{Subject: subject, Claims: claims}
}

// attributes is the request as Envoy's services know it.
func attributes(t *told) *auth.AttributeContext {
	ex, q := t.ex, &t.ex.Request
	r := &auth.AttributeContext_HttpRequest{
		Id: ex.ID, Method: q.Method, Path: q.Target.String(), Host: t.host.Raw, Scheme: q.Scheme, Protocol: protocol(q.Version),
		Size: q.Body.Len(), Headers: make(map[string]string, len(t.fields)),
	}
	for _, f := range t.fields {
		name, value := strings.ToLower(f.Name), strings.ToValidUTF8(f.Value, "!")
		if before, ok := r.Headers[name]; ok {
			value = before + separator(name) + value
		}
		r.Headers[name] = value
	}
	if utf8.Valid(t.body) {
		r.Body = string(t.body)
	} else {
		r.RawBody = t.body
	}
	out := &auth.AttributeContext{
		Request: &auth.AttributeContext_Request{Http: r},
		Source:  &auth.AttributeContext_Peer{},
	}
	if !ex.Received.IsZero() {
		out.Request.Time = timestamppb.New(ex.Received)
	}
	c := ex.Conn
	port := uint16(0)
	if c != nil {
		out.Destination = &auth.AttributeContext_Peer{Address: address(c.Local)}
		if c.Remote.Addr().Unmap() == ex.ClientIP {
			port = c.Remote.Port()
		}
	}
	if ex.ClientIP.IsValid() {
		out.Source.Address = address(netip.AddrPortFrom(ex.ClientIP, port))
	}
	if c != nil && c.TLS != nil {
		out.Source.Principal = principalOf(c.TLS)
		out.TlsSession = &auth.AttributeContext_TLSSession{Sni: c.TLS.ServerName}
	}
	return out
}

func separator(name string) string {
	if name == "cookie" {
		return "; "
	}
	return ","
}

// protocol is Envoy's word for a version.
func protocol(v message.Version) string {
	if v == message.HTTP2 {
		return "HTTP/2"
	}
	return v.String()
}

func address(a netip.AddrPort) *core.Address {
	return &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
		Address: a.Addr().Unmap().String(), PortSpecifier: &core.SocketAddress_PortValue{PortValue: uint32(a.Port())},
	}}}
}

// principalOf is the name in the client's certificate: URI, DNS name, or subject, in this order (attribute_context.proto).
func principalOf(s *message.TLSState) string {
	if len(s.Certificates) == 0 {
		return ""
	}
	return principal(s.Certificates[0])
}

func principal(c *x509.Certificate) string {
	switch {
	case len(c.URIs) > 0:
		return c.URIs[0].String()
	case len(c.DNSNames) > 0:
		return c.DNSNames[0]
	}
	return c.Subject.String()
}
