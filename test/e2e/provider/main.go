// Command provider is the services of others that Gatehouse calls, for the end-to-end tests, in one small pod: an issuer of tokens whose keys
// change when it is told to, an OpenID provider that logs everybody in at once, a service that decides who may come in (Envoy's ext_authz), and a
// backend whose answer never ends. What only tests ask for is below /test/.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	envoytype "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpc "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"
)

func main() {
	web := flag.String("listen", ":8080", "address of HTTP")
	check := flag.String("check", ":9000", "address of ext_authz")
	issuer := flag.String("issuer", "https://sso.example.com", "its name for itself")
	secret := flag.String("client-secret", "secret-for-the-sample", "what the client gatehouse proves itself with")
	flag.Parse()

	p, err := newProvider(*issuer, *secret)
	if err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("tcp", *check)
	if err != nil {
		log.Fatal(err)
	}
	g := grpc.NewServer()
	auth.RegisterAuthorizationServer(g, authz{})
	go func() { log.Fatal(g.Serve(l)) }()
	server := &http.Server{Addr: *web, Handler: p.handler(), ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}

func (p *provider) handler() http.Handler {
	mux := http.NewServeMux()
	ready := func(http.ResponseWriter, *http.Request) {}
	mux.HandleFunc("GET /ready", ready)
	mux.HandleFunc("GET /stream/ready", ready)
	mux.HandleFunc("GET /stream", stream)
	mux.HandleFunc("GET /keys", p.keySet)
	mux.HandleFunc("GET /.well-known/openid-configuration", p.document)
	mux.HandleFunc("GET /authorize", p.authorize)
	mux.HandleFunc("POST /token", p.redeem)
	mux.HandleFunc("POST /test/mint", p.mint)
	mux.HandleFunc("POST /test/rotate", p.rotate)
	return mux
}

// stream says something every 100 ms until its client has gone.
func stream(w http.ResponseWriter, r *http.Request) {
	for n := 0; r.Context().Err() == nil; n++ {
		fmt.Fprintf(w, "line %d\n", n)
		http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// authz lets in whoever has the ticket "good", and says who that is. It looks into the body for the word "poison".
type authz struct {
	auth.UnimplementedAuthorizationServer
}

func (authz) Check(_ context.Context, in *auth.CheckRequest) (*auth.CheckResponse, error) {
	request := in.GetAttributes().GetRequest().GetHttp()
	if request.GetHeaders()["x-ticket"] != "good" || request.GetBody() == "poison" {
		return &auth.CheckResponse{
			Status: &rpc.Status{Code: int32(codes.PermissionDenied)},
			HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: &auth.DeniedHttpResponse{
				Status: &envoytype.HttpStatus{Code: envoytype.StatusCode_Forbidden}, Body: "not with that ticket",
			}},
		}, nil
	}
	metadata, err := structpb.NewStruct(map[string]any{"subject": "somebody with a ticket"})
	if err != nil {
		return nil, err
	}
	return &auth.CheckResponse{
		Status: &rpc.Status{}, DynamicMetadata: metadata,
		HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: &auth.OkHttpResponse{}},
	}, nil
}
