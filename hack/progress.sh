#!/usr/bin/env bash
# Runs a command and, where it takes long, says every ten seconds that it still does. Usage: hack/progress.sh command...
set -u
"$@" &
pid=$!
trap 'kill "$pid" 2>/dev/null' INT TERM
(
	n=0
	while sleep 10 && kill -0 "$pid" 2>/dev/null; do n=$((n + 10)); echo "  … ${n}s" >&2; done
) 2>/dev/null &
ticker=$!
wait "$pid"
code=$?
kill "$ticker" 2>/dev/null
wait "$ticker" 2>/dev/null
exit "$code"
