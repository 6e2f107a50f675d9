#!/usr/bin/env bash
# make test: all tests, in stages that say how long they took.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOTOOLCHAIN=auto GOFLAGS=-buildvcs=false

stage() {
	local name=$1 start=$SECONDS
	shift
	echo "== $name"
	"$@"
	echo "== $name: $((SECONDS - start))s"
}

stage "a real API server (built once, cached)" sh -c "hack/kube/build.sh >/dev/null"
stage "unit, golden, scenario, API server" go test -timeout 15m ./...
stage "race detector: the data plane" env CGO_ENABLED=1 go test -race -timeout 15m ./dataplane/... ./test/churn/...
stage "fuzz, briefly" env FUZZTIME="${FUZZTIME:-3s}" hack/fuzz.sh
