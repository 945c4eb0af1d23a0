package cli

import (
	"context"
	"fmt"
	"os"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/source/git"
)

// preview shows what the engine would change on the cluster, by its own pipeline.
func (m *migration) preview(ctx context.Context) (string, error) {
	var list kustomizev1.KustomizationList
	if err := m.cluster.List(ctx, &list); err != nil {
		return "", fmt.Errorf("read the Kustomizations: %w", err)
	}
	dir, err := os.MkdirTemp("", "bowline-migrate-")
	if err != nil {
		return "", &failure.Error{Op: "make folder", Object: os.TempDir(), Kind: failure.Denied, Err: err}
	}
	defer func() { _ = os.RemoveAll(dir) }()
	store, err := git.New(git.Options{DataDir: dir})
	if err != nil {
		return "", err
	}
	defer store.Close()
	o := &diffOptions{budget: "off", noRemoteBases: m.settings["no-remote-bases"] == "true", store: store,
		strictSubstitute: !strings.Contains(m.settings["feature-gates"], "StrictPostBuildSubstitutions=false")}
	if o.ageSecret, err = nameOfOwn("sops-age-secret", m.settings["sops-age-secret"], m.options.fluxNamespace); err != nil {
		return "", err
	}
	objects, digests := 0, 0
	for i := range list.Items {
		k := &list.Items[i]
		entries, _ := report.Entries(k.Status.Inventory)
		objects += len(entries)
		digests += m.previewOne(ctx, o, k)
	}
	if m.changes+m.unseen > 0 {
		return fmt.Sprintf("%s would change, %s could not be looked at", count(m.changes, "object"), count(m.unseen, "Kustomization")), nil
	}
	line := fmt.Sprintf("nothing: %s with %s stay as they are", count(len(list.Items), "Kustomization"), count(objects, "object"))
	if digests > 0 {
		line += fmt.Sprintf("; up to %d get an annotation, the digest of what is applied", digests)
	}
	return line, nil
}

// previewOne prints what would change for one Kustomization, and returns how many
// objects would get nothing but the digest.
func (m *migration) previewOne(ctx context.Context, o *diffOptions, k *kustomizev1.Kustomization) (digests int) {
	name := "kustomization/" + k.Namespace + "/" + k.Name
	if k.Spec.Suspend {
		printf(m.Out, "  %s is suspended, and stays so\n", name)
		return 0
	}
	if k.Spec.ServiceAccountName == "" {
		k.Spec.ServiceAccountName = m.settings["default-service-account"]
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the watches of its ledger end with it
	scoped := *m.cluster
	scoped.namespace = k.Namespace
	p, err := scoped.previewOf(ctx, o, k)
	if err != nil {
		m.unseen++
		printf(m.Out, "  %s cannot be looked at: %s\n", name, oneLine(explain(err)))
		return 0
	}
	shown, err := m.printDifferences(p)
	m.changes += shown
	switch {
	case err != nil:
		m.unseen++
		printf(m.Out, "  %s could not be delivered: %s\n", name, oneLine(err))
	case shown > 0:
		printf(m.Out, "  %s: %s would change\n", name, count(shown, "object"))
	default:
		printf(m.Out, "  %s: nothing would change\n", name)
	}
	return len(p.differences) - shown
}
