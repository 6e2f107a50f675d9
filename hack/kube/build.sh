#!/usr/bin/env bash
# build.sh [NAME...]   builds Kubernetes from source, out of the Go module proxy, and prints where the binaries are.
#
# NAME: kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl etcd,
# "echo" for the server that the conformance suite's pods run (echo-basic-<version>),
# "control" for what a control plane needs (the default), or "cluster" for all of it.
#
# stdout is the directory of the binaries and nothing else; what happens is told on stderr.
# What is there already isn't built again: then the script answers at once and says nothing.
# The Go package beside this file embeds the script and runs it through `bash -c`:
# keep everything that it needs inside of it.
set -euo pipefail

KUBERNETES=v1.37.2
ETCD=v3.7.3
# v0.2.0, which the suite asks for, can't be had; this one has the same server.
ECHO=v0.1.0
# Newer than Kubernetes asks for, and the product's own: so a build from a shell (where `go` may be
# older) and one from `go test` (where `go` is the product's) share one build cache.
TOOLCHAIN=go1.27.0

say() { echo "hack/kube: $*" >&2; }
die() { say "$*"; exit 1; }

# package NAME prints what to build for it.
package() {
	case $1 in
	kube-apiserver | kube-controller-manager | kube-scheduler | kubelet | kube-proxy | kubectl)
		echo "k8s.io/kubernetes/cmd/$1" ;;
	etcd) echo go.etcd.io/etcd/server/v3 ;;
	"echo-basic-$ECHO") echo sigs.k8s.io/gateway-api-conformance-images/echo-basic ;;
	*) return 1 ;;
	esac
}

# missing NAME... prints those that are not in $bin.
missing() {
	local name
	for name; do [ -x "$bin/$name" ] || echo "$name"; done
}

# kubernetes_module makes the module to build Kubernetes in. k8s.io/kubernetes can't be used as it
# is: it replaces its staging modules by directories that the module zip doesn't have. They are
# published under v0.<minor>.<patch>, so our module replaces them by those.
kubernetes_module() {
	local gomod staging module name
	go mod download "k8s.io/kubernetes@$KUBERNETES" || return
	gomod=$(go env GOMODCACHE)/cache/download/k8s.io/kubernetes/@v/$KUBERNETES.mod
	staging=$(awk '/=> \.\/staging\//{print $1}' "$gomod") || return
	[ -n "$staging" ] || { say "k8s.io/kubernetes $KUBERNETES replaces no staging modules: has its go.mod changed?"; return 1; }
	cat <<-MOD
		module kubernetes.build
		go 1.26.0
		toolchain $TOOLCHAIN
		godebug default=go1.26
		require k8s.io/kubernetes $KUBERNETES
	MOD
	for module in $staging; do echo "replace $module => $module v0.${KUBERNETES#v1.}"; done
	for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
		echo "tool $(package $name)"
	done
}

etcd_module() {
	cat <<-MOD
		module etcd.build
		go 1.26.0
		toolchain $TOOLCHAIN
		require go.etcd.io/etcd/server/v3 $ETCD
		tool $(package etcd)
	MOD
}

# echo_module names its version in a go.mod, since `go install path@version` looks up the list of all versions, which can't be had.
echo_module() {
	cat <<-MOD
		module echo.build
		go 1.26.0
		toolchain $TOOLCHAIN
		require sigs.k8s.io/gateway-api-conformance-images $ECHO
		tool $(package "echo-basic-$ECHO")
	MOD
}

# build MAKER NAME... builds what is named in the module that MAKER writes. (Behind && and || bash
# ignores `set -e`, so the makers say themselves that they have failed.)
build() {
	local maker=$1 log=$work/fetch.log name; shift
	say "fetching modules"
	mkdir "$work/$maker"; cd "$work/$maker"
	# go.mod appears only when it is whole: the maker calls go, which would read it.
	if ! { $maker >whole && mv whole go.mod && go mod tidy; } 2>"$log"; then
		cat "$log"
		die "can't fetch the modules (see above)"
	fi
	for name; do compile "$name"; done
}

# compile NAME puts a static binary into $bin, all of it or nothing. The wait is a loop so that one
# sees that it goes on; the session of its own is so that a signal ends go with its compilers and linker.
compile() {
	local began=$SECONDS told=0 v=k8s.io/component-base/version minor=${KUBERNETES#v1.}
	local flags="-s -w -X $v.gitVersion=$KUBERNETES -X $v.gitMajor=1 -X $v.gitMinor=${minor%%.*}
		-X $v.gitTreeState=clean -X $v.gitCommit=0000000000000000000000000000000000000000 -X $v.buildDate=2026-01-01T00:00:00Z"
	say "$1: compiling"
	setsid nice -n 10 go build -trimpath -ldflags "${flags//$'\n'/ }" -o "$work/$1" "$(package "$1")" &
	compiler=$! # and the number of its process group
	while kill -0 $compiler 2>/dev/null; do
		sleep 0.5
		if (( SECONDS - began >= told + 30 )); then
			told=$((SECONDS - began)); say "$1: still compiling, ${told} s"
		fi
	done
	wait $compiler || die "$1: go build failed (see above)"
	compiler=
	mv "$work/$1" "$bin/$1"
	say "$1: done, $((SECONDS - began)) s"
}

[ "$(uname -s)" = Linux ] || die "needs Linux (this is $(uname -s)): run it in a Linux container or virtual machine"

names=()
for arg in "${@:-control}"; do
	case $arg in
	control) names+=(etcd kube-apiserver kubectl) ;;
	cluster) names+=(etcd kube-apiserver kubectl kube-controller-manager kube-scheduler kubelet kube-proxy "echo-basic-$ECHO") ;;
	echo) names+=("echo-basic-$ECHO") ;;
	*) package "$arg" >/dev/null || die "no such thing to build: $arg"; names+=("$arg") ;;
	esac
done

home=${XDG_CACHE_HOME:-${HOME:?is not set, and XDG_CACHE_HOME neither: where is the cache?}/.cache}/gatehouse/kube/$KUBERNETES-etcd-$ETCD
bin=$home/bin
todo=$(missing "${names[@]}")
if [ -z "$todo" ]; then echo "$bin"; exit; fi

for tool in go flock setsid awk; do
	command -v $tool >/dev/null || die "needs $tool in the PATH"
done
mkdir -p "$bin"
# One builder at a time. Whoever waited for another finds the work done. A compiler that outlives
# its script (SIGKILL) keeps the lock, on purpose.
exec 9>"$home/lock"
if ! flock -n 9; then
	say "another build is on its way; waiting for it"
	flock 9
	todo=$(missing "${names[@]}")
	if [ -z "$todo" ]; then echo "$bin"; exit; fi
fi
rm -rf "$home"/work.* # left by a script that was killed

export GOTOOLCHAIN=auto GOWORK=off GOFLAGS='-mod=mod -buildvcs=false' CGO_ENABLED=0
unset GOOS GOARCH GOROOT
compiler=
work=$(mktemp -d "$home/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'if [ -n "$compiler" ]; then kill -- -$compiler 2>/dev/null; fi; exit 130' INT TERM HUP
mkdir "$work/tmp"; export GOTMPDIR=$work/tmp # the linker's intermediate files: gone with the rest, whatever happens

say "building $(echo $todo) (Kubernetes $KUBERNETES, etcd $ETCD) into $bin"
say "the first time this takes 4 to 6 minutes on two cores (8 for a whole cluster), 3 GB of memory, and 5 GB for Go's caches"
{
	if grep -qx etcd <<<"$todo"; then build etcd_module etcd; fi
	if grep -q ^echo- <<<"$todo"; then build echo_module "echo-basic-$ECHO"; fi
	kubernetes=$(grep -vx -e etcd -e 'echo-.*' <<<"$todo" || true)
	if [ -n "$kubernetes" ]; then build kubernetes_module $kubernetes; fi
} >&2
echo "$bin"
