// Cluster API's provider for AWS, whose webhooks and definitions judge templates in tests. This
// file pins the version; tools/manager.sh builds it with the dependencies that it pins itself.
module github.com/bowline-dev/bowline/tools/capa

go 1.26.0

require sigs.k8s.io/cluster-api-provider-aws/v2 v2.13.0
