#!/usr/bin/env bash
# Builds the flux executable from its published module: build.sh FILE
#
# The module lacks the install manifests that the executable embeds, which its
# release process makes. So it is built in a copy with a file in their place:
# everything but `flux install` and `flux bootstrap` without --export is as released.
set -euo pipefail
out=$(realpath -m "${1:?usage: build.sh FILE}")
cd "$(dirname "$0")"

go mod download github.com/fluxcd/flux2/v2
read -r version dir < <(go list -m -f '{{.Version}} {{.Dir}}' github.com/fluxcd/flux2/v2)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r --no-preserve=mode "$dir/." "$copy"
mkdir -p "$copy/cmd/flux/manifests"
echo "# made by the release process, absent from the module" >"$copy/cmd/flux/manifests/none.yaml"

cd "$copy"
CGO_ENABLED=0 go build -trimpath -p "${P:-$(nproc)}" -ldflags "-s -w -X main.VERSION=${version#v}" -o "$out" ./cmd/flux
