# Gatehouse. `make help` lists what there is; `make run` and `make test` are all that one needs at first.
SHELL := /bin/bash
export GOTOOLCHAIN := auto
export GOFLAGS := -buildvcs=false

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
IMAGE   ?= gatehouse-dev/gatehouse
LABEL   := -label org.opencontainers.image
LABELS  := $(LABEL).title=gatehouse $(LABEL).version=$(VERSION) $(LABEL).revision=$(COMMIT) $(LABEL).licenses=Apache-2.0
TOOL    := go tool -modfile=hack/tools/go.mod
FUZZTIME ?= 5s
SOAK ?= 10m

.DEFAULT_GOAL := help

.PHONY: help
help: ## Lists the targets.
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Builds bin/gatehouse and the samples' bin/backend (minutes the first time, then seconds).
	@[ -x bin/gatehouse ] || echo "building; the very first time all libraries are compiled, which takes some minutes:" >&2
	@hack/progress.sh env CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/gatehouse ./hack/backend

.PHONY: run
run: build ## Starts Gatehouse without a cluster on config/samples with two small backends, and prints URLs to curl.
	@hack/run.sh

.PHONY: image
image: build ## Writes the image dist/gatehouse-VERSION.tar from bin/gatehouse, without a container engine.
	@go run ./hack/image -o dist/gatehouse-$(VERSION).tar -name $(IMAGE):$(VERSION) -port 8080 -port 8081 $(LABELS) bin/gatehouse=/gatehouse
	@echo "dist/gatehouse-$(VERSION).tar is $(IMAGE):$(VERSION); docker load, podman load and ctr images import read it"

.PHONY: cluster-up
cluster-up: ## Starts a whole Kubernetes on this machine (Linux, root; the first time it is built, some 8 minutes). CLUSTER=NAME for another one.
	@hack/kube/cluster.sh up

.PHONY: cluster-down
cluster-down: ## Ends it and removes all that it made.
	@hack/kube/cluster.sh down

.PHONY: cluster-shell
cluster-shell: ## A shell in its network, with KUBECONFIG set.
	@hack/kube/cluster.sh shell

.PHONY: cluster-test
cluster-test: ## Tests that the cluster runs pods, serves Services and leaves nothing behind.
	@hack/kube/build.sh cluster >/dev/null
	go test -tags cluster -count=1 -timeout 5m -run Cluster ./hack/kube

.PHONY: chart-test
chart-test: ## Tests the Helm chart with a real helm and a real API server (both built on first use).
	@hack/chart.sh test

.PHONY: conformance
conformance: ## The Gateway API's conformance suite against the chart in a real cluster, with a table (some 3 minutes, and builds the first time).
	@hack/e2e.sh conformance

.PHONY: e2e
e2e: ## End to end in that cluster, under load: what rolls, rotates, restarts, or goes away, and no request fails.
	@hack/e2e.sh e2e

.PHONY: soak
soak: ## The same load for SOAK (10m) while everything changes again and again, and memory must stay what it is.
	@hack/e2e.sh soak -soak=$(SOAK)

.PHONY: login-test
login-test: ## Logins with a real OpenID provider in a real browser (Debian's Chromium, installed on first use).
	@hack/chromium.sh >/dev/null
	env -C test/login GOWORK=off go vet -tags login .
	env -C test/login GOWORK=off go test -tags login -count=1 -timeout 8m .

.PHONY: limits-test
limits-test: ## Limits across replicas: real processes, a real Redis (apt-get installs it) alone, as a cluster, with sentinels (some 2 minutes).
	@hack/redis.sh >/dev/null
	go vet -tags limits ./test/limits
	@set -o pipefail; go test -tags limits -count=1 -timeout 10m -v ./test/limits | grep -v '^=== '

.PHONY: generate
generate: ## Makes anew what is generated: deepcopy, CRDs, schemas, the reference.
	@hack/generate.sh

.PHONY: golden
golden: ## Rewrites the golden files; read the diff.
	go test ./controllers/translate -update

.PHONY: test
test: ## Runs all tests, up to conformance and end to end in a real Kubernetes (Linux, root; some 15 minutes, and 20 more to build it all the first time).
	@hack/test.sh

.PHONY: race
race: ## The data plane's tests under the race detector.
	CGO_ENABLED=1 go test -race ./dataplane/... ./test/churn/...

.PHONY: fuzz
fuzz: ## Fuzzes each target for FUZZTIME (5s).
	@FUZZTIME=$(FUZZTIME) hack/fuzz.sh

.PHONY: bench
bench: build ## CPU per request beside nginx and HAProxy, in one run.
	@hack/bench/run.sh

.PHONY: lint
lint: ## staticcheck.
	$(TOOL) staticcheck ./...

.PHONY: verify
verify: ## Generation leaves no diff, go mod tidy, gofmt, vet, the linter, the layout, known vulnerabilities.
	@hack/verify.sh
