#!/usr/bin/env bash
# helm.sh   builds Helm from source, out of the Go module proxy, and prints where the program is.
#
# stdout is the path of the program and nothing else; what happens is told on stderr. What is there already isn't built
# again: then the script answers at once. It is built once per version, into the user's cache; two who need it at the same
# time build it once, and it appears whole or not at all.
set -euo pipefail

HELM=v4.3.1
# That of hack/kube/build.sh, so that they share Go's build cache: both compile client-go.
TOOLCHAIN=go1.27.0

say() { echo "hack/helm: $*" >&2; }

home=${XDG_CACHE_HOME:-${HOME:?is not set, and XDG_CACHE_HOME neither: where is the cache?}/.cache}/gatehouse/helm/$HELM
if [ -x "$home/helm" ]; then echo "$home/helm"; exit; fi

for tool in go flock setsid; do
	command -v $tool >/dev/null || { say "needs $tool in the PATH"; exit 1; }
done
mkdir -p "$home"
exec 9>"$home/lock"
if ! flock -n 9; then
	say "another build is on its way; waiting for it"
	flock 9
	if [ -x "$home/helm" ]; then echo "$home/helm"; exit; fi
fi
rm -rf "$home"/work.* # left by a script that was killed

compiler=
work=$(mktemp -d "$home/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'if [ -n "$compiler" ]; then kill -- -$compiler 2>/dev/null; fi; exit 130' INT TERM HUP
mkdir "$work/tmp"

export GOTOOLCHAIN=$TOOLCHAIN+auto GOWORK=off GOFLAGS=-buildvcs=false CGO_ENABLED=0 GOBIN=$work GOTMPDIR=$work/tmp
unset GOOS GOARCH GOROOT
say "building Helm $HELM into $home; the first time this takes two minutes on two cores"
began=$SECONDS told=0
setsid nice -n 10 go install -trimpath -ldflags "-s -w" "helm.sh/helm/v4/cmd/helm@$HELM" >&2 &
compiler=$! # and the number of its process group
while kill -0 $compiler 2>/dev/null; do
	sleep 0.5
	if (( SECONDS - began >= told + 30 )); then
		told=$((SECONDS - began)); say "still compiling, ${told} s"
	fi
done
wait $compiler || { say "go install failed (see above)"; exit 1; }
compiler=
mv "$work/helm" "$home/helm"
say "done, $((SECONDS - began)) s"
echo "$home/helm"
