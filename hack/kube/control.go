package kube

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// startLimit bounds a start whose context doesn't: ten times what a busy small machine needs.
const startLimit = 2 * time.Minute

// Control is a running control plane: one etcd and one kube-apiserver with RBAC. It listens on
// 127.0.0.1 only, and etcd on a socket that nobody else can open. What it holds lives in a temporary
// directory and goes with it.
//
// There is no controller-manager, so the admission plugin ServiceAccount is off: without it pods
// could not be created at all, for want of their namespace's default account.
type Control struct {
	Host       string // "https://127.0.0.1:<port>"
	CA         []byte // PEM; whom to trust for Host
	Token      string // bearer token of a member of system:masters, who may do everything
	Kubeconfig string // path of a file that says the same
	Bin        string // directory of the programs; kubectl is there, unless the caller gave another one

	state     *state
	etcd      *process
	apiServer *process
}

// Start starts a control plane and returns when its /readyz says so: about three seconds. The programs are taken from the
// directory bin; "" means those of [Binaries], built first where they are missing. The context bounds the
// start only (without a deadline it is two minutes), not the life of the control plane.
//
// Whoever started must call Stop. Should this process end without it, Linux kills the programs, and
// the next Start removes the directory.
//
// An error of a program that failed or wasn't ready in time carries the last lines of its log.
func Start(ctx context.Context, bin string) (*Control, error) {
	if err := hostFits(); err != nil {
		return nil, err
	}
	if bin == "" {
		var err error
		if bin, err = Binaries(ctx); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()

	// A free port can't be handed over, only named: another process may take it first. Then we try another.
	const tries = 3
	for try := 1; ; try++ {
		c, err := startOnce(ctx, bin)
		if err == nil {
			return c, nil
		}
		if try == tries || !strings.Contains(err.Error(), "address already in use") {
			return nil, err
		}
	}
}

func startOnce(ctx context.Context, bin string) (*Control, error) {
	state, err := newState()
	if err != nil {
		return nil, err
	}
	c := &Control{Bin: bin, Token: rand.Text(), state: state}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *Control) start(ctx context.Context) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	c.Host = "https://127.0.0.1:" + strconv.Itoa(port)
	if err := c.writeFiles(); err != nil {
		return err
	}

	// Both at once: the API server waits for etcd by itself.
	if c.etcd, err = start(c.Bin, c.state.dir, "etcd", c.etcdArgs()...); err != nil {
		return err
	}
	if c.apiServer, err = start(c.Bin, c.state.dir, "kube-apiserver", c.apiServerArgs(port)...); err != nil {
		return err
	}
	return c.awaitReady(ctx)
}

// writeFiles makes all that the programs and kubectl read.
func (c *Control) writeFiles() error {
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	c.CA = ca.pem
	c.Kubeconfig = c.state.path("kubeconfig")
	// 10.96.0.1 is the Service "kubernetes" of serviceRange.
	addresses := []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 96, 0, 1)}
	_, err = writeKey(c.state.path("service-accounts.key"))
	return errors.Join(
		err,
		ca.serving(c.state.path("serving.crt"), c.state.path("serving.key"), addresses, "localhost", "kubernetes.default.svc"),
		os.WriteFile(c.state.path("ca.crt"), c.CA, 0o600),
		os.WriteFile(c.state.path("tokens.csv"), []byte(c.Token+`,admin,admin,"system:masters"`+"\n"), 0o600),
		os.WriteFile(c.Kubeconfig, c.kubeconfig(), 0o600),
	)
}

const serviceRange = "10.96.0.0/16"

// etcdArgs has sockets instead of ports: no port to lose, and the directory's mode keeps everybody
// else away from a database that asks nobody who he is.
func (c *Control) etcdArgs() []string {
	clients, peers := "unix://"+c.state.path("etcd.sock"), "unix://"+c.state.path("peer.sock")
	return []string{
		"--name=one", "--data-dir=" + c.state.path("etcd"),
		"--listen-client-urls=" + clients, "--advertise-client-urls=" + clients,
		"--listen-peer-urls=" + peers, "--initial-advertise-peer-urls=" + peers, "--initial-cluster=one=" + peers,
		"--unsafe-no-fsync", // what it holds needn't outlive a power cut
		"--log-level=warn",
	}
}

func (c *Control) apiServerArgs(port int) []string {
	keys := c.state.path("service-accounts.key")
	return []string{
		"--etcd-servers=unix://" + c.state.path("etcd.sock"),
		"--bind-address=127.0.0.1", "--secure-port=" + strconv.Itoa(port),
		"--advertise-address=127.0.0.1",   // else it looks for a default route, and ends where there is none
		"--endpoint-reconciler-type=none", // the advertised loopback address would be refused as an endpoint, again and again
		"--tls-cert-file=" + c.state.path("serving.crt"), "--tls-private-key-file=" + c.state.path("serving.key"),
		"--token-auth-file=" + c.state.path("tokens.csv"), "--authorization-mode=RBAC",
		"--service-cluster-ip-range=" + serviceRange,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + keys, "--service-account-signing-key-file=" + keys,
		"--disable-admission-plugins=ServiceAccount", // see Control
		"--allow-privileged", "--profiling=false",
	}
}

// kubeconfig is JSON, which YAML contains.
func (c *Control) kubeconfig() []byte {
	return fmt.Appendf(nil, `{"apiVersion": "v1", "kind": "Config", "current-context": "kube",
"clusters": [{"name": "kube", "cluster": {"server": %q, "certificate-authority": %q}}],
"users": [{"name": "admin", "user": {"token": %q}}],
"contexts": [{"name": "kube", "context": {"cluster": "kube", "user": "admin"}}]}
`, c.Host, c.state.path("ca.crt"), c.Token)
}

// readyWhen are the paths that must answer 200. The API server makes the namespace only after it calls
// itself ready, and a quick test would find it missing.
var readyWhen = []string{"/readyz", "/api/v1/namespaces/default"}

// awaitReady returns when all of readyWhen do, when a program has ended, or when the time is over.
func (c *Control) awaitReady(ctx context.Context) error {
	client := c.Client()
	defer client.CloseIdleConnections()
	soon := time.NewTicker(50 * time.Millisecond)
	defer soon.Stop()
	for {
		err := ready(ctx, client, c.Host)
		if err == nil {
			return nil
		}
		select {
		case <-c.etcd.ended:
			return c.etcd.failed("ended before the API server was ready", c.etcd.outcome())
		case <-c.apiServer.ended:
			return c.apiServer.failed("ended before it was ready", c.apiServer.outcome())
		case <-ctx.Done():
			return c.apiServer.failed("is not ready", errors.Join(context.Cause(ctx), err))
		case <-soon.C:
		}
	}
}

func ready(ctx context.Context, client *http.Client, host string) error {
	for _, path := range readyWhen {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, host+path, nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answered %s: %s", path, response.Status, body)
		}
	}
	return nil
}

// Stop ends both programs and removes the directory. It may be called twice.
func (c *Control) Stop() error {
	for _, p := range []*process{c.apiServer, c.etcd} {
		if p != nil {
			p.stop()
		}
	}
	return c.state.remove()
}

// Client is for plain HTTPS: it trusts the control plane's CA and speaks as the administrator, to
// this host alone.
func (c *Control) Client() *http.Client {
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(c.CA)
	return &http.Client{Transport: administrator{c, &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: trusted},
		ForceAttemptHTTP2: true,
	}}}
}

// Kubectl is kubectl as the administrator, not yet run. It keeps its cache with the control plane's state.
func (c *Control) Kubectl(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.Bin, "kubectl"), append([]string{"--kubeconfig=" + c.Kubeconfig}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECACHEDIR="+c.state.path("kubectl-cache"))
	return cmd
}

type administrator struct {
	of   *Control
	next *http.Transport
}

func (a administrator) RoundTrip(request *http.Request) (*http.Response, error) {
	if "https://"+request.URL.Host == a.of.Host {
		request = request.Clone(request.Context())
		request.Header.Set("Authorization", "Bearer "+a.of.Token)
	}
	return a.next.RoundTrip(request)
}

func (a administrator) CloseIdleConnections() { a.next.CloseIdleConnections() }

func freePort() (int, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}
