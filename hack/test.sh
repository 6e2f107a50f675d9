#!/usr/bin/env bash
# test.sh [STAGE...]   make test: all tests, in stages that say how long they took; or some, such as "test.sh chart e2e".
#
# It needs Linux and root, for a Kubernetes of its own, and says so at once where it hasn't got them: nothing is skipped. What Debian has it
# installs; what is built from source is built once, and cached.
#
# The last stages share a cluster that is this run's alone. It goes with the run, also with one that fails: then dist/ has its logs.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOTOOLCHAIN=auto GOFLAGS=-buildvcs=false

only=" $* "
for word; do
	case $word in
	needs | programs | unit | race | fuzz | limits | login | chart | cluster | conformance | e2e) ;;
	*) echo "hack/test: no stage $word; there are needs, programs, unit, race, fuzz, limits, login, chart, cluster, conformance and e2e" >&2; exit 2 ;;
	esac
done

# stage NAME COMMAND... runs a stage; the arguments choose it by the first word of its name.
stage() {
	local name=$1 start=$SECONDS
	shift
	[ "$only" = "  " ] || [[ $only == *" ${name%%[ :,]*} "* ]] || return 0
	echo "== $name"
	"$@" || { echo "== $name: FAILED after $((SECONDS - start))s" >&2; exit 1; }
	echo "== $name: $((SECONDS - start))s"
}

programs() {
	hack/kube/build.sh cluster >/dev/null &&
		hack/helm.sh >/dev/null
}

# begin names the cluster after this process, and ends what runs left that could not end theirs.
begin() {
	local old
	for old in "${XDG_CACHE_HOME:-$HOME/.cache}"/gatehouse/clusters/test-*; do
		[ ! -d "$old" ] || kill -0 "${old##*-}" 2>/dev/null || CLUSTER=${old##*/} hack/kube/cluster.sh down
	done
	export CLUSTER=test-$$
	trap end EXIT
}

end() {
	local result=$?
	trap - EXIT
	if [ $result != 0 ] && hack/kube/cluster.sh status >/dev/null 2>&1; then
		rm -rf dist/failed
		hack/kube/cluster.sh logs dist/failed || true
		hack/e2e.sh state >dist/failed/state.txt || true
		echo "== what the cluster was like is in dist/failed: state.txt, and the logs of programs and pods" >&2
	fi
	hack/kube/cluster.sh down
	exit $result
}

stage "needs: what a cluster needs" hack/kube/cluster.sh needs
stage "programs: Kubernetes and Helm, built once and cached" programs
stage "unit, golden, scenario, API server" go test -timeout 15m ./...
stage "race: the data plane under the race detector" env CGO_ENABLED=1 go test -race -timeout 15m ./dataplane/... ./test/churn/...
stage "fuzz: briefly" env FUZZTIME="${FUZZTIME:-3s}" hack/fuzz.sh
stage "limits: many processes, and a real Redis" make -s limits-test
stage "login: a real OpenID provider, in a real browser" make -s login-test
stage "chart: a real helm and a real API server" hack/chart.sh test
stage "cluster: hack/kube itself" go test -tags cluster -count=1 -timeout 10m -run Cluster ./hack/kube
begin
stage "conformance: the Gateway API's own suite" hack/e2e.sh conformance
stage "e2e: under load in that cluster" hack/e2e.sh e2e
