package outbound

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Conn returns a gRPC connection whose calls go through call, for generated clients: unary calls and streams of protobuf messages,
// uncompressed. Of call options it knows those that ask for the answer's metadata or bound its size; others are an error, never ignored.
// o.Timeout bounds unary calls; a stream lives as long as its context. Errors carry a gRPC status and, when there was no answer of the
// service, a *message.Error.
func Conn(call filter.Caller, o Options) grpc.ClientConnInterface {
	return &conn{call: call, options: o.filled()}
}

type conn struct {
	call    filter.Caller
	options Options
}

// Invoke makes a unary call.
func (c *conn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	set, err := c.settings(opts)
	if err != nil {
		return err
	}
	content, err := frame(args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	ex, err := request(ctx, method)
	if err != nil {
		return failed(err)
	}
	ex.Request.Body = message.BodyOf(content)
	if err := c.call.Do(ctx, ex); err != nil {
		return failed(late(ctx, err))
	}
	defer ex.Response.Drop(nil)
	a := answer{res: ex.Response, max: set.max}
	if err := a.head(); err != nil {
		return err
	}
	set.give(&a)
	if err = a.message(reply); err == nil {
		if err = a.message(nil); err == nil {
			err = status.Error(codes.Internal, "more than one message in answer to a unary call")
		}
	} else if err == io.EOF {
		err = errNoMessage
	}
	set.give(&a)
	if err == io.EOF {
		return nil
	}
	return err
}

var errNoMessage = status.Error(codes.Internal, "no message in the answer to a unary call")

// settings are what call options say.
type settings struct {
	max             int
	header, trailer []*metadata.MD
}

func (c *conn) settings(opts []grpc.CallOption) (settings, error) {
	s := settings{max: int(c.options.MaxBytes)}
	for _, o := range opts {
		switch o := o.(type) {
		case grpc.StaticMethodCallOption, grpc.EmptyCallOption:
		case grpc.HeaderCallOption:
			s.header = append(s.header, o.HeaderAddr)
		case grpc.TrailerCallOption:
			s.trailer = append(s.trailer, o.TrailerAddr)
		case grpc.MaxRecvMsgSizeCallOption:
			s.max = min(s.max, o.MaxRecvMsgSize)
		default:
			return s, status.Errorf(codes.Unimplemented, "call option %T is not known here", o)
		}
	}
	return s, nil
}

func (s settings) give(a *answer) {
	for _, md := range s.header {
		*md = metadataOf(&a.res.Header)
	}
	for _, md := range s.trailer {
		*md = metadataOf(a.trailer())
	}
}

// request is the exchange of a call, without a body (gRPC over HTTP/2, "Requests").
func request(ctx context.Context, method string) (*message.Exchange, error) {
	ex, err := exchange(ctx)
	if err != nil {
		return nil, err
	}
	q := &ex.Request
	q.Method, q.Version, q.TETrailers = "POST", message.HTTP2, true
	q.Target = message.Target{Raw: method, Path: method}
	q.Header.Add("Content-Type", "application/grpc")
	q.Header.Add("User-Agent", "gatehouse")
	if deadline, ok := ctx.Deadline(); ok {
		q.Header.Add("Grpc-Timeout", timeout(time.Until(deadline)))
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	for name, values := range md {
		if strings.HasPrefix(name, "grpc-") || strings.HasPrefix(name, ":") || message.Framing(name) || message.EqualName(name, "content-type") {
			continue
		}
		for _, v := range values {
			if strings.HasSuffix(name, "-bin") {
				v = base64.RawStdEncoding.EncodeToString([]byte(v))
			}
			q.Header.Add(name, v)
		}
	}
	return ex, nil
}

// timeout is a duration as gRPC writes it: at most eight digits, rounded down.
func timeout(d time.Duration) string {
	d = max(d, 0)
	for _, u := range []struct {
		unit time.Duration
		sign string
	}{{time.Nanosecond, "n"}, {time.Microsecond, "u"}, {time.Millisecond, "m"}, {time.Second, "S"}} {
		if n := d / u.unit; n < 1e8 {
			return strconv.FormatInt(int64(n), 10) + u.sign
		}
	}
	return strconv.FormatInt(int64(min(d/time.Hour, 1e8-1)), 10) + "H"
}

// frame is a message with its prefix.
func frame(m any) ([]byte, error) {
	p, ok := m.(proto.Message)
	if !ok {
		return nil, status.Errorf(codes.Internal, "%T is no protobuf message", m)
	}
	out, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 5, 5+proto.Size(p)), p)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	n := len(out) - 5
	out[1], out[2], out[3], out[4] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	return out, nil
}

// answer reads the messages of an answer.
type answer struct {
	res *message.Response
	max int
	buf []byte // read and not yet taken
	eof bool
}

// head judges the answer's head: an answer that is not gRPC's, of a proxy say, is translated (gRPC, "HTTP to gRPC Status Code Mapping").
func (a *answer) head() error {
	ct := a.res.Header.Get("Content-Type")
	if a.res.Status == 200 && strings.HasPrefix(ct, "application/grpc") {
		return nil
	}
	code, known := map[int]codes.Code{
		400: codes.Internal, 401: codes.Unauthenticated, 403: codes.PermissionDenied, 404: codes.Unimplemented,
		429: codes.Unavailable, 502: codes.Unavailable, 503: codes.Unavailable, 504: codes.Unavailable,
	}[a.res.Status]
	if !known {
		code = codes.Unknown
	}
	return failedWith(code, &message.Error{
		Reason: message.ReasonUpstreamProtocol, Err: fmt.Errorf("no answer of gRPC: status %d, content type %q", a.res.Status, ct),
	})
}

// message reads the next one; io.EOF after the last of a call that went well, the service's status else. Into nil it only looks.
func (a *answer) message(into any) error {
	prefix, err := a.read(5)
	if err != nil {
		return err
	}
	if prefix[0] != 0 {
		return status.Error(codes.Internal, "a compressed message that was not asked for")
	}
	n := int(prefix[1])<<24 | int(prefix[2])<<16 | int(prefix[3])<<8 | int(prefix[4])
	if n > a.max {
		return failedWith(codes.ResourceExhausted, tooLarge())
	}
	content, err := a.read(5 + n)
	if err == io.EOF {
		err = errCut
	}
	if err != nil || into == nil {
		return err
	}
	p, ok := into.(proto.Message)
	if !ok {
		return status.Errorf(codes.Internal, "%T is no protobuf message", into)
	}
	if err := proto.Unmarshal(content[5:], p); err != nil {
		return failedWith(codes.Internal, &message.Error{Reason: message.ReasonUpstreamProtocol, Err: err})
	}
	a.buf = a.buf[5+n:]
	return nil
}

var errCut = failedWith(codes.Internal, &message.Error{Reason: message.ReasonResponseTruncated, Err: io.ErrUnexpectedEOF})

// read returns the next n bytes and leaves them there. At the end it returns what the status says.
func (a *answer) read(n int) ([]byte, error) {
	for len(a.buf) < n {
		if a.eof || a.res.Body == nil {
			return nil, a.status()
		}
		p, err := a.res.Body.Next()
		switch {
		case err == io.EOF:
			a.eof = true
		case err != nil:
			return nil, failed(err)
		}
		a.buf = append(a.buf, p...)
	}
	return a.buf[:n], nil
}

// trailer is where the status stands: behind the body, or in the head of an answer without one.
func (a *answer) trailer() *message.Header {
	if t := a.res.Body.Trailer(); t != nil {
		return t
	}
	if a.res.Body == nil || a.eof && a.res.Header.Has("Grpc-Status") {
		return &a.res.Header
	}
	return new(message.Header)
}

// status is io.EOF when the call went well to its end.
func (a *answer) status() error {
	t := a.trailer()
	text, ok := t.Only("Grpc-Status")
	if !ok {
		return errCut
	}
	code, err := strconv.ParseUint(text, 10, 32)
	switch {
	case err != nil:
		return failedWith(codes.Unknown, &message.Error{Reason: message.ReasonUpstreamProtocol, Err: errors.New("a grpc-status that is no number")})
	case code != 0:
		return status.Error(codes.Code(code), percentDecoded(t.Get("Grpc-Message")))
	case len(a.buf) > 0:
		return errCut
	}
	return io.EOF
}

// callError is an error of gRPC that knows what lies behind it.
type callError struct {
	status *status.Status
	cause  error
}

func (e *callError) Error() string              { return e.status.String() }
func (e *callError) GRPCStatus() *status.Status { return e.status }
func (e *callError) Unwrap() error              { return e.cause }

// late makes a reset at the end of a call's time the timeout that it is: the service knows the time, too (grpc-timeout), and may be the
// first to give up.
func late(ctx context.Context, err error) error {
	var known *message.Error
	end, ok := ctx.Deadline()
	if ok && time.Until(end) < 10*time.Millisecond && errors.As(err, &known) && known.Reason == message.ReasonUpstreamReset {
		return &message.Error{Reason: message.ReasonAttemptTimeout, Err: err}
	}
	return err
}

// failed is the error of a call that got no answer, with the status that its reason means.
func failed(err error) error {
	code := codes.Unavailable
	var known *message.Error
	if errors.As(err, &known) {
		code = codes.Code(known.Reason.GRPC())
	}
	return failedWith(code, err)
}

func failedWith(code codes.Code, cause error) error {
	return &callError{status.New(code, cause.Error()), cause}
}

func percentDecoded(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(v))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// metadataOf is a head as gRPC's libraries see it.
func metadataOf(h *message.Header) metadata.MD {
	md := make(metadata.MD, h.Len())
	for name, value := range h.All() {
		name = strings.ToLower(name)
		if strings.HasSuffix(name, "-bin") {
			if v, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "=")); err == nil {
				value = string(v)
			}
		}
		md[name] = append(md[name], value)
	}
	return md
}
