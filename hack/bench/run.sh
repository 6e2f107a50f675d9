#!/usr/bin/env bash
# make bench: CPU time per request of Gatehouse, nginx and HAProxy in one run; the figures go to hack/bench/README.md. It takes about
# four minutes, and wants a machine that does nothing else. Usage: hack/bench/run.sh [flags; -h lists them]
set -euo pipefail
cd "$(dirname "$0")/../.."
export GOTOOLCHAIN=auto GOFLAGS=-buildvcs=false PATH=$PATH:/usr/sbin # where Debian keeps nginx and haproxy

die() { echo "hack/bench/run.sh: $*" >&2; exit 1; }

# install keeps Debian's packages from starting services meanwhile: we start the proxies ourselves, with our configuration.
policy=/usr/sbin/policy-rc.d
install() {
	command -v apt-get >/dev/null || die "please install $* by hand"
	[ "$(id -u)" = 0 ] || die "root is needed once, for: apt-get install $*"
	if [ ! -e $policy ]; then
		trap 'rm -f $policy' EXIT
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod 755 $policy
	fi
	local code=0 log
	$policy nginx start >/dev/null 2>&1 || code=$?
	[ $code = 101 ] || die "$policy may let services start; please install $* by hand"
	echo "installing $*" >&2
	log=$(apt-get update 2>&1 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" 2>&1) || die "$log"
}

missing=()
for want in nginx:nginx-light haproxy:haproxy wrk:wrk h2load:nghttp2-client; do
	command -v "${want%%:*}" >/dev/null || missing+=("${want#*:}")
done
[ ${#missing[@]} = 0 ] || (install "${missing[@]}") # a shell of its own, so that its trap ends with it

go build -o bin/bench ./hack/bench
exec bin/bench "$@"
