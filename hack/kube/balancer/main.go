// Command balancer is the test cluster's cloud: it gives each Service of type LoadBalancer an address out of a pool and writes it into the
// Service's status. Serving that address is kube-proxy's work. A Service with a spec.loadBalancerIP gets that one or none, and one with a
// loadBalancerClass is left to others.
//
// It lists all Services, writes what is wrong, and starts again when a watch tells of any change: nothing to remember, nothing to get out of step.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig in JSON, with one cluster and one user who has a token")
	pool := flag.String("pool", "10.97.0.0/24", "addresses to give")
	flag.Parse()

	addresses, err := netip.ParsePrefix(*pool)
	if err != nil {
		log.Fatal(err)
	}
	api, err := connect(*kubeconfig)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for ctx.Err() == nil {
		if err := api.round(ctx, addresses); err != nil {
			log.Print(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond): // also what bounds its work when Services come in hundreds
		}
	}
}

// api is the API server as its client sees it.
type api struct {
	host, token string
	client      *http.Client
}

// config is a kubeconfig, as far as it is read.
type config struct {
	Clusters []struct {
		Cluster struct {
			Server string `json:"server"`
			CA     []byte `json:"certificate-authority-data"`
		} `json:"cluster"`
	} `json:"clusters"`
	Users []struct {
		User struct {
			Token string `json:"token"`
		} `json:"user"`
	} `json:"users"`
}

func connect(kubeconfig string) (*api, error) {
	text, err := os.ReadFile(kubeconfig)
	if err != nil {
		return nil, err
	}
	var c config
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, fmt.Errorf("read %s: %w", kubeconfig, err)
	}
	if len(c.Clusters) != 1 || len(c.Users) != 1 {
		return nil, fmt.Errorf("read %s: %d clusters and %d users, not one of each", kubeconfig, len(c.Clusters), len(c.Users))
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(c.Clusters[0].Cluster.CA)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}, ForceAttemptHTTP2: true}
	return &api{c.Clusters[0].Cluster.Server, c.Users[0].User.Token, &http.Client{Transport: transport}}, nil
}

// round sets all right once, and returns when something has changed since.
func (a *api) round(ctx context.Context, pool netip.Prefix) error {
	list, err := a.list(ctx)
	if err != nil {
		return err
	}
	var failed error
	for _, c := range assign(list.Items, pool) {
		err := a.write(ctx, c)
		log.Printf("%s/%s: %v %v", c.of.Metadata.Namespace, c.of.Metadata.Name, c.to, err)
		failed = errors.Join(failed, err)
	}
	if failed != nil {
		return failed
	}
	return a.await(ctx, list.Metadata.ResourceVersion)
}

type list struct {
	Metadata struct {
		ResourceVersion string `json:"resourceVersion"`
	} `json:"metadata"`
	Items []*service `json:"items"`
}

func (a *api) list(ctx context.Context) (list, error) {
	body, err := a.call(ctx, http.MethodGet, "/api/v1/services", nil)
	if err != nil {
		return list{}, err
	}
	defer body.Close()
	var l list
	return l, json.NewDecoder(body).Decode(&l)
}

// await returns with the first news after that version, or when the API server ends the watch.
func (a *api) await(ctx context.Context, version string) error {
	body, err := a.call(ctx, http.MethodGet, "/api/v1/services?watch=1&resourceVersion="+url.QueryEscape(version), nil)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = body.Read(make([]byte, 1))
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// write changes a status, unless somebody has changed the Service since it was read.
func (a *api) write(ctx context.Context, c change) error {
	ingresses := []ingress{}
	if c.to.IsValid() {
		ingresses = append(ingresses, ingress{c.to.String()})
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": c.of.Metadata.ResourceVersion},
		"status":   map[string]any{"loadBalancer": map[string]any{"ingress": ingresses}},
	})
	if err != nil {
		return err
	}
	body, err := a.call(ctx, http.MethodPatch, "/api/v1/namespaces/"+c.of.Metadata.Namespace+"/services/"+c.of.Metadata.Name+"/status", patch)
	if err != nil {
		return err
	}
	return body.Close()
}

// call returns the body of a good answer; whoever calls closes it.
func (a *api) call(ctx context.Context, method, path string, patch []byte) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, method, a.host+path, bytes.NewReader(patch))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+a.token)
	request.Header.Set("Content-Type", "application/merge-patch+json")
	response, err := a.client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, response.Status, text)
	}
	return response.Body, nil
}
