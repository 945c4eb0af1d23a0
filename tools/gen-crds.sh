#!/usr/bin/env bash
# Makes the custom resource definitions of the kinds that Bowline serves from
# their published Go types, and in the folder fleet those of its own kinds.
# Usage: gen-crds.sh CONTROLLER-GEN OUTPUT-DIR
set -euo pipefail

generator=$1
out=$2

# The kinds served, as files named <group>_<plural>.yaml. The packages hold more
# kinds; a definition that no controller serves would only mislead.
served=(
	source.toolkit.fluxcd.io_gitrepositories.yaml
	source.toolkit.fluxcd.io_buckets.yaml
	kustomize.toolkit.fluxcd.io_kustomizations.yaml
	source.toolkit.fluxcd.io_externalartifacts.yaml
	source.toolkit.fluxcd.io_ocirepositories.yaml
	source.extensions.fluxcd.io_artifactgenerators.yaml
	helm.toolkit.fluxcd.io_helmreleases.yaml
	source.toolkit.fluxcd.io_helmrepositories.yaml
	source.toolkit.fluxcd.io_helmcharts.yaml
)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Without descriptions the definitions are a third of their size; `kubectl
# explain` loses prose, not fields.
"$generator" crd:maxDescLen=0 \
	paths=github.com/fluxcd/source-controller/api/v1 \
	paths=github.com/fluxcd/kustomize-controller/api/v1 \
	paths=github.com/fluxcd/source-watcher/api/v2/v1beta1 \
	paths=github.com/fluxcd/helm-controller/api/v2 \
	output:crd:dir="$work"
for file in "${served[@]}"; do
	install -m 0644 "$work/$file" "$out/$file"
done

# Our own kinds keep their descriptions: there is no other place that `kubectl
# explain` could take them from.
mkdir -p "$out/fleet"
"$generator" crd paths=./api/fleet/... output:crd:dir="$out/fleet"

# The kinds of the provider that makes clusters on one machine.
mkdir -p "$out/local"
"$generator" crd:maxDescLen=0 paths=./api/local/... output:crd:dir="$out/local"
