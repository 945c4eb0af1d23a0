package controller

import (
	"context"
	"strings"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/artifactserve"
	"github.com/bowline-dev/bowline/internal/source"
)

// published is what the statuses of sources say of their artifacts.
type published struct {
	// server is nil where artifacts are not served to others.
	server *artifactserve.Server
	log    logr.Logger
}

// status describes an artifact in the status of its source, and makes it available to
// others. before is what the status said: the time of the last update stays while the
// artifact is the same. Where artifacts are served this reads the whole tree, once for each
// content; so it comes after everybody here has the artifact.
func (p *published) status(ctx context.Context, key sourceKey, a source.Artifact, before *meta.Artifact, now time.Time) *meta.Artifact {
	status := described(key, a, now)
	if p.server != nil {
		entry, err := p.server.Publish(ctx, key.Kind, key.NamespacedName, a)
		if err != nil {
			p.log.Error(err, "artifact cannot be served", "source", key.String(), "revision", a.Revision)
		} else {
			status.URL, status.Path, status.Digest, status.Size = entry.URL, entry.Path, entry.Digest, &entry.Size
		}
	}
	if same(before, status) {
		status.LastUpdateTime = before.LastUpdateTime
	}
	return status
}

// statusOfFile is status for an artifact that is handed out to others as a file that lies somewhere.
func (p *published) statusOfFile(key sourceKey, a source.Artifact, f artifactserve.File, before *meta.Artifact, now time.Time) *meta.Artifact {
	status := described(key, a, now)
	status.Digest, status.Size = f.Digest, &f.Size
	if p.server != nil {
		entry := p.server.PublishFile(key.Kind, key.NamespacedName, f)
		status.URL, status.Path = entry.URL, entry.Path
	}
	if same(before, status) {
		status.LastUpdateTime = before.LastUpdateTime
	}
	return status
}

// described is what a status says of an artifact that nobody serves.
func described(key sourceKey, a source.Artifact, now time.Time) *meta.Artifact {
	return &meta.Artifact{
		Path:     strings.ToLower(key.Kind) + "/" + key.Namespace + "/" + key.Name,
		Revision: a.Revision, Digest: a.Digest, Metadata: a.Metadata, LastUpdateTime: metav1.NewTime(now.Truncate(time.Second)),
	}
}

// same reports whether two statuses speak of one artifact.
func same(a, b *meta.Artifact) bool {
	return a != nil && b != nil && a.Revision == b.Revision && a.Digest == b.Digest
}

// is reports whether a status speaks of an artifact.
func (p *published) is(ctx context.Context, status *meta.Artifact, a source.Artifact) bool {
	if status == nil || status.Revision != a.Revision {
		return false
	}
	digest := a.Digest
	if p.server != nil {
		if served, err := p.server.Digest(ctx, a); err == nil {
			digest = served
		}
	}
	return status.Digest == digest
}

// withdraw forgets a source that is gone.
func (p *published) withdraw(key sourceKey) {
	if p.server != nil {
		p.server.Withdraw(key.Kind, key.NamespacedName)
	}
}
