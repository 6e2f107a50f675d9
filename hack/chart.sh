#!/usr/bin/env bash
# chart.sh         makes anew what is made for and from charts/gatehouse: its copies of our CRDs, the table in its README, config/rbac and config/default.
# chart.sh test    tests the chart with a real helm and a real API server, both built once and cached.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOTOOLCHAIN=auto GOFLAGS=-buildvcs=false

hack/helm.sh >/dev/null
case ${1-} in
"") go test -count=1 -tags chart ./test/chart -update -run 'Readme|OurCRDs|Config' ;;
test)
	hack/kube/build.sh >/dev/null
	go vet -tags chart ./test/chart
	go test -count=1 -tags chart ./test/chart ;;
*) echo "usage: hack/chart.sh [test]" >&2; exit 2 ;;
esac
