package controllers

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/go-logr/logr/testr"

	"github.com/gatehouse-dev/gatehouse/controllers/source"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// channelDataPlane hands out what it is to serve.
type channelDataPlane chan string

func (d channelDataPlane) Apply(s *snapshot.Snapshot) (r snapshot.BindResult) {
	d <- s.String()
	return r
}

func (channelDataPlane) SetEndpoints([]snapshot.Endpoints) {}

func TestAnEditOfAFileIsServed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "shop.yaml")
	write := func(path string) {
		t.Helper()
		text := strings.Replace(world, "rules: [{", `rules: [{matches: [{path: {value: "`+path+`"}}], `, 1)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("/v1")
	plane := make(channelDataPlane)
	loop := NewLoop(Options{DataPlane: plane, Told: func([]translate.Status) {}, Log: testr.New(t)})
	files := source.NewLoader([]string{file})
	loop.Replace(Files(files.Load()))

	ctx, cancel := context.WithCancel(t.Context())
	ends := make(chan error, 2)
	go func() { loop.Run(ctx); ends <- nil }()
	results := make(chan source.Result, 10)
	go func() { ends <- loop.Follow(ctx, files, func(r source.Result) { results <- r }) }()
	defer func() {
		cancel()
		for range 2 {
			if err := <-ends; err != nil {
				t.Error(err)
			}
		}
	}()
	if got := <-plane; !strings.Contains(got, "/v1 → shop/cart:80") {
		t.Errorf("at the start: %s", got)
	}
	write("/v2")
	if got := <-plane; !strings.Contains(got, "/v2 → shop/cart:80") {
		t.Errorf("after the edit: %s", got)
	}
	if r := <-results; r.Failed() || len(r.Objects) == 0 {
		t.Errorf("seen: %+v", r.Problems)
	}
}

func TestWhatIsWrongIsToldWithFileAndLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "shop.yaml")
	text := strings.Replace(world, "name: cart, port: 80", "name: cart, port: 81", 1) + `---
apiVersion: gatehouse.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: limits, namespace: shop}
spec:
  targetRefs:
  - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: api}
  - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: nope}
  limits:
  - name: all
    concurrency: 1
    when: source.mac == "1"
---
apiVersion: gatehouse.dev/v1alpha1
kind: AuthPolicy
metadata: {name: guard, namespace: shop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: api}]
  methods:
  - name: staff
    basic:
      secretRef: {name: nobody}
  authorize:
    default: Allow
    rules:
    - name: office
      action: Deny
      when: identity.groups == "guests"
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	files := source.NewLoader([]string{file}).Load()
	built := translate.Build(translate.Input{Kinds: Policies, Objects: Sorted(Files(files))})
	var got []string
	for _, c := range Complaints(built.Statuses(translate.AllBound(built.Snapshot)), files) {
		got = append(got, strings.TrimPrefix(c.String(), file))
	}
	line := func(part string) string {
		before, _, found := strings.Cut(text, part)
		if !found {
			t.Fatalf("no %q in the file", part)
		}
		return ":" + strconv.Itoa(1+strings.Count(before, "\n")) + ": "
	}
	for _, want := range []string{
		line("port: 81") + "HTTPRoute shop/api: spec.rules[0].backendRefs[0]",
		line("source.mac") + "RateLimitPolicy shop/limits: spec.limits[0].when: line 1, column 1: source.mac is not there",
		line("name: nobody") + "AuthPolicy shop/guard: spec.methods[0].basic.secretRef: there is no Secret shop/nobody",
		line("identity.groups") + "AuthPolicy shop/guard: spec.authorize.rules[0].when: line 1, column 1: identity.groups is not there",
		line("name: nope") + "RateLimitPolicy shop/limits: spec.targetRefs[1]: there is no HTTPRoute shop/nope",
	} {
		found := false
		for _, g := range got {
			found = found || strings.HasPrefix(g, want)
		}
		if !found {
			t.Errorf("no complaint %q in:\n%s", want, strings.Join(got, "\n"))
		}
	}
}
