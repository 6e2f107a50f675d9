//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// kind is a proxy that can be measured.
type kind struct {
	name    string
	program string
	version []string // arguments that make it say its version, in the first line
	write   func(dir string, p ports) (command []string, files map[string]string)
}

// ports are all on 127.0.0.1.
type ports struct {
	origin        int
	http1, http2  int // the proxy's; equal where it tells the protocols apart itself
	health, admin int
}

// allProxies do the same work: one route, HTTP/1.1 to the origin over kept connections, no access log, one thread, and the five fields that
// Gatehouse writes for the origin (X-Forwarded-For, -Proto, -Host, -Port and X-Request-Id).
func allProxies(gatehouse string) []kind {
	return []kind{
		{"nginx", "nginx", []string{"-v"}, nginx},
		{"haproxy", "haproxy", []string{"-v"}, haproxy},
		{"gatehouse", gatehouse, []string{"--version"}, func(dir string, p ports) ([]string, map[string]string) {
			return gatehouseRun(gatehouse, dir, p)
		}},
	}
}

// nginxHead runs in the foreground as one process, and writes nowhere but below its directory.
const nginxHead = `daemon off;
master_process off;
pid DIR/pid;
error_log DIR/error.log;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path DIR/body;
  proxy_temp_path DIR/proxy;
  fastcgi_temp_path DIR/fastcgi;
  uwsgi_temp_path DIR/uwsgi;
  scgi_temp_path DIR/scgi;
  keepalive_requests 1000000000;
`

func nginxRun(dir, rest string) ([]string, map[string]string) {
	conf := strings.ReplaceAll(nginxHead, "DIR", dir) + rest + "}\n"
	return []string{"nginx", "-e", dir + "/error.log", "-p", dir, "-c", dir + "/nginx.conf"}, map[string]string{"nginx.conf": conf}
}

// nginx as a proxy. A large answer waits in memory, not in a file (proxy_max_temp_file_size).
func nginx(dir string, p ports) ([]string, map[string]string) {
	return nginxRun(dir, fmt.Sprintf(`  proxy_max_temp_file_size 0;
  upstream origin { server 127.0.0.1:%d; keepalive 128; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:%d;
    listen 127.0.0.1:%d http2;
    location / {
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-Port $server_port;
      proxy_set_header X-Request-Id $request_id;
    }
  }
`, p.origin, p.http1, p.http2))
}

func haproxy(dir string, p ports) ([]string, map[string]string) {
	conf := fmt.Sprintf(`global
  nbthread 1
  maxconn 1000
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
frontend in
  bind 127.0.0.1:%d
  bind 127.0.0.1:%d proto h2
  http-request set-header X-Forwarded-For %%[src]
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %%[req.hdr(host)]
  http-request set-header X-Forwarded-Port %%[dst_port]
  http-request set-header X-Request-Id %%[uuid()]
  default_backend origin
backend origin
  server origin 127.0.0.1:%d
`, p.http1, p.http2, p.origin)
	return []string{"haproxy", "-db", "-f", dir + "/haproxy.cfg"}, map[string]string{"haproxy.cfg": conf}
}

func gatehouseRun(program, dir string, p ports) ([]string, map[string]string) {
	objects := fmt.Sprintf(`apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: gatehouse}
spec: {controllerName: gatehouse.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: bench}
spec:
  gatewayClassName: gatehouse
  addresses: [{type: IPAddress, value: 127.0.0.1}]
  listeners: [{name: http, protocol: HTTP, port: %d}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: bench}
spec:
  parentRefs: [{name: bench}]
  rules: [{backendRefs: [{name: origin, port: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: origin}
spec:
  ports: [{name: http, port: 80}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: origin-local, labels: {kubernetes.io/service-name: origin}}
addressType: IPv4
ports: [{name: http, port: %d}]
endpoints: [{addresses: [127.0.0.1]}]
`, p.http1, p.origin)
	return []string{
		program, "run", "-f", dir + "/objects.yaml", "--access-log=", "--drain-delay=0s", "--drain-timeout=1s",
		fmt.Sprintf("--health-address=127.0.0.1:%d", p.health), fmt.Sprintf("--admin-address=127.0.0.1:%d", p.admin),
	}, map[string]string{"objects.yaml": objects}
}

// startOrigin runs nginx as the origin: fast, and none of the proxies' own code.
func (b *bench) startOrigin(ctx context.Context) (*process, error) {
	free, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	b.originPort = free[0]
	dir := filepath.Join(b.dir, "origin")
	command, files := nginxRun(dir, fmt.Sprintf(`  sendfile on;
  tcp_nopush on;
  keepalive_timeout 1h;
  server {
    listen 127.0.0.1:%d;
    location = /small { return 200 "%s"; }
    location = /mib { root %s; }
  }
`, b.originPort, strings.Repeat("x", 100), dir))
	files["mib"] = strings.Repeat("x", mib)

	p, err := b.launch(dir, "origin", b.loadCore, command, files)
	if err != nil {
		return nil, err
	}
	if err := p.await(ctx, func(ctx context.Context) error { return check(ctx, b.originPort, loadCase{path: "/mib", bytes: mib}) }); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// launch writes files into a directory of the process's own, and starts it.
func (b *bench) launch(dir, name string, core int, command []string, files map[string]string) (*process, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	return start(dir, name, core, command...)
}

// proxy is one that runs.
type proxy struct {
	*process
	ports
}

// startProxy returns a proxy that has answered the case's request rightly.
func (b *bench) startProxy(ctx context.Context, k kind, c loadCase) (*proxy, error) {
	free, err := freePorts(4)
	if err != nil {
		return nil, err
	}
	p := &proxy{ports: ports{origin: b.originPort, http1: free[0], http2: free[1], health: free[2], admin: free[3]}}
	if k.name == "gatehouse" {
		p.http2 = p.http1
	}
	dir := filepath.Join(b.dir, c.name+"-"+k.name)
	command, files := k.write(dir, p.ports)
	if p.process, err = b.launch(dir, k.name, b.proxyCore, command, files); err != nil {
		return nil, err
	}
	if err := p.await(ctx, func(ctx context.Context) error { return check(ctx, p.port(c), c) }); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func (p *proxy) port(c loadCase) int {
	if c.streams > 0 {
		return p.http2
	}
	return p.http1
}

func (p *proxy) url(c loadCase) string {
	return fmt.Sprintf("http://127.0.0.1:%d%s", p.port(c), c.path)
}

// check asks once, over the protocol of the case, and looks at all that comes back.
func check(ctx context.Context, port int, c loadCase) error {
	var protocols http.Protocols
	protocols.SetHTTP1(c.streams == 0)
	protocols.SetUnencryptedHTTP2(c.streams > 0)
	transport := &http.Transport{Protocols: &protocols, DisableKeepAlives: true}
	client := http.Client{Transport: transport, Timeout: 2 * time.Second}

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", port, c.path), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || strings.Trim(string(body), "x") != "" || len(body) != c.bytes {
		return fmt.Errorf("%s with %d bytes where 200 with %d was right", resp.Status, len(body), c.bytes)
	}
	return nil
}
