package controller

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
	helmchart "github.com/bowline-dev/bowline/internal/source/chart"
)

// Reasons for which there is no chart, as the toolkit's users know them.
const (
	reasonChartReference    = "InvalidChartReference"
	reasonChartPull         = "ChartPullError"
	reasonMetadataPatch     = "MetadataPatchError"
	reasonValuesFiles       = "ValuesFilesError"
	reasonDependencyBuild   = "DependencyBuildError"
	reasonChartPackage      = "ChartPackageError"
	reasonChartVerification = "ChartVerificationError"
	reasonSourceUnavailable = "SourceUnavailable"
	reasonNoSourceArtifact  = "NoSourceArtifact"
)

// chartError is a failure with the reason to give. One of building comes after the chart was found.
type chartError struct {
	reason   string
	building bool
	err      error
}

func (e *chartError) Error() string { return e.err.Error() }

func (e *chartError) Unwrap() error { return e.err }

func fetching(reason string, err error) error {
	var already *chartError
	if err == nil || errors.As(err, &already) {
		return err
	}
	return &chartError{reason, false, err}
}

func building(reason string, err error) error {
	if err == nil {
		return nil
	}
	return &chartError{reason, true, err}
}

// passingError says that a source has nothing yet and that this is nothing out of the ordinary.
type passingError struct{ why string }

func (e *passingError) Error() string { return e.why }

// make finds the chart that is wanted and returns it; where that is the one which is held, nothing is fetched.
func (r *helmCharts) make(ctx context.Context, hc *sourcev1.HelmChart, held madeChart, has bool) (madeChart, error) {
	if !has || hc.Generation != held.given.For {
		// Another spec: nothing that was made for the last one counts, also after a failure to make anything
		// for this one, which is observed all the same.
		held = madeChart{}
	}
	if hc.Spec.SourceRef.Kind == sourcev1.HelmRepositoryKind {
		return r.fromRepository(ctx, hc, held)
	}
	if err := unsigned(hc); err != nil {
		return madeChart{}, err
	}
	return r.fromTree(ctx, hc, held)
}

// fromRepository makes a chart of one in a Helm repository.
func (r *helmCharts) fromRepository(ctx context.Context, hc *sourcev1.HelmChart, held madeChart) (madeChart, error) {
	key := chartSource(hc)
	repo := &sourcev1.HelmRepository{}
	err := r.client.Get(ctx, key.NamespacedName, repo)
	if apierrors.IsNotFound(err) {
		return madeChart{}, fetching(reasonSourceUnavailable, &failure.Error{Op: "get source", Object: key.String(), Kind: failure.NotFound,
			Err: errors.New("it does not exist"), Remedy: "create it, or correct spec.sourceRef"})
	}
	if err != nil {
		return madeChart{}, fetching(reasonSourceUnavailable, err)
	}
	secrets, end := r.secrets(hc)
	defer end()
	if isOCI(repo) {
		return r.fromRegistry(ctx, secrets, hc, repo, held)
	}
	if err := unsigned(hc); err != nil {
		return madeChart{}, err
	}
	index, ok := r.repositories.index(key.NamespacedName)
	if !ok {
		return madeChart{}, r.sourceless(ctx, key)
	}
	versions, err := index.Versions(hc.Spec.Chart)
	if err != nil {
		return madeChart{}, fetching(reasonChartReference, err)
	}
	v, err := helmchart.Pick(hc.Spec.Chart, versions, hc.Spec.Version)
	if err != nil {
		return madeChart{}, fetching(reasonChartReference, err)
	}
	revision, err := revisionOf(hc, v.Version, "")
	if err != nil {
		return madeChart{}, err
	}
	if held.given.Revision == revision { // a version is what it was when it was brought, whatever the index says
		held.source = index.Digest
		return held, nil
	}
	c, err := r.download(ctx, secrets, repo, hc.Spec.Chart, v)
	if err != nil {
		return madeChart{}, fetching(reasonChartPull, err)
	}
	got, err := r.compose(hc, c, revision)
	got.source = index.Digest
	return got, err
}

// download brings a version that the index of a repository lists.
func (r *helmCharts) download(ctx context.Context, secrets client.Reader, repo *sourcev1.HelmRepository, name string, v helmchart.Version) (helmchart.Chart, error) {
	req, err := r.repositories.request(ctx, secrets, repo)
	if err != nil {
		return helmchart.Chart{}, fetching(sourcev1.AuthenticationFailedReason, err)
	}
	if len(v.URLs) > 0 && strings.HasPrefix(v.URLs[0], "oci://") {
		return r.pullAt(ctx, secrets, repo, v.URLs[0])
	}
	return r.repositories.store.Chart(ctx, req, name, v)
}

// compose makes the chart that is handed out of one that came from a repository: the very archive, unless
// values files ask for another one.
func (r *helmCharts) compose(hc *sourcev1.HelmChart, c helmchart.Chart, revision string) (madeChart, error) {
	given := helmchart.Given{Digest: c.Digest, Revision: revision, Name: c.Name}
	if !helmchart.Composes(hc.Spec.ValuesFiles) {
		return madeChart{chart: c, given: given}, nil
	}
	files, err := c.Files()
	if err != nil {
		return madeChart{}, building(reasonChartPackage, err)
	}
	given.ValuesFiles, err = helmchart.SetValues(files, helmchart.FileIn(files), hc.Spec.ValuesFiles, hc.Spec.IgnoreMissingValuesFiles)
	if err != nil {
		return madeChart{}, building(reasonValuesFiles, err)
	}
	return r.pack(files, c.Name, given)
}

// pack packages files as the version that is handed out.
func (r *helmCharts) pack(files map[string][]byte, name string, given helmchart.Given) (madeChart, error) {
	if err := helmchart.SetVersion(files, given.Revision); err != nil {
		return madeChart{}, building(reasonMetadataPatch, err)
	}
	data, err := helmchart.Pack(name, files)
	if err != nil {
		return madeChart{}, building(reasonChartPackage, err)
	}
	c, err := r.store.Put(data)
	if err != nil {
		return madeChart{}, building(reasonChartPackage, err)
	}
	given.Digest, given.Packaged = c.Digest, true
	return madeChart{chart: c, given: given}, nil
}

// revisionOf is the version that is handed out: that of the chart, with what tells its consumers that
// something else changed.
func revisionOf(hc *sourcev1.HelmChart, version, sourceRevision string) (string, error) {
	var metadata []string
	if hc.Spec.ReconcileStrategy == sourcev1.ReconcileStrategyRevision && sourceRevision != "" {
		hash := sourceRevision[strings.LastIndexByte(sourceRevision, ':')+1:]
		metadata = append(metadata, hash[:min(12, len(hash))])
	}
	if helmchart.Composes(hc.Spec.ValuesFiles) {
		metadata = append(metadata, strconv.FormatInt(hc.Generation, 10))
	}
	if len(metadata) == 0 {
		return version, nil
	}
	v, err := helmchart.WithMetadata(version, strings.Join(metadata, "."))
	return v, building(reasonMetadataPatch, err)
}

// fromTree makes a chart of a folder or an archive in a source.
func (r *helmCharts) fromTree(ctx context.Context, hc *sourcev1.HelmChart, held madeChart) (madeChart, error) {
	key := chartSource(hc)
	from, ok := r.artifacts.get(key)
	if !ok {
		return madeChart{}, r.sourceless(ctx, key)
	}
	at := strings.TrimPrefix(path.Clean("/"+hc.Spec.Chart), "/")
	if at == "" {
		at = "."
	}
	info, err := from.Tree.Stat(at)
	if err != nil {
		return madeChart{}, fetching(reasonChartReference, &failure.Error{Op: "find chart", Object: at + " in " + key.String(), Kind: failure.NotFound, Err: err, Remedy: "correct spec.chart"})
	}
	t := &treeChart{helmCharts: r, hc: hc, from: from, at: at}
	if info.IsDir() {
		t.meta, err = helmchart.MetadataOf(from.Tree, at)
	} else {
		err = t.open()
	}
	if err != nil {
		return madeChart{}, fetching(reasonChartReference, err)
	}
	revision, err := revisionOf(hc, t.meta.Version, from.Revision)
	if err != nil {
		return madeChart{}, err
	}
	if held.given.Name == t.meta.Name && held.given.Revision == revision {
		held.source = from.Revision
		return held, nil
	}
	got, err := t.make(ctx, helmchart.Given{Name: t.meta.Name, Revision: revision})
	got.source = from.Revision
	return got, err
}

// treeChart is a chart in a source as it is made.
type treeChart struct {
	*helmCharts
	hc     *sourcev1.HelmChart
	from   source.Artifact
	at     string
	meta   helmchart.Metadata
	packed *helmchart.Chart // nil where it is a folder
	data   []byte
}

// open reads an archive.
func (t *treeChart) open() error {
	data, err := t.from.Tree.ReadFile(t.at)
	if err != nil {
		return err
	}
	c, err := helmchart.Read(data)
	t.packed, t.data, t.meta = &c, data, c.Metadata
	return err
}

func (t *treeChart) make(ctx context.Context, given helmchart.Given) (madeChart, error) {
	if t.packed != nil && given.Revision == t.meta.Version && !helmchart.Composes(t.hc.Spec.ValuesFiles) {
		c, err := t.store.Put(t.data)
		given.Digest = c.Digest
		return madeChart{chart: c, given: given}, building(reasonChartPackage, err)
	}
	files, err := t.files(ctx)
	if err != nil {
		return madeChart{}, building(reasonChartPackage, err)
	}
	if helmchart.Composes(t.hc.Spec.ValuesFiles) {
		given.ValuesFiles, err = helmchart.SetValues(files, t.valuesFile, t.hc.Spec.ValuesFiles, t.hc.Spec.IgnoreMissingValuesFiles)
		if err != nil {
			return madeChart{}, building(reasonValuesFiles, err)
		}
	}
	if t.packed == nil {
		if err := t.dependencies(ctx, files); err != nil {
			return madeChart{}, building(reasonDependencyBuild, err)
		}
	}
	return t.pack(files, t.meta.Name, given)
}

func (t *treeChart) files(ctx context.Context) (map[string][]byte, error) {
	if t.packed != nil {
		return t.packed.Files()
	}
	return helmchart.Folder(ctx, t.from.Tree, t.at)
}

// valuesFile reads a values file, which is named by its path in the source.
func (t *treeChart) valuesFile(name string) ([]byte, error) {
	return t.from.Tree.ReadFile(strings.TrimPrefix(path.Clean("/"+name), "/"))
}

// sourceless says why a source has nothing.
func (r *helmCharts) sourceless(ctx context.Context, key sourceKey) error {
	why, passing := r.artifacts.missing(ctx, r.client, key, "spec.sourceRef")
	if passing {
		return fetching(reasonNoSourceArtifact, &passingError{why})
	}
	return fetching(reasonNoSourceArtifact, errors.New(why))
}

// locate describes where a dependency comes from, for messages.
func locate(d helmchart.Dependency) string {
	return fmt.Sprintf("%s %s of %s", d.Name, d.Version, d.Repository)
}

// askedAnew reports whether somebody asked for a reconcile that was not answered yet.
func askedAnew(hc *sourcev1.HelmChart) bool {
	asked, ok := hc.Annotations[meta.ReconcileRequestAnnotation]
	return ok && asked != hc.Status.LastHandledReconcileAt
}
