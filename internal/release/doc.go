// Package release is the room of Helm's own record of what was installed: it reads
// and writes the release storage, sees who else writes there, says what a release
// needs next, and carries out what only Helm knows: hooks, ownership,
// definitions that come with a chart, and uninstalling.
//
// [Store] is the storage, [Watch] tells of changes in it, [Next] is the pure
// question what is to be done. [Hooks], [Definitions] and [Uninstall] are steps that
// never wait: each call does what can be done now and says in a [Progress] what the
// rest waits for. The decisions behind it are in docs/design/helm.md.
package release

import (
	helmrelease "helm.sh/helm/v4/pkg/release/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Release is one revision of a release in Helm's own terms.
type Release = helmrelease.Release

// Key names a release: the namespace of its storage, and its name.
type Key = types.NamespacedName
