package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	helmchart "github.com/bowline-dev/bowline/internal/source/chart"
	"github.com/bowline-dev/bowline/internal/source/helmrepo"
)

// dependencies adds those that are not in the chart's folder: folders of the same source, and charts
// of repositories, with the credentials of the HelmRepository of this namespace that has the URL.
func (t *treeChart) dependencies(ctx context.Context, files map[string][]byte) error {
	missing, err := helmchart.Missing(files, t.meta)
	if err != nil {
		return err
	}
	secrets, end := t.secrets(t.hc)
	defer end()
	for _, d := range missing {
		if d.Repository == "" || strings.HasPrefix(d.Repository, "file://") {
			err = t.local(ctx, files, d)
		} else {
			err = t.remote(ctx, secrets, files, d)
		}
		if err != nil {
			return fmt.Errorf("add the dependency %s: %w", d.Name, err)
		}
	}
	return nil
}

// local adds a folder or an archive of the same source.
func (t *treeChart) local(ctx context.Context, files map[string][]byte, d helmchart.Dependency) error {
	at, err := helmchart.Local(t.at, d)
	if err != nil {
		return err
	}
	info, err := t.from.Tree.Stat(at)
	if err != nil {
		return &failure.Error{Op: "find chart", Object: at, Kind: failure.NotFound, Err: err, Remedy: "correct the dependency's repository, or put the chart there"}
	}
	if !info.IsDir() {
		data, err := t.from.Tree.ReadFile(at)
		if err != nil {
			return err
		}
		return t.add(files, d, data)
	}
	meta, err := helmchart.MetadataOf(t.from.Tree, at)
	if err != nil {
		return err
	}
	if err := fits(d, meta); err != nil {
		return err
	}
	sub, err := helmchart.Folder(ctx, t.from.Tree, at)
	if err != nil {
		return err
	}
	return helmchart.Add(files, meta.Name, sub)
}

// add puts an archive into the folder charts/.
func (t *treeChart) add(files map[string][]byte, d helmchart.Dependency, data []byte) error {
	c, err := helmchart.Read(data)
	if err != nil {
		return err
	}
	if err := fits(d, c.Metadata); err != nil {
		return err
	}
	return helmchart.AddArchive(files, c.Metadata, data)
}

func fits(d helmchart.Dependency, m helmchart.Metadata) error {
	if m.Name != d.Name {
		return &failure.Error{Op: "use chart", Object: m.Name, Kind: failure.Invalid, Err: fmt.Errorf("the dependency asks for %s", d.Name), Remedy: "correct the name or the repository of the dependency"}
	}
	if d.Version == "" {
		return nil
	}
	_, err := helmchart.Pick(d.Name, []helmchart.Version{{Version: m.Version}}, d.Version)
	return err
}

// remote adds a chart of a repository.
func (t *treeChart) remote(ctx context.Context, secrets client.Reader, files map[string][]byte, d helmchart.Dependency) error {
	repo, err := t.repositoryAt(ctx, d)
	if err != nil {
		return err
	}
	var c helmchart.Chart
	if strings.HasPrefix(d.Repository, "oci://") {
		c, err = t.pull(ctx, secrets, repo, d.Name, d.Version)
	} else {
		c, err = t.find(ctx, secrets, repo, d)
	}
	if err != nil {
		return err
	}
	data, err := t.store.Bytes(c.Digest)
	if err != nil {
		return err
	}
	return t.add(files, d, data)
}

// repositoryAt returns the HelmRepository of the namespace with the URL, or one that has nothing to show.
func (t *treeChart) repositoryAt(ctx context.Context, d helmchart.Dependency) (*sourcev1.HelmRepository, error) {
	scheme, _, _ := strings.Cut(d.Repository, "://")
	if scheme != "http" && scheme != "https" && scheme != "oci" {
		return nil, &failure.Error{Op: "read dependency", Object: d.Name, Kind: failure.Unsupported, Err: fmt.Errorf("the repository %q is no URL", d.Repository),
			Remedy: "name it by an http, https, oci or file URL: aliases are known to one machine only"}
	}
	var list sourcev1.HelmRepositoryList
	if err := t.client.List(ctx, &list, client.InNamespace(t.hc.Namespace), client.MatchingFields{indexURL: normalURL(d.Repository)}); err != nil {
		return nil, fmt.Errorf("look for the HelmRepository of %s: %w", locate(d), err)
	}
	if len(list.Items) > 0 {
		return &list.Items[0], nil
	}
	repo := &sourcev1.HelmRepository{ObjectMeta: metav1.ObjectMeta{Namespace: t.hc.Namespace}}
	repo.Spec.URL = d.Repository
	if scheme == "oci" {
		repo.Spec.Type = sourcev1.HelmRepositoryTypeOCI
	}
	return repo, nil
}

// find brings a chart of a repository over HTTP. The index of one that is an object is at hand.
func (t *treeChart) find(ctx context.Context, secrets client.Reader, repo *sourcev1.HelmRepository, d helmchart.Dependency) (helmchart.Chart, error) {
	index, ok := helmrepo.Index{}, false
	if repo.Name != "" {
		if index, ok = t.repositories.index(client.ObjectKeyFromObject(repo)); !ok && repo.Spec.Suspend {
			return helmchart.Chart{}, &failure.Error{Op: "use HelmRepository", Object: repo.Name, Kind: failure.NotFound, Err: errors.New("it is suspended and has no index"), Remedy: "resume it"}
		}
	}
	if !ok {
		req, err := t.repositories.request(ctx, secrets, repo)
		if err != nil {
			return helmchart.Chart{}, err
		}
		if index, err = t.repositories.store.Fetch(ctx, req); err != nil {
			return helmchart.Chart{}, err
		}
	}
	versions, err := index.Versions(d.Name)
	if err != nil {
		return helmchart.Chart{}, err
	}
	v, err := helmchart.Pick(d.Name, versions, d.Version)
	if err != nil {
		return helmchart.Chart{}, err
	}
	return t.download(ctx, secrets, repo, d.Name, v)
}
