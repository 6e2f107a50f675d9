package main

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAServiceGetsTheAddressThatItAsksForOrTheLowestFreeOne(t *testing.T) {
	for name, c := range map[string]struct {
		services string
		want     map[string]string // name to address, "" for none; those alone that change
	}{
		"nothing to do": {
			services: `[]`,
		},
		"two new ones, the older first": {
			services: `[
				{"metadata": {"name": "young", "creationTimestamp": "2026-01-02T00:00:00Z"}, "spec": {"type": "LoadBalancer"}},
				{"metadata": {"name": "old", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"type": "LoadBalancer"}}]`,
			want: map[string]string{"old": "10.97.0.1", "young": "10.97.0.2"},
		},
		"what it has, it keeps, and the gap below is used": {
			services: `[
				{"metadata": {"name": "has"}, "spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{"ip": "10.97.0.2"}]}}},
				{"metadata": {"name": "new1", "uid": "1"}, "spec": {"type": "LoadBalancer"}},
				{"metadata": {"name": "new2", "uid": "2"}, "spec": {"type": "LoadBalancer"}}]`,
			want: map[string]string{"new1": "10.97.0.1", "new2": "10.97.0.3"},
		},
		"an asked address is not given to one who takes any": {
			services: `[
				{"metadata": {"name": "any", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"type": "LoadBalancer"}},
				{"metadata": {"name": "asks", "creationTimestamp": "2026-01-02T00:00:00Z"}, "spec": {"type": "LoadBalancer", "loadBalancerIP": "10.97.0.1"}}]`,
			want: map[string]string{"asks": "10.97.0.1", "any": "10.97.0.2"},
		},
		"of two who ask for the same, the older one gets it": {
			services: `[
				{"metadata": {"name": "young", "creationTimestamp": "2026-01-02T00:00:00Z"}, "spec": {"type": "LoadBalancer", "loadBalancerIP": "10.97.0.5"}},
				{"metadata": {"name": "old", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"type": "LoadBalancer", "loadBalancerIP": "10.97.0.5"}}]`,
			want: map[string]string{"old": "10.97.0.5"},
		},
		"another's, outside the pool, its first address and nonsense are not given": {
			services: `[
				{"metadata": {"name": "has"}, "spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{"ip": "10.97.0.2"}]}}},
				{"metadata": {"name": "same"}, "spec": {"type": "LoadBalancer", "loadBalancerIP": "10.97.0.2"}},
				{"metadata": {"name": "outside"}, "spec": {"type": "LoadBalancer", "loadBalancerIP": "10.98.0.2"}},
				{"metadata": {"name": "first"}, "spec": {"type": "LoadBalancer", "loadBalancerIP": "10.97.0.0"}},
				{"metadata": {"name": "nonsense"}, "spec": {"type": "LoadBalancer", "loadBalancerIP": "door 7"}}]`,
		},
		"who asks for another than it has gets it": {
			services: `[{"metadata": {"name": "a"}, "spec": {"type": "LoadBalancer", "loadBalancerIP": "10.97.0.4"}, "status": {"loadBalancer": {"ingress": [{"ip": "10.97.0.1"}]}}}]`,
			want:     map[string]string{"a": "10.97.0.4"},
		},
		"who asks for one outside the pool loses what it has": {
			services: `[{"metadata": {"name": "a"}, "spec": {"type": "LoadBalancer", "loadBalancerIP": "10.98.0.4"}, "status": {"loadBalancer": {"ingress": [{"ip": "10.97.0.1"}]}}}]`,
			want:     map[string]string{"a": ""},
		},
		"of two with one address, the older one keeps it": {
			services: `[
				{"metadata": {"name": "young", "creationTimestamp": "2026-01-02T00:00:00Z"}, "spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{"ip": "10.97.0.1"}]}}},
				{"metadata": {"name": "old", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{"ip": "10.97.0.1"}]}}}]`,
			want: map[string]string{"young": "10.97.0.2"},
		},
		"no LoadBalancer any more: its address is taken away and free": {
			services: `[
				{"metadata": {"name": "was"}, "spec": {"type": "ClusterIP"}, "status": {"loadBalancer": {"ingress": [{"ip": "10.97.0.1"}]}}},
				{"metadata": {"name": "new"}, "spec": {"type": "LoadBalancer"}}]`,
			want: map[string]string{"was": "", "new": "10.97.0.1"},
		},
		"another balancer's class is left alone": {
			services: `[{"metadata": {"name": "theirs"}, "spec": {"type": "LoadBalancer", "loadBalancerClass": "example.com/cloud"}},
				{"metadata": {"name": "done"}, "spec": {"type": "LoadBalancer", "loadBalancerClass": "example.com/cloud"}, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}]`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := map[string]string{}
			for _, change := range assign(services(t, c.services), netip.MustParsePrefix("10.97.0.0/24")) {
				got[change.of.Metadata.Name] = ""
				if change.to.IsValid() {
					got[change.of.Metadata.Name] = change.to.String()
				}
			}
			if c.want == nil {
				c.want = map[string]string{}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAnEmptyPoolLeavesTheRestWaiting(t *testing.T) {
	three := services(t, `[
		{"metadata": {"name": "a", "uid": "1"}, "spec": {"type": "LoadBalancer"}},
		{"metadata": {"name": "b", "uid": "2"}, "spec": {"type": "LoadBalancer"}},
		{"metadata": {"name": "c", "uid": "3"}, "spec": {"type": "LoadBalancer"}},
		{"metadata": {"name": "d", "uid": "4"}, "spec": {"type": "LoadBalancer"}}]`)
	var got []string
	for _, change := range assign(three, netip.MustParsePrefix("10.97.0.0/30")) {
		got = append(got, change.of.Metadata.Name+" "+change.to.String())
	}
	if diff := cmp.Diff([]string{"a 10.97.0.1", "b 10.97.0.2", "c 10.97.0.3"}, got); diff != "" {
		t.Error(diff)
	}
}

func services(t *testing.T, text string) []*service {
	t.Helper()
	var s []*service
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	return s
}
