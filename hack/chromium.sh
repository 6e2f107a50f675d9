#!/usr/bin/env bash
# chromium.sh   prints where a browser and its driver are: Debian's Chromium and chromedriver, which it installs when they are missing.
#
# stdout is two lines, the browser and the driver; what happens is told on stderr. CHROMIUM and CHROMEDRIVER name others.
set -euo pipefail

say() { echo "hack/chromium: $*" >&2; }

browser() { echo "${CHROMIUM:-$(command -v chromium || command -v chromium-browser || true)}"; }
driver() { echo "${CHROMEDRIVER:-$(command -v chromedriver || true)}"; }

if [ -z "$(browser)" ] || [ -z "$(driver)" ]; then
	command -v apt-get >/dev/null || { say "there is no Chromium with chromedriver, and no apt-get to install them: set CHROMIUM and CHROMEDRIVER"; exit 1; }
	[ "$(id -u)" = 0 ] || { say "install Chromium and its driver: sudo apt-get install chromium chromium-driver"; exit 1; }
	say "installing chromium and chromium-driver"
	exec 9>/var/lock/gatehouse-chromium
	flock 9
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq >&2
	apt-get install -y -qq --no-install-recommends chromium chromium-driver >&2
fi
[ -x "$(browser)" ] && [ -x "$(driver)" ] || { say "$(browser) or $(driver) is no program"; exit 1; }
browser
driver
