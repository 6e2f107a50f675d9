#!/usr/bin/env bash
# e2e.sh COMMAND   Gatehouse as its users have it: installed by helm into a real Kubernetes (hack/kube), for the tests that need that.
#
#   up                    starts the cluster, applies the Gateway API's CRDs, loads the image of this checkout, installs the chart
#   conformance [FLAG...] up, then the Gateway API's conformance suite: profiles GATEWAY-HTTP and GATEWAY-GRPC, and a table at the end.
#                         -run-test=NAME runs one test; further flags are those of the suite
#   e2e [FLAG...]         up, then test/e2e; flags are those of `go test`, such as -run Rolling
#   soak [FLAG...]        up, then the load of test/e2e for long, while everything changes again and again; -soak=2h says how long (10m)
#   state                 what there is, for whoever looks for a failure: pods, their logs, Gateways and routes
#
# The cluster stays, so that the next run begins in seconds and a failure can be looked at; make cluster-down ends it. CLUSTER names it.
# It needs Linux and root: without them it says so. What Debian has it installs, and Kubernetes and Helm it builds, once.
# Outputs, such as logs and the report of conformance, are left in dist/.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."

export GOTOOLCHAIN=auto GOFLAGS=-buildvcs=false GOWORK=off
namespace=gatehouse-system
version=e2e
chart=${CHART:-charts/gatehouse}

say() { echo "hack/e2e: $*" >&2; }
die() { say "$*"; exit 1; }
inside() { hack/kube/cluster.sh exec "$@"; }

usage() {
	sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' hack/e2e.sh >&2
	exit 2
}

# step says how long its command took. (In what is called before ||, bash ignores `set -e`: such functions tie their commands by &&.)
step() {
	local name=$1 began=$SECONDS
	shift
	"$@" || die "$name failed"
	say "$name: $((SECONDS - began)) s"
}

# --- what is tested

cluster() {
	hack/helm.sh >/dev/null &&
		hack/kube/cluster.sh up
}

image() {
	make --no-print-directory image VERSION=$version >&2 &&
		hack/kube/cluster.sh import "dist/gatehouse-$version.tar"
}

# crds applies those of the module in go.mod, standard channel, and waits until they are served.
crds() {
	local module
	module=$(go list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api) &&
		inside kubectl apply --server-side --force-conflicts -f "$module/config/crd/standard" >/dev/null &&
		inside kubectl wait --for=condition=Established crd --all --timeout=60s >/dev/null
}

# values are the chart's defaults but for where the image is, a pool of which a Gateway may ask for an address, and that streams whose right is
# gone end sooner, so that tests need not wait. The annotation lets pods roll when the program is another one, as its tag stays.
values() {
	cat <<-YAML
		image: {tag: $version, pullPolicy: Never}
		service: {addressPool: [10.97.0.200/29]}
		settings: {streamGrace: 5s}
		podAnnotations: {gatehouse.dev/program: "$(sha256sum bin/gatehouse | cut -c1-16)"}
	YAML
}

install_chart() {
	mkdir -p dist && values >dist/e2e-values.yaml || return
	inside helm upgrade --install gatehouse "$chart" --namespace $namespace --create-namespace \
		--values dist/e2e-values.yaml --wait --timeout 300s >dist/helm.log 2>&1 || { cat dist/helm.log >&2; state; return 1; }
}

up() {
	step "cluster" cluster
	step "image" image
	step "CRDs" crds
	step "helm install" install_chart
}

state() {
	{
		inside kubectl get pods -A -o wide
		inside kubectl -n $namespace describe pods -l app.kubernetes.io/name=gatehouse | sed -n '/^Events/,$p'
		inside kubectl -n $namespace logs -l app.kubernetes.io/name=gatehouse --prefix --tail=40
		inside kubectl get gatewayclasses,gateways,httproutes,grpcroutes -A
		inside kubectl -n $namespace get services,configmaps,leases
	} 2>&1 || true
}

# --- tests

# echo_image gives the node the suite's echo server under the names that the suite's manifests ask for.
echo_image() {
	local suite bin names
	suite=$(env -C test/conformance go list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api/conformance) || return
	names=$(grep -rhoE 'image: [^ ]*/echo-basic:[^ ]+' "$suite/base" "$suite/tests" | awk '{print $2}' | sort -u | paste -sd,) || return
	bin=$(hack/kube/build.sh echo) &&
		go run ./hack/image -o dist/echo.tar -name "$names" "$(ls "$bin"/echo-basic-*)=/echo-basic" &&
		hack/kube/cluster.sh import dist/echo.tar
}

conformance() {
	local log=dist/conformance.log result=0
	up
	step "conformance: echo server" echo_image
	step "conformance: compiled" env -C test/conformance CGO_ENABLED=0 nice go test -c -o "$PWD/dist/conformance.test" .
	say "conformance: runs; its log is $log"
	inside dist/conformance.test -test.v -test.timeout 20m -gateway-class=gatehouse \
		-conformance-profiles=GATEWAY-HTTP,GATEWAY-GRPC -usable-address=10.97.0.201 -unusable-address=192.0.2.1 \
		-table=dist/conformance.txt -report-output=dist/conformance.yaml "$@" >"$log" 2>&1 || result=$?
	if [ -e dist/conformance.txt ]; then cat dist/conformance.txt; else tail -n 40 "$log" >&2; fi
	[ $result = 0 ] || say "failures are told in $log; the cluster stays as it is: hack/e2e.sh state"
	return $result
}

# provider_image gives the node the services of others that the tests let Gatehouse call.
provider_image() {
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o dist/provider ./test/e2e/provider &&
		go run ./hack/image -o dist/provider.tar -name gatehouse-dev/provider:dev dist/provider=/provider &&
		hack/kube/cluster.sh import dist/provider.tar
}

e2e() {
	local redis
	go vet -tags e2e,soak ./test/e2e # the soak test as well, which runs rarely
	redis=$(hack/redis.sh)
	up
	step "e2e: provider" provider_image
	GATEHOUSE_REDIS=$redis GATEHOUSE_E2E_VALUES=$PWD/dist/e2e-values.yaml go test -tags e2e -count=1 -timeout 25m -v "$@" ./test/e2e
}

soak() {
	up
	go test -tags e2e,soak -count=1 -timeout 0 -v -run Soak ./test/e2e "$@"
}

command=${1:-}
[ $# = 0 ] || shift
case $command in
up) up ;;
conformance) rm -f dist/conformance.txt dist/conformance.yaml; conformance "$@" ;;
e2e) e2e "$@" ;;
soak) soak "$@" ;;
state) state ;;
*) usage ;;
esac
