#!/usr/bin/env bash
# Prints the folder that holds redis-server and redis-sentinel, and installs Debian's where they are missing, without starting a service:
# tests start servers of their own, on free ports, and stop them. GATEHOUSE_REDIS names a folder with others (such as Valkey under
# these names).
set -euo pipefail

die() { echo "hack/redis.sh: $*" >&2; exit 1; }

found() {
	command -v redis-server >/dev/null && command -v redis-sentinel >/dev/null
}

if [ -n "${GATEHOUSE_REDIS:-}" ]; then
	[ -x "$GATEHOUSE_REDIS/redis-server" ] || die "there is no redis-server in $GATEHOUSE_REDIS"
	echo "$GATEHOUSE_REDIS"
	exit
fi

# One at a time: tests of several packages may ask at once.
exec 9>"${TMPDIR:-/tmp}/gatehouse-redis.lock"
flock 9

policy=/usr/sbin/policy-rc.d
if ! found; then
	command -v apt-get >/dev/null || die "please install redis-server and redis-sentinel by hand"
	[ "$(id -u)" = 0 ] || die "root is needed once, for: apt-get install redis-server redis-sentinel"
	if [ ! -e $policy ]; then
		trap 'rm -f $policy' EXIT
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod 755 $policy
	fi
	code=0
	$policy redis-server start >/dev/null 2>&1 || code=$?
	[ $code = 101 ] || die "$policy may let services start; please install redis-server and redis-sentinel by hand"
	echo "installing redis-server and redis-sentinel" >&2
	log=$(apt-get update 2>&1 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends redis-server redis-sentinel 2>&1) || die "$log"
	found || die "redis-server is not there after its installation"
fi
dirname "$(command -v redis-server)"
