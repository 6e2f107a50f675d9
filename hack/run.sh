#!/usr/bin/env bash
# make run: two small backends and Gatehouse on config/samples, until Ctrl-C. Usage: hack/run.sh [further arguments of gatehouse run]
set -euo pipefail
cd "$(dirname "$0")/.."

pids=()
stop() {
	trap - EXIT INT TERM
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	wait
}
trap stop EXIT INT TERM

bin/backend -name blue -listen 127.0.0.1:9001 & pids+=($!)
bin/backend -name green -listen 127.0.0.1:9002 & pids+=($!)
bin/gatehouse run -f config/samples --access-log=- --drain-delay=0s "$@" & gatehouse=$!
pids+=("$gatehouse")

for _ in $(seq 100); do
	kill -0 "$gatehouse" 2>/dev/null || { wait "$gatehouse"; exit 1; }
	curl -fso /dev/null http://127.0.0.1:8081/readyz 2>/dev/null && break
	sleep 0.1
done

cat <<'TEXT'

Gatehouse is up. Try:

  curl localhost:8080/                              # again and again: both colours answer
  curl -H 'x-canary: 1' localhost:8080/             # always green
  curl -i localhost:8080/basket/42                  # 301 to /cart/42
  for i in 1 2 3 4 5 6; do curl -i localhost:8080/checkout; done   # the sixth: 429 with Retry-After

  curl localhost:8081/metrics                       # also /healthz, /readyz
  curl localhost:8082/snapshot                      # what is served, as text

Edit a file in config/samples and save it: the change serves at once. Ctrl-C ends it.

TEXT
wait "$gatehouse"
