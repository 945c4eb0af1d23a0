#!/usr/bin/env bash
# Builds the helm executable from its published module: build.sh FILE
set -euo pipefail
out=$(realpath -m "${1:?usage: build.sh FILE}")
cd "$(dirname "$0")"

go mod download helm.sh/helm/v4
read -r version dir < <(go list -m -f '{{.Version}} {{.Dir}}' helm.sh/helm/v4)

cd "$dir"
CGO_ENABLED=0 go build -trimpath -p "${P:-$(nproc)}" -ldflags "-s -w -X helm.sh/helm/v4/internal/version.version=$version" -o "$out" ./cmd/helm
