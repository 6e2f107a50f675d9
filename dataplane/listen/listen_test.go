package listen

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
	"github.com/gatehouse-dev/gatehouse/dataplane/telemetry"
)

// lines is an engine that speaks lines: whatever a client says, the answer is "gateway section open" or, when the connection is to
// leave, "gateway section close" and the end. "wait" is answered when the test lets go.
type lines struct {
	letGo chan struct{}
	conns chan *message.Conn // every connection that is served, if there is room
	late  atomic.Int64       // connections that came when the server was shut down
	waits atomic.Int64       // requests that wait to be let go
	// entering, if set, is run when a connection comes, before anything else.
	entering func()
}

func newLines() *lines {
	return &lines{letGo: make(chan struct{}), conns: make(chan *message.Conn, 10000)}
}

func (e *lines) Open(message.Handler, message.Limits) message.Server {
	return &lineServer{engine: e, conns: map[net.Conn]*atomic.Bool{}, changed: make(chan struct{}, 1), cut: make(chan struct{})}
}

type lineServer struct {
	engine  *lines
	mu      sync.Mutex                // guards what follows
	conns   map[net.Conn]*atomic.Bool // busy
	shut    bool
	over    bool // Shutdown has returned
	changed chan struct{}
	cut     chan struct{} // closed by Close
}

func (s *lineServer) Serve(nc net.Conn, info *message.Conn) {
	defer nc.Close()
	if s.engine.entering != nil {
		s.engine.entering()
	}
	busy := &atomic.Bool{}
	busy.Store(true) // a connection that is new is not idle yet, as with net/http
	s.mu.Lock()
	if s.over {
		s.engine.late.Add(1)
		s.mu.Unlock()
		return
	}
	if s.shut {
		info.Leave()
	}
	s.conns[nc] = busy
	s.mu.Unlock()
	select {
	case s.engine.conns <- info:
	default:
	}
	defer func() {
		s.mu.Lock()
		delete(s.conns, nc)
		s.mu.Unlock()
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}()
	who := "plain"
	if key, ok := info.Listener.(snapshot.ListenerKey); ok {
		who = key.Section
	}
	gateway := info.Socket.(snapshot.SocketKey).Gateway.Name
	in := bufio.NewReader(nc)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		busy.Store(true)
		if line == "wait\n" {
			s.engine.waits.Add(1)
			select {
			case <-s.engine.letGo:
			case <-s.cut:
			}
			s.engine.waits.Add(-1)
		}
		s.mu.Lock()
		leaving := info.Leaving() || s.shut
		s.mu.Unlock()
		word := "open"
		if leaving {
			word = "close"
		}
		fmt.Fprintf(nc, "%s %s %s\n", gateway, who, word)
		busy.Store(false)
		if leaving {
			return
		}
	}
}

func (s *lineServer) Shutdown(ctx context.Context) error {
	for {
		s.mu.Lock()
		s.shut = true
		n := len(s.conns)
		for c, busy := range s.conns {
			if !busy.Load() {
				c.Close()
			}
		}
		s.mu.Unlock()
		if n == 0 {
			s.mu.Lock()
			s.over = true
			s.mu.Unlock()
			return nil
		}
		select {
		case <-s.changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *lineServer) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
	select {
	case <-s.cut:
	default:
		close(s.cut)
	}
}

// rig is a Listen with what a root would do around it.
type rig struct {
	t       *testing.T
	l       *Listen
	engine  *lines
	store   *keep.Store
	tel     *telemetry.Telemetry
	current atomic.Pointer[Plan]
	once    sync.Once
}

func start(t *testing.T, change func(*Options)) *rig {
	t.Helper()
	goroutines, fds := runtime.NumGoroutine(), openFiles(t)
	tel, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, engine: newLines(), store: keep.New(time.Now), tel: tel}
	o := Options{
		Engine: r.engine, Current: r.current.Load, Handshake: 5 * time.Second, Spread: -1, LeaveFirst: -1, Retry: 20 * time.Millisecond,
		DrainLeft: 5 * time.Second,
	}
	if change != nil {
		change(&o)
	}
	r.l = New(o)
	t.Cleanup(func() {
		r.shutdown(5 * time.Second)
		if n := r.engine.late.Load(); n > 0 {
			t.Errorf("%d connections were given to a server that had been shut down", n)
		}
		eventually(t, "all goroutines and descriptors are gone", func() bool {
			return runtime.NumGoroutine() <= goroutines && openFiles(t) <= fds
		})
	})
	return r
}

func (r *rig) shutdown(within time.Duration) (err error) {
	r.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		err = r.l.Shutdown(ctx)
	})
	return err
}

func (r *rig) apply(sockets ...snapshot.Socket) []snapshot.BindState {
	r.t.Helper()
	return r.applyPlan(sockets).Sockets
}

func (r *rig) applyPlan(sockets []snapshot.Socket) snapshot.BindResult {
	round, metrics := r.store.Begin(), r.tel.Round()
	p := r.l.Prepare(round, metrics, sockets)
	result := r.l.Apply(p, func() { r.current.Store(p) })
	round.End()
	metrics.End()
	return result
}

// bound applies, and every socket must be bound.
func (r *rig) bound(sockets ...snapshot.Socket) {
	r.t.Helper()
	for _, s := range r.apply(sockets...) {
		if s.Err != nil {
			r.t.Fatal(s.Err)
		}
	}
}

func (r *rig) page() string {
	w := httptest.NewRecorder()
	r.tel.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

func (r *rig) counted(sample string) {
	r.t.Helper()
	eventually(r.t, "the page of metrics says "+sample, func() bool { return strings.Contains(r.page(), sample+"\n") })
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Errorf("waited in vain until %s", what)
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc")
	}
	return len(files)
}

var loopback = netip.MustParseAddr("127.0.0.1")

// freePort is a port that nobody uses.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func gateway(name string) snapshot.Name { return snapshot.Name{Namespace: "infra", Name: name} }

func plain(gw string, port uint16) snapshot.Socket {
	return snapshot.Socket{
		Key: snapshot.SocketKey{Gateway: gateway(gw), Address: loopback, Port: port}, Protocol: snapshot.HTTP,
		Listeners: []*snapshot.Listener{{Key: snapshot.ListenerKey{Gateway: gateway(gw), Section: "http"}}},
	}
}

func secure(gw string, port uint16, listeners ...*snapshot.Listener) snapshot.Socket {
	return snapshot.Socket{
		Key: snapshot.SocketKey{Gateway: gateway(gw), Address: loopback, Port: port}, Protocol: snapshot.HTTPS, Listeners: listeners,
	}
}

func listener(gw, section, host string, certificates ...snapshot.Secret) *snapshot.Listener {
	return &snapshot.Listener{
		Key: snapshot.ListenerKey{Gateway: gateway(gw), Section: section}, Hostname: host, TLS: &snapshot.TLS{Certificates: certificates},
	}
}

// authority signs the certificates of all tests.
var authority = sync.OnceValue(newIssuer)

func newIssuer() *issuer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return &issuer{parsed, key, roots}
}

type issuer struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	roots       *x509.CertPool
}

var serial atomic.Int64

// certified makes a secret for these names.
func certified(t *testing.T, names ...string) snapshot.Secret {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signed(t, &key.PublicKey, key, names)
}

func certifiedRSA(t *testing.T, names ...string) snapshot.Secret {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return signed(t, &key.PublicKey, key, names)
}

func signed(t *testing.T, public, private any, names []string) snapshot.Secret {
	t.Helper()
	ca := authority()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(100 + serial.Add(1)), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, public, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return snapshot.Secret{
		Name:        snapshot.Name{Namespace: "infra", Name: fmt.Sprintf("cert-%d", serial.Load())},
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	}
}

// client is a connection of a test.
type client struct {
	net.Conn
	in *bufio.Reader
}

func address(port uint16) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func dial(t *testing.T, port uint16) *client {
	t.Helper()
	c, err := net.Dial("tcp", address(port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &client{c, bufio.NewReader(c)}
}

// dialTLS shakes hands; config may be nil. The server name is config's or name.
func dialTLS(t *testing.T, port uint16, name string, config *tls.Config) (*client, error) {
	t.Helper()
	if config == nil {
		config = &tls.Config{}
	}
	config = config.Clone()
	config.ServerName, config.RootCAs = name, authority().roots
	if name == "" {
		config.InsecureSkipVerify = true
	}
	raw, err := net.Dial("tcp", address(port))
	if err != nil {
		return nil, err
	}
	raw.SetDeadline(time.Now().Add(10 * time.Second))
	c := tls.Client(raw, config)
	if err := c.Handshake(); err != nil {
		raw.Close()
		return nil, err
	}
	t.Cleanup(func() { raw.Close() })
	return &client{c, bufio.NewReader(c)}, nil
}

// say sends a line and returns the answer.
func (c *client) say(line string) (string, error) {
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintln(c, line); err != nil {
		return "", err
	}
	answer, err := c.in.ReadString('\n')
	return strings.TrimSuffix(answer, "\n"), err
}

func (c *client) hears(t *testing.T, want string) {
	t.Helper()
	if got, err := c.say("hello"); err != nil || got != want {
		t.Errorf("heard %q, %v; want %q", got, err, want)
	}
}

// ended reports whether the other side has closed.
func (c *client) ended() bool {
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, err := c.in.ReadByte()
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}
