#!/usr/bin/env bash
# Go benchmarks of the data plane, before and after: those of another state of the tree beside those of the files as they lie here.
# Usage: hack/bench.sh REF [regular expression of benchmarks]   ROUNDS=6 BENCHTIME=200ms PACKAGES=dataplane
# The two take turns, round by round, so that whatever else the machine does meets both. A benchmark that only one has is shown alone.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOTOOLCHAIN=auto GOFLAGS=-buildvcs=false

ref=${1:?usage: hack/bench.sh REF [regular expression of benchmarks]}
pattern=${2:-.}
here=$PWD
work=$(mktemp -d)
clean() {
	git worktree remove --force "$work/tree" 2>/dev/null || true
	rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM

git worktree add --quiet --detach "$work/tree" "$ref"

# build compiles the tests of each package that has benchmarks, in the tree $1, into $work/$2, one directory per package.
build() {
	local package
	cd "$1"
	for package in $(grep -rlE --include='*_test.go' '^func Benchmark' "${PACKAGES:-dataplane}" | xargs -r -n1 dirname | sort -u); do
		mkdir -p "$work/$2/$package"
		go test -c -o "$work/$2/$package/bench.test" "./$package"
	done
	cd "$here"
}

# measure runs them once, each in its package's directory, where it finds its test data.
measure() {
	local tree=$1 name=$2 test
	while read -r test; do
		(cd "$tree/$(dirname "${test#"$work/$name/"}")" &&
			"$test" -test.run '^$' -test.bench "$pattern" -test.benchmem -test.benchtime "${BENCHTIME:-200ms}") >>"$work/$name.txt"
	done < <(find "$work/$name" -name bench.test | sort)
}

mkdir "$work/before" "$work/after"
build "$work/tree" before
build "$here" after
: >"$work/before.txt" >"$work/after.txt"
for round in $(seq "${ROUNDS:-6}"); do
	echo "round $round" >&2
	measure "$work/tree" before
	measure "$here" after
done
go tool -modfile=hack/tools/go.mod benchstat "before=$work/before.txt" "after=$work/after.txt"
