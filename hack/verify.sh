#!/usr/bin/env bash
# make verify: what a reviewer would otherwise have to check by hand. Each step says its name and how long it took.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOTOOLCHAIN=auto GOFLAGS=-buildvcs=false

step() {
	local name=$1 start=$SECONDS
	shift
	"$@" || { echo "verify: $name failed" >&2; exit 1; }
	echo "verify: $name: ok ($((SECONDS - start))s)"
}

formatted() {
	local bad
	bad=$(git ls-files '*.go' | xargs gofmt -l)
	[ -z "$bad" ] || { echo "not formatted by gofmt: $bad" >&2; return 1; }
}

# Generation must leave everything as it is committed.
generated() {
	hack/generate.sh
	git diff --exit-code -- api config charts controllers/source/schemas
}

vulnerabilities() {
	local out
	if out=$(go tool -modfile=hack/tools/go.mod govulncheck ./... 2>&1); then
		return 0
	fi
	if grep -qiE 'no such host|dial tcp|connection refused|forbidden|fetching vulnerabilities|i/o timeout' <<<"$out"; then
		echo "verify: govulncheck skipped: its database cannot be reached from here"
		return 0
	fi
	echo "$out" >&2
	return 1
}

# The modules of tests that need more than the product.
tidy() {
	local dir
	for dir in . test/conformance test/login; do
		env -C "$dir" go mod tidy -diff || { echo "go mod tidy in $dir" >&2; return 1; }
	done
}

step format formatted
step generate generated
step tidy tidy
step vet go vet ./...
step layout go test -count=1 ./test/layout
step lint go tool -modfile=hack/tools/go.mod staticcheck ./...
step vulnerabilities vulnerabilities
