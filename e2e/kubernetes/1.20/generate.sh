#!/bin/bash
# The API server of Kubernetes before 1.24 needs a file that is not part of its module, because the
# build of Kubernetes generates it: the OpenAPI definitions of all types.
#
# Usage: generate.sh DIR. Copies Kubernetes into the empty folder DIR, generates the file there, and
# writes DIR/go.mod for `go build -modfile`, which replaces Kubernetes by the copy.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")"
copy=$1/k8s.io/kubernetes

mkdir --parents "$(dirname "$copy")"
go mod download k8s.io/kubernetes
cp --recursive "$(go list -m -f '{{.Dir}}' k8s.io/kubernetes)" "$copy"
chmod --recursive u+w "$copy"

# The packages whose types are part of the API have a comment for the generator.
packages=$(go list -deps -f '{{.ImportPath}} {{.Dir}}' k8s.io/kubernetes/cmd/kube-apiserver |
	while read -r package dir; do
		! grep -qsE '^// *\+k8s:openapi-gen=(true|package)' "$dir"/*.go || echo "$package"
	done | paste -sd,)
go tool openapi-gen --input-dirs "$packages" --go-header-file /dev/null --report-filename /dev/null \
	--output-base "$1" --output-package k8s.io/kubernetes/pkg/generated/openapi --output-file-base zz_generated.openapi

cp go.mod go.sum "$1"
go mod edit -replace "k8s.io/kubernetes=$copy" "$1/go.mod"
