package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
)

// controllerArgs parses flags as controller does.
func controllerArgs(t *testing.T, args ...string) (o controllerOptions, err error) {
	t.Helper()
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.clusterFlags(f)
	o.serviceFlags(f)
	if err := f.Parse(append([]string{"--namespace=gatehouse-system", "--pod-name=gatehouse-0"}, args...)); err != nil {
		t.Fatal(err)
	}
	return o, o.check()
}

func TestWhatIsMadeInTheReleasesNamespaceIsNamedAfterItsOwner(t *testing.T) {
	o, err := controllerArgs(t, "--owner=edge-owner", "--address-pool=192.0.2.0/24", "--service-type=NodePort", "--external-traffic-policy=Local")
	if err != nil {
		t.Fatal(err)
	}
	if o.record != "edge-pod-ports" || o.lease != "edge-leader" {
		t.Errorf("record %s, lease %s", o.record, o.lease)
	}
	if o.service.Type != corev1.ServiceTypeNodePort || o.service.ExternalTrafficPolicy != "Local" || len(o.service.AddressPool) != 1 {
		t.Errorf("service: %+v", o.service)
	}
	if o, _ := controllerArgs(t, "--record=r", "--lease=l"); o.record != "r" || o.lease != "l" {
		t.Errorf("record %s, lease %s", o.record, o.lease)
	}
}

func TestFlagsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, arg := range []string{
		"--namespace=", "--pod-name=", "--owner=", "--members=", "--exposure=both", "--service-type=ExternalName", "--log-format=xml",
		"--external-traffic-policy=local", "--ip-family-policy=IPv6",
	} {
		name, _, _ := strings.Cut(arg, "=")
		if _, err := controllerArgs(t, arg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", arg, err)
		}
	}
}

func TestTheClustersDomainIsThatOfTheSearchList(t *testing.T) {
	for text, want := range map[string]string{
		"nameserver 10.96.0.10\nsearch gatehouse-system.svc.example.internal svc.example.internal example.internal\noptions ndots:5\n": "example.internal",
		"search gatehouse-system.svc.cluster.local. svc.cluster.local":                                                                 "cluster.local",
		"search corp.example":          "cluster.local",
		"nameserver 192.0.2.1\nsearch": "cluster.local",
		"":                             "cluster.local",
	} {
		path := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := clusterDomain(path, "gatehouse-system"); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	if got := clusterDomain(filepath.Join(t.TempDir(), "none"), "gatehouse-system"); got != "cluster.local" {
		t.Errorf("without the file: %s", got)
	}
}
