package proxy

import (
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// grpcResponse makes an answer of ours one that a gRPC client understands: HTTP 200 with grpc-status in the head ("trailers only").
// An answer without a reason maps its HTTP status as the gRPC specification does for proxies that know no better.
func grpcResponse(r *message.Response) *message.Response {
	if r.Header.Has("Grpc-Status") {
		return r
	}
	code, text := grpcOfHTTP(r.Status), ""
	if r.Reason != message.ReasonNone {
		code, text = r.Reason.GRPC(), r.Reason.Text()
	}
	out := &message.Response{Status: 200, Length: -1, Origin: r.Origin, Reason: r.Reason, Detail: r.Detail}
	for name, value := range r.Header.All() {
		if !strings.EqualFold(name, "Content-Type") {
			out.Header.Add(name, value)
		}
	}
	out.Header.Set("Content-Type", "application/grpc")
	out.Header.Set("Grpc-Status", strconv.Itoa(code))
	if text != "" {
		out.Header.Set("Grpc-Message", percentEncode(text))
	}
	r.Body.Abort(nil)
	return out
}

// grpcOfHTTP is the table of grpc/grpc doc/http-grpc-status-mapping.md.
func grpcOfHTTP(status int) int {
	switch status {
	case 400:
		return message.GRPCInternal
	case 401:
		return message.GRPCUnauthenticated
	case 403:
		return message.GRPCPermissionDenied
	case 404:
		return message.GRPCUnimplemented
	case 429, 502, 503, 504:
		return message.GRPCUnavailable
	}
	return message.GRPCUnknown
}

// percentEncode encodes a grpc-message: visible ASCII but "%" stands as it is.
func percentEncode(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
		} else {
			b.WriteString("%" + strings.ToUpper(strconv.FormatUint(uint64(c)|0x100, 16)[1:]))
		}
	}
	return b.String()
}
