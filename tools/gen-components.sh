#!/usr/bin/env bash
# Prints what a Cluster API provider needs on an API server, from its published module:
# gen-components.sh PIN, where PIN is the folder that pins the module.
set -euo pipefail
cd "$(dirname "$0")/.."
pin=${1:?usage: gen-components.sh PIN}

module=$(awk '$1 == "require" { print $2 }' "$pin/go.mod")
(cd "$pin" && go mod download "$module")
read -r version dir < <(cd "$pin" && go list -m -f '{{.Version}} {{.Dir}}' "$module")
echo "# Made by tools/gen-components.sh from $module $version: do not edit."
go run ./internal/fleet/capi/install/cmd/components "$dir"
