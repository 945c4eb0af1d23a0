package controller

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/acl"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// What another tenant's repository holds is for who can show the remote that they may
// read it.
var escapesBySource = []escape{
	{
		name: "repository-by-url", aim: "another tenant's repository, which the engine has already",
		try: func(a *tenant) {
			a.refusedSource("fleet", func(g *sourcev1.GitRepository) { g.Spec.URL = a.cluster.private.URL() })
			a.refusedSource("pinned", func(g *sourcev1.GitRepository) {
				g.Spec.URL, g.Spec.Reference = a.cluster.private.URL(), &sourcev1.GitRepositoryRef{Commit: a.cluster.revision}
			})
		}, harm: deliveredToOwn,
	},
	{
		name: "repository-by-forged-status", aim: "another tenant's repository, as if this had fetched it before",
		try: func(a *tenant) {
			g := &sourcev1.GitRepository{
				ObjectMeta: metav1.ObjectMeta{Name: "fleet", Namespace: a.namespace},
				Spec:       sourcev1.GitRepositorySpec{URL: a.cluster.private.URL(), Interval: metav1.Duration{Duration: never}, Suspend: true},
			}
			a.create(g)
			before := g.DeepCopy()
			g.Status.Artifact = &meta.Artifact{
				Path: "x", URL: "http://localhost/x", Revision: "main@sha1:" + a.cluster.revision, LastUpdateTime: metav1.Now(),
				Digest: "sha256:" + fmt.Sprintf("%064d", 0),
			}
			if err := a.client.Status().Patch(a.Context(), g, client.MergeFrom(before)); err != nil {
				a.Fatal(err)
			}
			a.ask(g)
			a.unit("app", as(deployer))
			a.awaitFailure("app", meta.ArtifactFailedReason, "is suspended and has no artifact")
		}, harm: deliveredToOwn,
	},
	{
		name: "include-of-another", aim: "another tenant's repository, included in one's own",
		try: func(a *tenant) {
			for i, name := range []string{"../" + neighbour + "/fleet", neighbour + "/fleet"} {
				a.refusedSource(fmt.Sprintf("fleet-%d", i), func(g *sourcev1.GitRepository) {
					g.Spec.Include = []sourcev1.GitRepositoryInclude{{GitRepositoryRef: meta.LocalObjectReference{Name: name}}}
				})
			}
		}, harm: deliveredToOwn,
	},
	{
		name: "generator-of-another", aim: "another tenant's repository, as part of one's own artifact",
		try: func(a *tenant) {
			a.generator("app", "GitRepository", neighbour, "@theirs/**")
			await(a.stage, &swapi.ArtifactGeneratorList{}, "app", "denied", func(g *swapi.ArtifactGenerator) bool {
				return says(g, metav1.ConditionFalse, acl.AccessDeniedReason, "spec.sources[0] names another namespace", "tenancy is locked")
			})
		},
		harm: func(a *tenant) bool { return a.has(&sourcev1.ExternalArtifact{}, a.namespace, "app") },
	},
	{
		name: "generator-with-a-path", aim: "files outside of one's own sources",
		try: func(a *tenant) {
			a.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
			a.source()
			a.generator("app", "GitRepository", "", "@theirs/../../../../etc/passwd")
			await(a.stage, &swapi.ArtifactGeneratorList{}, "app", "refused", refused[*swapi.ArtifactGenerator])
		},
		harm: func(a *tenant) bool { return a.has(&sourcev1.ExternalArtifact{}, a.namespace, "app") },
	},
	{
		name: "artifact-by-forged-status", aim: "files of the engine's machine, as if published by somebody",
		try: func(a *tenant) {
			ea := &sourcev1.ExternalArtifact{ObjectMeta: metav1.ObjectMeta{Name: "fleet", Namespace: a.namespace}}
			a.create(ea)
			before := ea.DeepCopy()
			ea.Status.Artifact = &meta.Artifact{
				Path: "x", URL: "file:///etc/passwd", Revision: "main@sha1:" + a.cluster.revision, LastUpdateTime: metav1.Now(),
				Digest: "sha256:" + fmt.Sprintf("%064d", 0),
			}
			if err := a.client.Status().Patch(a.Context(), ea, client.MergeFrom(before)); err != nil {
				a.Fatal(err)
			}
			a.unit("app", as(deployer), func(k *kustomizev1.Kustomization) { k.Spec.SourceRef.Kind = sourcev1.ExternalArtifactKind })
			a.awaitUnit("app", "refused", refused[*kustomizev1.Kustomization])
		}, harm: deliveredToOwn,
	},
	{
		name: "file-url", aim: "repositories on the engine's machine",
		try: func(a *tenant) {
			for i, url := range []string{"file://" + a.cluster.private.Dir(), a.cluster.private.Dir(), "ssh://-oProxyCommand=id/x", "http:///" + a.cluster.private.Dir()} {
				a.refusedSource(fmt.Sprintf("fleet-%d", i), func(g *sourcev1.GitRepository) { g.Spec.URL = url })
			}
		}, harm: deliveredToOwn,
	},
	{
		name: "server-of-another", aim: "what a server tells that only the engine can reach",
		try: func(a *tenant) {
			for i, status := range []int{http.StatusOK, http.StatusUnauthorized, http.StatusInternalServerError} {
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.WriteHeader(status)
					_, _ = io.WriteString(w, hidden)
				}))
				a.Cleanup(server.Close)
				a.refusedSource(fmt.Sprintf("fleet-%d", i), func(g *sourcev1.GitRepository) { g.Spec.URL = server.URL + "/latest/meta-data" })
			}
		}, harm: deliveredToOwn,
	},
}

// generator makes an ArtifactGenerator that copies from one source.
func (a *tenant) generator(name, kind, namespace, what string) {
	a.Helper()
	a.create(&swapi.ArtifactGenerator{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: a.namespace},
		Spec: swapi.ArtifactGeneratorSpec{
			Sources:         []swapi.SourceReference{{Alias: "theirs", Kind: kind, Name: "fleet", Namespace: namespace}},
			OutputArtifacts: []swapi.OutputArtifact{{Name: name, Copy: []swapi.CopyOperation{{From: what, To: "@artifact/"}}}},
		},
	})
}
