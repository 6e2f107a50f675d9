package outbound

import (
	"context"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// NewStream makes a call with streams of messages. It must be read to its end or its context ended, as gRPC's own.
func (c *conn) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	set, err := c.settings(opts)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ex, err := request(ctx, method)
	if err != nil {
		cancel()
		return nil, failed(err)
	}
	s := &stream{ctx: ctx, cancel: cancel, settings: set, sending: newSending(), answered: make(chan struct{})}
	ex.Request.Body = message.NewBody(s.sending, -1, nil)
	go func() {
		defer close(s.answered)
		if s.err = c.call.Do(ctx, ex); s.err == nil {
			s.answer = answer{res: ex.Response, max: set.max}
			s.err = s.answer.head()
		} else {
			s.err = failed(s.err)
		}
	}()
	return s, nil
}

// stream is a grpc.ClientStream: one goroutine may send while another receives.
type stream struct {
	ctx      context.Context
	cancel   context.CancelFunc
	settings settings
	sending  *sending

	answered chan struct{} // closed when what follows is set
	answer   answer
	err      error
}

func (s *stream) Context() context.Context { return s.ctx }

// SendMsg waits until the transport has taken the message before it. io.EOF says that the call is over: RecvMsg says how.
func (s *stream) SendMsg(m any) error {
	content, err := frame(m)
	if err != nil {
		return err
	}
	return s.sending.put(s.ctx, content)
}

func (s *stream) CloseSend() error {
	s.sending.end()
	return nil
}

func (s *stream) Header() (metadata.MD, error) {
	<-s.answered
	if s.err != nil {
		return nil, s.err
	}
	return metadataOf(&s.answer.res.Header), nil
}

// Trailer may be called once RecvMsg has returned an error.
func (s *stream) Trailer() metadata.MD {
	<-s.answered
	if s.answer.res == nil {
		return nil
	}
	return metadataOf(s.answer.trailer())
}

func (s *stream) RecvMsg(m any) error {
	<-s.answered
	if s.err != nil {
		s.over()
		return s.err
	}
	err := s.answer.message(m)
	if err != nil {
		s.settings.give(&s.answer)
		s.over()
	}
	return err
}

// over gives the rest of the call up.
func (s *stream) over() {
	s.answer.res.Drop(nil)
	s.sending.Abort(nil)
	s.cancel()
}

// sending is the request body of a stream: what SendMsg puts, the transport pulls.
type sending struct {
	messages chan []byte
	ended    chan struct{} // no more messages
	endOnce  sync.Once
	gone     chan struct{} // nobody pulls any more
	goneOnce sync.Once
}

func newSending() *sending {
	return &sending{messages: make(chan []byte), ended: make(chan struct{}), gone: make(chan struct{})}
}

func (s *sending) put(ctx context.Context, content []byte) error {
	select {
	case <-s.ended:
		return status.Error(codes.Internal, "a message behind CloseSend")
	default:
	}
	select {
	case s.messages <- content:
		return nil
	case <-s.gone:
		return io.EOF
	case <-ctx.Done():
		return failed(message.ContextError(ctx))
	}
}

func (s *sending) end() { s.endOnce.Do(func() { close(s.ended) }) }

func (s *sending) Next() ([]byte, error) {
	select {
	case p := <-s.messages:
		return p, nil
	case <-s.ended:
		return nil, io.EOF
	case <-s.gone:
		return nil, io.ErrClosedPipe
	}
}

func (s *sending) More() bool               { return false }
func (s *sending) Trailer() *message.Header { return nil }
func (s *sending) Abort(error)              { s.goneOnce.Do(func() { close(s.gone) }) }
