package outbound

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Client returns an HTTP client whose requests go through call. Redirects come back as answers. An answer over o.MaxBytes is an error:
// of the request when it says so in its head, else of reading its body (errors.Is message.ErrTooLarge).
func Client(call filter.Caller, o Options) *http.Client {
	return &http.Client{
		Transport:     &transport{call: call, options: o.filled()},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Fetch gets url with client and returns its body, of at most max bytes, and the answer's fields by name. Any status but 200 is an
// error, as is a body over max.
func Fetch(ctx context.Context, client *http.Client, url string, max int64) (body []byte, header func(string) string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, nil, &message.Error{Reason: message.ReasonInternal, Err: err}
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, nil, &message.Error{Reason: message.ReasonUpstreamProtocol, Err: fmt.Errorf("GET %s: status %d", url, res.StatusCode)}
	}
	body, err = io.ReadAll(io.LimitReader(res.Body, max+1))
	if err == nil && int64(len(body)) > max {
		err = tooLarge()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("GET %s: %w", url, err)
	}
	return body, res.Header.Get, nil
}

// transport is an http.RoundTripper over a Caller.
type transport struct {
	call    filter.Caller
	options Options
}

// RoundTrip makes one call.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(req.Context(), t.options.Timeout)
	ex, err := t.exchange(ctx, req)
	if err == nil {
		err = t.call.Do(ctx, ex)
	} else if req.Body != nil {
		req.Body.Close()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	res := ex.Response
	if res.Tunnel != nil || res.Body.Len() > t.options.MaxBytes {
		res.Drop(nil)
		cancel()
		return nil, tooLarge()
	}
	return t.response(req, res, cancel), nil
}

func (t *transport) exchange(ctx context.Context, req *http.Request) (*message.Exchange, error) {
	ex, err := exchange(ctx)
	if err != nil {
		return nil, err
	}
	q := &ex.Request
	q.Method, q.Scheme, q.Version = req.Method, req.URL.Scheme, message.HTTP11
	if q.Method == "" {
		q.Method = http.MethodGet
	}
	raw := req.Host
	if raw == "" {
		raw = req.URL.Host
	}
	host, ok := message.ParseHost(raw)
	if !ok {
		return nil, &message.Error{Reason: message.ReasonBadHost, Err: errors.New(strconv.Quote(raw))}
	}
	q.Host = host
	// The path goes as the library wrote it: what a token's issuer calls its address is not ours to normalise.
	q.Target = message.Target{
		Raw: req.URL.RequestURI(), Path: req.URL.EscapedPath(), Query: req.URL.RawQuery, HasQuery: req.URL.RawQuery != "" || req.URL.ForceQuery,
	}
	if q.Target.Path == "" {
		q.Target.Path = "/"
	}
	for name, values := range req.Header {
		if message.Framing(name) {
			continue
		}
		for _, v := range values {
			q.Header.Add(name, v)
		}
	}
	if !q.Header.Has("User-Agent") {
		q.Header.Add("User-Agent", "gatehouse")
	}
	q.Body, err = requestBody(req)
	return ex, err
}

// requestBody is a request's body. What a library holds in memory anyway is sent as it is, so that it can be sent again elsewhere.
func requestBody(req *http.Request) (*message.Body, error) {
	switch {
	case req.Body == nil || req.Body == http.NoBody:
		return nil, nil
	case req.GetBody != nil && req.ContentLength > 0:
		content, err := io.ReadAll(req.Body)
		req.Body.Close()
		if err != nil {
			return nil, &message.Error{Reason: message.ReasonInternal, Err: err}
		}
		return message.BodyOf(content), nil
	}
	length := req.ContentLength
	if length == 0 {
		length = -1
	}
	return message.NewBody(&source{r: req.Body}, length, nil), nil
}

func (t *transport) response(req *http.Request, res *message.Response, cancel func()) *http.Response {
	out := &http.Response{
		Status: strconv.Itoa(res.Status) + " " + http.StatusText(res.Status), StatusCode: res.Status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header, res.Header.Len()), Body: http.NoBody, ContentLength: res.Body.Len(), Request: req,
	}
	for name, value := range res.Header.All() {
		out.Header.Add(name, value)
	}
	if res.Body == nil {
		out.ContentLength = max(res.Length, 0)
		cancel()
		return out
	}
	out.Body = &reader{body: res.Body, left: t.options.MaxBytes, cancel: cancel}
	return out
}

// source is an io.ReadCloser as a message.Source.
type source struct {
	r   io.ReadCloser
	buf []byte
}

func (s *source) Next() ([]byte, error) {
	if s.buf == nil {
		s.buf = make([]byte, 32<<10)
	}
	for {
		n, err := s.r.Read(s.buf)
		if n > 0 {
			return s.buf[:n], nil // the error comes again
		}
		if err != nil {
			s.r.Close()
			return nil, err
		}
	}
}
func (s *source) More() bool               { return false }
func (s *source) Trailer() *message.Header { return nil }
func (s *source) Abort(error)              { s.r.Close() }

// reader is an answer's body as an io.ReadCloser that keeps its bound.
type reader struct {
	body   *message.Body
	rest   bytes.Reader
	left   int64
	err    error
	cancel func()
}

func (r *reader) Read(p []byte) (int, error) {
	for {
		if r.rest.Len() > 0 {
			return r.rest.Read(p)
		}
		if r.err != nil {
			return 0, r.err
		}
		piece, err := r.body.Next()
		if r.left -= int64(len(piece)); err == nil && r.left < 0 {
			err = tooLarge()
			r.body.Abort(err)
			piece = nil
		}
		if err != nil {
			r.err = err
			r.cancel()
		}
		r.rest.Reset(piece)
	}
}

// Close gives up what was not read.
func (r *reader) Close() error {
	if r.err == nil {
		r.err = http.ErrBodyReadAfterClose
		r.rest.Reset(nil)
		r.body.Abort(nil)
		r.cancel()
	}
	return nil
}
