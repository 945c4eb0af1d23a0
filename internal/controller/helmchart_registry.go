package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/Masterminds/semver/v3"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	helmchart "github.com/bowline-dev/bowline/internal/source/chart"
	"github.com/bowline-dev/bowline/internal/source/reach"
	"github.com/bowline-dev/bowline/internal/source/registry"
	"github.com/bowline-dev/bowline/internal/source/verify"
)

// fromRegistry makes a chart of one in a registry. A version that is written out in full and is held
// is not asked for again; who signed it is, when what is trusted changed.
func (r *helmCharts) fromRegistry(ctx context.Context, secrets client.Reader, hc *sourcev1.HelmChart, repo *sourcev1.HelmRepository, held madeChart) (madeChart, error) {
	visit, cancel := registry.WithTimeout(ctx, repo.GetTimeout())
	defer cancel()
	at, err := r.visit(visit, secrets, repo, hc.Spec.Chart)
	if err != nil {
		return madeChart{}, err
	}
	version := hc.Spec.Version
	if !isExact(version) {
		if version, err = newestIn(visit, at, hc.Spec.Chart, version); err != nil {
			return madeChart{}, err
		}
	}
	revision, err := revisionOf(hc, version, "")
	if err != nil {
		return madeChart{}, err
	}
	judge, err := r.judge(ctx, secrets, hc, repo)
	if err != nil {
		return madeChart{}, err
	}
	if held.given.Revision == revision && !askedAnew(hc) && (judge == nil || held.given.Manifest != "") {
		held.verified, err = judged(visit, judge, at, held.given.Manifest)
		return held, fetching(reasonChartPull, err)
	}
	digest, err := at.Resolve(visit, registry.ChartTag(version))
	if err != nil {
		return madeChart{}, fetching(reasonChartPull, err)
	}
	by, err := judged(visit, judge, at, digest)
	if err != nil {
		return madeChart{}, fetching(reasonChartPull, err)
	}
	c, err := r.pulled(visit, at, digest)
	if err != nil {
		return madeChart{}, fetching(reasonChartPull, err)
	}
	got, err := r.compose(hc, c, revision)
	got.given.Manifest, got.verified = digest, by
	return got, err
}

// judge returns what finds out who signed a chart; nil where spec.verify is not set.
func (r *helmCharts) judge(ctx context.Context, secrets client.Reader, hc *sourcev1.HelmChart, repo *sourcev1.HelmRepository) (signatureCheck, error) {
	named := strings.TrimPrefix(normalURL(repo.Spec.URL), registry.Prefix) + "/" + strings.Trim(hc.Spec.Chart, "/")
	check, err := r.signatures.check(ctx, secrets, r.key(hc), named, chartSignature(hc.Spec.Verify))
	return check, building(reasonChartVerification, err)
}

// judged says by whom a chart is signed; "" where nobody asks. That the registry does not answer is no verdict.
func judged(ctx context.Context, judge signatureCheck, at *registry.Repository, digest string) (by string, err error) {
	if judge == nil {
		return "", nil
	}
	by, err = judge(ctx, at, digest)
	var unverified *verify.Error
	if errors.As(err, &unverified) && unverified.Cause != verify.Unreachable {
		return "", building(reasonChartVerification, err)
	}
	return by, err
}

// unsigned refuses a chart from elsewhere than a registry that is to be verified.
func unsigned(hc *sourcev1.HelmChart) error {
	if hc.Spec.Verify == nil {
		return nil
	}
	return building(reasonChartVerification, &failure.Error{Op: "verify", Object: "chart " + hc.Spec.Chart, Kind: failure.Unsupported,
		Err: errors.New("only charts in a registry are signed"), Remedy: "take it from a HelmRepository of type oci, or take spec.verify away"})
}

// visit prepares to read a chart in the registry of a repository.
func (r *helmCharts) visit(ctx context.Context, secrets client.Reader, repo *sourcev1.HelmRepository, name string) (*registry.Repository, error) {
	access, err := r.access(ctx, secrets, repo)
	if err != nil {
		return nil, fetching(sourcev1.AuthenticationFailedReason, err)
	}
	at, err := r.registries.Repository(normalURL(repo.Spec.URL)+"/"+strings.Trim(name, "/"), access)
	return at, fetching(sourcev1.URLInvalidReason, err)
}

// access says how to get to a registry, with what the Secrets of a HelmRepository hold now. As that has no field for a
// service account, a cloud is asked in the name of the engine, or of the account of the namespace where that is confined.
func (r *helmCharts) access(ctx context.Context, secrets client.Reader, repo *sourcev1.HelmRepository) (access registry.Access, err error) {
	access.Insecure = repo.Spec.Insecure
	read := secretsIn(ctx, secrets, repo.Namespace)
	err = read(repo.Spec.SecretRef, "spec.secretRef", func(data map[string][]byte) (err error) {
		if len(data["username"]) > 0 {
			access.Keychain = registry.Password(string(data["username"]), string(data["password"]))
			return nil
		}
		access.Keychain, err = registry.KeychainFromSecrets(data)
		return err
	})
	if err == nil && repo.Spec.SecretRef == nil {
		access.Keychain, err = r.identity.registryLogin(ctx, r.repositories.key(repo), "", repo.Spec.Provider, normalURL(repo.Spec.URL), nil)
	}
	if err == nil {
		err = read(repo.Spec.CertSecretRef, "spec.certSecretRef", func(data map[string][]byte) (err error) {
			access.TLS, err = reach.TLSFromSecret("spec.certSecretRef", data)
			return err
		})
	}
	return access, err
}

// isExact reports whether a version is written out in full, so that nobody has to be asked which one
// is meant.
func isExact(version string) bool {
	_, err := semver.StrictNewVersion(strings.TrimPrefix(version, "v"))
	return err == nil
}

// newestIn asks a registry for the newest version that a range allows.
func newestIn(ctx context.Context, at *registry.Repository, name, within string) (string, error) {
	tags, err := at.Tags(ctx)
	if err != nil {
		return "", fetching(reasonChartPull, err)
	}
	versions := make([]helmchart.Version, 0, len(tags))
	for _, t := range tags {
		versions = append(versions, helmchart.Version{Version: registry.ChartVersion(t)})
	}
	v, err := helmchart.Pick(name, versions, within)
	return v.Version, fetching(reasonChartReference, err)
}

// pull brings the version of a chart that a range allows.
func (r *helmCharts) pull(ctx context.Context, secrets client.Reader, repo *sourcev1.HelmRepository, name, within string) (helmchart.Chart, error) {
	visit, cancel := registry.WithTimeout(ctx, repo.GetTimeout())
	defer cancel()
	at, err := r.visit(visit, secrets, repo, name)
	if err != nil {
		return helmchart.Chart{}, err
	}
	if !isExact(within) {
		if within, err = newestIn(visit, at, name, within); err != nil {
			return helmchart.Chart{}, err
		}
	}
	return r.tagged(visit, at, within)
}

// pullAt brings a chart that the index of a repository over HTTP says is in a registry. It is asked without the
// credentials of the repository, unless they are to be passed on.
func (r *helmCharts) pullAt(ctx context.Context, secrets client.Reader, repo *sourcev1.HelmRepository, address string) (helmchart.Chart, error) {
	visit, cancel := registry.WithTimeout(ctx, repo.GetTimeout())
	defer cancel()
	i := strings.LastIndexByte(address, ':')
	if i <= len(registry.Prefix) || strings.ContainsRune(address[i:], '/') {
		return helmchart.Chart{}, &failure.Error{Op: "read chart URL", Kind: failure.Invalid, Err: errors.New("the index names a registry without a tag"), Remedy: "have the index made anew"}
	}
	access := registry.Access{}
	if repo.Spec.PassCredentials {
		var err error
		if access, err = r.access(visit, secrets, repo); err != nil {
			return helmchart.Chart{}, fetching(sourcev1.AuthenticationFailedReason, err)
		}
	}
	at, err := r.registries.Repository(address[:i], access)
	if err != nil {
		return helmchart.Chart{}, err
	}
	return r.tagged(visit, at, registry.ChartVersion(address[i+1:]))
}

// tagged reads a version.
func (r *helmCharts) tagged(ctx context.Context, at *registry.Repository, version string) (helmchart.Chart, error) {
	digest, err := at.Resolve(ctx, registry.ChartTag(version))
	if err != nil {
		return helmchart.Chart{}, err
	}
	return r.pulled(ctx, at, digest)
}

// pulled reads a chart. Its layer is downloaded once for everybody; that one may have it, the
// registry says each time.
func (r *helmCharts) pulled(ctx context.Context, at *registry.Repository, digest string) (helmchart.Chart, error) {
	m, err := at.Manifest(ctx, digest)
	if err != nil {
		return helmchart.Chart{}, err
	}
	for _, l := range m.Layers {
		if l.MediaType != registry.ChartLayer {
			continue
		}
		if l.Size > helmchart.MaxArchive {
			return helmchart.Chart{}, &failure.Error{Op: "pull", Object: at.String(), Kind: failure.Invalid, Err: fmt.Errorf("the chart has more than %d bytes", helmchart.MaxArchive), Remedy: "leave out of the chart what it does not need"}
		}
		b, err := at.Blob(ctx, l)
		if err != nil {
			return helmchart.Chart{}, err
		}
		data, err := b.Bytes()
		if err != nil {
			return helmchart.Chart{}, &failure.Error{Op: "read chart", Object: at.String(), Kind: failure.Unavailable, Err: err}
		}
		return r.store.Put(data)
	}
	return helmchart.Chart{}, &failure.Error{Op: "pull", Object: at.String() + "@" + digest, Kind: failure.Invalid,
		Err: errors.New("it has no layer with a Helm chart"), Remedy: "push the chart with helm push, or correct spec.chart"}
}
