package controller

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const toolkit = "kustomize.toolkit.fluxcd.io/"

// annotated gives a manifest one annotation.
func annotated(manifest, key, value string) string {
	return strings.Replace(manifest, "metadata:", fmt.Sprintf("metadata:\n  annotations: {%s%s: %s}", toolkit, key, value), 1)
}

// annotation is an object of one ConfigMap's manifest, and what it is on the
// cluster after a commit that changes its value from 1 to 2, or one that removes it.
type annotation struct {
	name, reason string
	inGit        [2]string         // key and value on the manifest
	live         [2]string         // key and value set on the cluster once it is delivered
	before       map[string]string // data of an object that is there before, if any
	first        string            // the value after the first commit
	edited       string            // a value that somebody writes after the first commit
	second       string            // the value after the second commit
	stays        bool              // whether it is there after the third commit removed it
}

var annotations = []annotation{
	{name: "none", reason: "all of it is ours", first: "1", second: "2"},
	{name: "prune", reason: "it is kept when it leaves Git", inGit: [2]string{"prune", "disabled"}, first: "1", second: "2", stays: true},
	{name: "prune-live", reason: "somebody on the cluster wants to keep it", live: [2]string{"prune", "disabled"}, first: "1", second: "2", stays: true},
	{
		name: "reconcile", reason: "what is there is left alone from the start", inGit: [2]string{"reconcile", "disabled"},
		before: map[string]string{"value": "theirs"}, first: "theirs", second: "theirs", stays: true,
	},
	{
		name: "reconcile-live", reason: "somebody on the cluster works on it", live: [2]string{"reconcile", "disabled"},
		first: "1", edited: "edited", second: "edited", stays: true,
	},
	{
		name: "ignore", reason: "it is never applied", inGit: [2]string{"ssa", "Ignore"},
		before: map[string]string{"value": "theirs"}, first: "theirs", second: "theirs", stays: true,
	},
	{
		name: "ignore-live", reason: "somebody on the cluster works on it", live: [2]string{"ssa", "Ignore"},
		first: "1", edited: "edited", second: "edited", stays: true,
	},
	{
		name: "if-not-present", reason: "what is there already is left alone", inGit: [2]string{"ssa", "IfNotPresent"},
		before: map[string]string{"value": "theirs"}, first: "theirs", second: "theirs", stays: true,
	},
	{
		name: "if-not-present-made", reason: "what we made may be changed by others, and is still ours to remove",
		inGit: [2]string{"ssa", "IfNotPresent"}, first: "1", edited: "edited", second: "edited",
	},
	{name: "override", reason: "it says what is the default", inGit: [2]string{"ssa", "Override"}, first: "1", edited: "edited", second: "2"},
	{name: "merge", reason: "our fields are ours still", inGit: [2]string{"ssa", "Merge"}, first: "1", second: "2"},
}

func (a annotation) manifest(value string) string {
	m := configMap(a.name, value)
	if a.inGit[0] != "" {
		m = annotated(m, a.inGit[0], a.inGit[1])
	}
	return m
}

func (s *stage) aMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}}
}

func TestAnnotations(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := map[string]string{"app/barrier.yaml": configMap("barrier", "1")}
	for _, a := range annotations {
		files["app/"+a.name+".yaml"] = a.manifest("1")
		if a.before != nil {
			m := s.aMap(a.name)
			m.Data = a.before
			s.create(m)
		}
	}
	revision := "main@sha1:" + s.repo.Commit(files)
	s.source()
	s.unit("app")
	s.awaitLive("app", revision)
	for _, a := range annotations {
		s.holds(a, "after the first commit", a.first)
		if a.live[0] != "" {
			edit(s, s.aMap(a.name), func(m *corev1.ConfigMap) { m.Annotations[toolkit+a.live[0]] = a.live[1] })
		}
		if a.edited != "" {
			edit(s, s.aMap(a.name), func(m *corev1.ConfigMap) { m.Data["value"] = a.edited })
		}
		files["app/"+a.name+".yaml"] = a.manifest("2")
	}
	s.awaitLive("app", s.push(files))
	for _, a := range annotations {
		s.holds(a, "after the second commit", a.second)
	}
	var gone []string
	for _, a := range annotations {
		gone = append(gone, "app/"+a.name+".yaml")
	}
	s.approveWhatIsHeld("app", s.remove(gone...))
	for _, a := range annotations {
		err := s.client.Get(t.Context(), client.ObjectKeyFromObject(s.aMap(a.name)), s.aMap(a.name))
		if stays := err == nil; stays != a.stays {
			t.Errorf("%s: %s: after the third commit it is there: %t, want %t (%v)", a.name, a.reason, stays, a.stays, err)
		}
	}
}

func (s *stage) holds(a annotation, when, want string) {
	s.Helper()
	if got := s.config(a.name).Data["value"]; got != want {
		s.Errorf("%s: %s: %s it holds %q, want %q", a.name, a.reason, when, got, want)
	}
}

// Fields that people set with kubectl go with the default mode and stay with the
// mode Merge.
func TestFieldsSetWithKubectl(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	for _, name := range []string{"override", "merge"} {
		m := s.aMap(name)
		m.Data = map[string]string{"value": "0", "extra": "theirs"}
		if err := s.client.Create(t.Context(), m, client.FieldOwner("kubectl-create")); err != nil {
			t.Fatal(err)
		}
	}
	revision := "main@sha1:" + s.repo.Commit(map[string]string{
		"app/a.yaml": configMap("override", "1"), "app/b.yaml": annotated(configMap("merge", "1"), "ssa", "Merge"),
	})
	s.source()
	s.unit("app")
	s.awaitLive("app", revision)
	if got := s.config("override").Data; got["value"] != "1" || got["extra"] != "" {
		t.Errorf("override: it holds %v, want only our value", got)
	}
	if got := s.config("merge").Data; got["value"] != "1" || got["extra"] != "theirs" {
		t.Errorf("merge: it holds %v, want our value and theirs", got)
	}
}

// An immutable field: an error that names it, or the object is replaced where
// the annotation says so, in Git or on the cluster; the field force does the same
// for all objects of a Kustomization.
func TestForce(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	secret := func(name, value string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\nimmutable: true\nstringData:\n  key: %s\n", name, value)
	}
	files := func(value string) map[string]string {
		return map[string]string{
			"plain/a.yaml": secret("plain", value), "plain/b.yaml": configMap("beside", value),
			"forced/a.yaml":    secret("forced", value),
			"annotated/a.yaml": annotated(secret("annotated", value), "force", "enabled"),
			"live/a.yaml":      secret("live", value),
		}
	}
	revision := "main@sha1:" + s.repo.Commit(files("one"))
	s.source()
	uids := map[string]types.UID{}
	for _, name := range []string{"plain", "forced", "annotated", "live"} {
		k := s.kustomization(name)
		s.unit(name)
		edit(s, k, func(k *kustomization) { k.Spec.Force = name == "forced" })
		s.awaitLive(name, revision)
		uids[name] = s.aSecret(name).UID
	}
	edit(s, s.aSecret("live"), func(m *corev1.Secret) { m.Annotations[toolkit+"force"] = "enabled" })
	next := s.push(files("two"))
	k := s.awaitFailure("plain", meta.ReconciliationFailedReason, "Secret/"+s.namespace+"/plain", "data: ", "field is immutable when `immutable` is set", "spec.force")
	if strings.Contains(standingOf(k), "dHdv") || strings.Contains(standingOf(k), "two") {
		t.Errorf("the message shows the secret's value: %s", standingOf(k))
	}
	if got := s.config("beside").Data["value"]; got != "two" {
		t.Errorf("the object beside the one refused holds %q, want two", got)
	}
	if m := s.aSecret("plain"); m.UID != uids["plain"] || string(m.Data["key"]) != "one" {
		t.Errorf("refused, it holds %q", m.Data["key"])
	}
	for _, name := range []string{"forced", "annotated", "live"} {
		s.awaitLive(name, next)
		if m := s.aSecret(name); m.UID == uids[name] || string(m.Data["key"]) != "two" {
			t.Errorf("%s: it holds %q, replaced: %t", name, m.Data["key"], m.UID != uids[name])
		}
	}
}

// What is replaced need not be ours yet: of an object without our labels no event
// tells that it is gone, and what takes its place must not be long in coming.
func TestForceOnWhatWasThere(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	immutable := true
	s.create(&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "found", Namespace: s.namespace}, Immutable: &immutable, Data: map[string]string{"value": "theirs"},
	})
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("found", "ours")})
	s.source()
	s.unit("app", func(k *kustomization) { k.Spec.Force = true })
	s.awaitLive("app", revision) // long before the unit itself would give up waiting
	if got := s.config("found").Data["value"]; got != "ours" {
		t.Errorf("it holds %q, want ours", got)
	}
}

func (s *stage) aSecret(name string) *corev1.Secret {
	s.Helper()
	m := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}}
	s.read(m)
	return m
}
