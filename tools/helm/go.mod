// Helm's own command line, which the tests read and change the engine's releases with. This
// file pins its version; build.sh builds it with the dependencies that it pins itself.
module github.com/bowline-dev/bowline/tools/helm

go 1.26.0

require helm.sh/helm/v4 v4.3.1
