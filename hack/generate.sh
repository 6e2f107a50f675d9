#!/bin/sh
# Generates all that is made from something else in the tree. Running it twice changes nothing; `make verify` relies on it.
#
#   api/v1alpha1/*.go  →  api/v1alpha1/zz_generated.deepcopy.go, config/crd/*.yaml, config/crd/README.md
#   config/crd/*.yaml  →  charts/gatehouse/files/crds (what else the chart has of the tree: hack/chart.sh)
#   config/crd/*.yaml and the Gateway API module's CRDs (standard channel)  →  controllers/source/schemas/*.json
#
# The tools are built from hack/tools/go.mod, whose versions are pinned there and nowhere else.
set -eu
cd "$(dirname "$0")/.."
export GOTOOLCHAIN="${GOTOOLCHAIN:-auto}"

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
echo "generate: building the tools (the first time takes half a minute)" >&2
(cd hack/tools && GOFLAGS=-mod=readonly go build -o "$tools/" sigs.k8s.io/controller-tools/cmd/controller-gen github.com/elastic/crd-ref-docs)

echo "generate: deepcopy and CRDs" >&2
mkdir "$tools/crds"
"$tools/controller-gen" object paths=./api/... crd output:crd:artifacts:config="$tools/crds"
# The Gateway API marks what its Go types say to implementers only; its own generator leaves that out of CRDs, too.
for crd in "$tools"/crds/*.yaml; do
	sed -i '/<gateway:util:excludeFromCRD>/,/<\/gateway:util:excludeFromCRD>/d' "$crd"
done
for old in config/crd/*.yaml; do # none is missing for a moment: others may be reading
	[ -e "$tools/crds/${old##*/}" ] || rm "$old"
done
cp "$tools"/crds/*.yaml config/crd/

cp config/crd/*.yaml charts/gatehouse/files/crds/

echo "generate: schemas of controllers/source" >&2
gatewayapi=$(go list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)
if [ -z "$gatewayapi" ]; then
	go mod download sigs.k8s.io/gateway-api
	gatewayapi=$(go list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)
fi
go run ./hack/generate -out controllers/source/schemas "$gatewayapi/config/crd/standard" config/crd

echo "generate: reference of our kinds" >&2
"$tools/crd-ref-docs" --source-path=api --config=hack/generate/crd-ref-docs.yaml --renderer=markdown \
	--output-path=config/crd/README.md --log-level=ERROR
