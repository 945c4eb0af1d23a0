#!/usr/bin/env bash
# Builds the manager of a Cluster API provider from its published module: manager.sh PIN FILE,
# where PIN is the folder that pins the module.
#
# The manager has no flag for the address that its webhooks listen at: it would be open to the
# whole network. Ours runs beside the API server that calls it, so it is built in a copy of
# the module that listens on loopback; nothing else differs.
set -euo pipefail
out=$(realpath -m "${2:?usage: manager.sh PIN FILE}")
cd "$1"

module=$(awk '$1 == "require" { print $2 }' go.mod)
go mod download "$module"
read -r version dir < <(go list -m -f '{{.Version}} {{.Dir}}' "$module")
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r --no-preserve=mode "$dir/." "$copy"
cd "$copy"

sed -i 's/^\(\s*\)Port: *webhookPort,$/\1Host: "127.0.0.1",\n&/' main.go
[ "$(grep -c '^\s*Host: "127.0.0.1",$' main.go)" = 1 ] || {
	echo "$module $version: main.go sets up its webhooks in another way; look at it and change ${0##*/}" >&2
	exit 1
}
CGO_ENABLED=0 go build -trimpath -p "${P:-$(nproc)}" -ldflags "-s -w -X $module/version.gitVersion=$version" -o "$out" .
