// Cluster API's own manager and what it needs on an API server. This file pins the version;
// tools/manager.sh builds the manager with the dependencies that it pins itself.
module github.com/bowline-dev/bowline/tools/capi

go 1.26.0

require sigs.k8s.io/cluster-api v1.13.6
