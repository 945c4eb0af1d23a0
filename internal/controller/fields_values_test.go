package controller

import (
	"fmt"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/testkit"
)

// fromMap and fromSecret name an object that holds variables.
func fromMap(name string) kustomizev1.SubstituteReference {
	return kustomizev1.SubstituteReference{Kind: kindConfigMap, Name: name}
}

func fromSecret(name string) kustomizev1.SubstituteReference {
	return kustomizev1.SubstituteReference{Kind: kindSecret, Name: name}
}

func optional(r kustomizev1.SubstituteReference) kustomizev1.SubstituteReference {
	r.Optional = true
	return r
}

// readsFrom makes a Kustomization read variables.
func readsFrom(from ...kustomizev1.SubstituteReference) func(*kustomizev1.Kustomization) {
	return func(k *kustomizev1.Kustomization) {
		k.Spec.PostBuild = &kustomizev1.PostBuild{SubstituteFrom: from}
	}
}

// variables makes a ConfigMap that holds variables and is not delivered.
func (s *stage) variables(name string, data map[string]string) *corev1.ConfigMap {
	s.Helper()
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}, Data: data}
	s.create(m)
	return m
}

func (s *stage) secretVariables(name string, data map[string]string) *corev1.Secret {
	s.Helper()
	m := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}, StringData: data}
	s.create(m)
	return m
}

// Which value a variable has, and what of a text is a variable, is what the
// toolkit says.
func TestSubstituteFrom(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name, reason string
		from         []kustomizev1.SubstituteReference
		inline       map[string]string
		strategy     kustomizev1.SubstituteStrategy
		value, want  string
	}{
		{"configmap", "the plain case", []kustomizev1.SubstituteReference{fromMap("vars")}, nil, "", "${a}", "map"},
		{"secret", "the plain case", []kustomizev1.SubstituteReference{fromSecret("vars")}, nil, "", "${a}", "secret"},
		{"later", "a later object overrides an earlier one", []kustomizev1.SubstituteReference{fromSecret("vars"), fromMap("vars")}, nil, "", "${a} ${only}", "map here"},
		{"last", "a later object overrides an earlier one", []kustomizev1.SubstituteReference{fromMap("vars"), fromSecret("vars")}, nil, "", "${a} ${more}", "secret there"},
		{"inline", "what the Kustomization says overrides all", []kustomizev1.SubstituteReference{fromMap("vars"), fromSecret("vars")}, map[string]string{"a": "inline"}, "", "${a} ${only}", "inline here"},
		{"absent", "an optional object may be absent", []kustomizev1.SubstituteReference{optional(fromMap("no")), optional(fromSecret("no")), fromMap("vars")}, nil, "", "${a}", "map"},
		{"default", "where there is no value", []kustomizev1.SubstituteReference{fromMap("vars")}, nil, "", "${unset:=d} ${a:=d}", "d map"},
		{"escape", "two dollars make one", []kustomizev1.SubstituteReference{fromMap("vars")}, nil, "", "$${a} $a", "${a} $a"},
		{"lines", "values are one line", []kustomizev1.SubstituteReference{fromMap("vars")}, nil, "", "${lines}", "ab"},
		{"no-variables", "without any variable nothing is replaced", []kustomizev1.SubstituteReference{optional(fromMap("no")), fromMap("empty")}, nil, "", "${unset:=d}", "${unset:=d}"},
		{"always", "unless it is asked for", []kustomizev1.SubstituteReference{optional(fromMap("no"))}, nil, kustomizev1.SubstituteStrategyAlways, "${unset:=d}", "d"},
	}
	s := newStage(t)
	s.variables("vars", map[string]string{"a": "map", "only": "here", "lines": "a\nb\n"})
	s.secretVariables("vars", map[string]string{"a": "secret", "more": "there"})
	s.variables("empty", nil)
	files := map[string]string{}
	for _, row := range rows {
		files[row.name+"/a.yaml"] = configMap(row.name, row.value)
	}
	revision := "main@sha1:" + s.repo.Commit(files)
	s.source()
	for _, row := range rows {
		s.unit(row.name, func(k *kustomizev1.Kustomization) {
			k.Spec.PostBuild = &kustomizev1.PostBuild{SubstituteFrom: row.from, Substitute: row.inline, SubstituteStrategy: row.strategy}
		})
	}
	for _, row := range rows {
		s.awaitLive(row.name, revision)
		if got := s.config(row.name).Data["value"]; got != row.want {
			t.Errorf("%s: %s becomes %q, want %q: %s", row.name, row.value, got, row.want, row.reason)
		}
	}
}

// A change of a referenced object takes effect at once, by itself, wherever its
// value is used; its going leaves what runs as it is.
func TestSubstituteFromFollowsChanges(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	maps := s.variables("vars", map[string]string{"a": "a1"})
	secret := s.secretVariables("vars", map[string]string{"b": "b1"})
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("out", "${a} ${b} ${c:=none}")})
	s.source()
	s.unit("app", readsFrom(fromMap("vars"), fromSecret("vars"), optional(fromMap("late"))))
	s.awaitLive("app", revision)
	becomes := func(why, want string) {
		t.Helper()
		s.poll(fmt.Sprintf("%s: %s", why, want), func() bool { return s.config("out").Data["value"] == want })
	}
	becomes("all read", "a1 b1 none")
	edit(s, maps, func(m *corev1.ConfigMap) { m.Data["a"] = "a2" })
	becomes("the ConfigMap changed", "a2 b1 none")
	edit(s, secret, func(m *corev1.Secret) { m.Data["b"] = []byte("b2") })
	becomes("the Secret changed", "a2 b2 none")
	late := s.variables("late", map[string]string{"c": "c3"})
	becomes("the optional one came", "a2 b2 c3")
	s.drop(late)
	becomes("the optional one went", "a2 b2 none")

	before := s.deliveredConfigs()
	s.drop(maps)
	s.awaitFailure("app", meta.BuildFailedReason, "spec.postBuild.substituteFrom[0]", "ConfigMap/"+s.namespace+"/vars does not exist", "create it")
	s.untouched(before)
	s.variables("vars", map[string]string{"a": "a4"})
	becomes("it came back", "a4 b2 none")
	s.awaitLive("app", revision)
}

// A unit that lacks an object says which, delivers nothing, holds up nobody, and
// goes on when it comes, although its own retry is hours away.
func TestSubstituteFromMissing(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.variables("there", map[string]string{"a": "1"})
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("out", "${b}"), "other/a.yaml": configMap("other", "1")})
	s.source()
	s.unit("app", readsFrom(fromMap("there"), fromSecret("gone")))
	s.unit("other")
	s.awaitLive("other", revision)
	s.awaitFailure("app", meta.BuildFailedReason, "spec.postBuild.substituteFrom[1]", "Secret/"+s.namespace+"/gone does not exist", "create it", "optional: true")
	if got := s.names("out"); got != "" {
		t.Errorf("delivered %s", got)
	}
	s.secretVariables("gone", map[string]string{"b": "two"})
	s.awaitLive("app", revision)
	if got := s.config("out").Data["value"]; got != "two" {
		t.Errorf("the value is %q, want two", got)
	}
}

// What is wrong with a value is said with the object and the key that hold it, and
// without the value; correcting it is enough.
func TestSubstituteFromBadValues(t *testing.T) {
	t.Parallel()
	const secret = "s3cret-that-nobody-may-see"
	rows := []struct {
		name, reason string
		bad, good    map[string]string
		value        string
		failure      string
		words        []string
	}{
		{"breaks", "it is more than a string", map[string]string{"key": "a: b: " + secret}, map[string]string{"key": "ok"}, "${key}",
			meta.BuildFailedReason, []string{"ConfigMap", "/breaks", `variable "key", a key of Secret/`, "no valid YAML", "correct the value"}},
		{"name", "a variable cannot be called so", map[string]string{"not-a-name": secret}, map[string]string{"key": "ok"}, "${key}",
			meta.BuildFailedReason, []string{`variable "not-a-name", a key of Secret/`, "rename the key"}},
		{"unset", "it has no value and no default", map[string]string{"other": secret}, map[string]string{"key": "ok"}, "${key}",
			meta.BuildFailedReason, []string{`variable "key" has no value and no default`, "${key:=value}"}},
		{"refused", "the API server refuses it, and quotes it", map[string]string{"key": secret + " !"}, map[string]string{"key": "ok"}, "refused",
			meta.ReconciliationFailedReason, []string{"Invalid", "*****"}},
	}
	s := newStage(t)
	files := map[string]string{}
	for _, row := range rows {
		files[row.name+"/a.yaml"] = configMap(row.name, row.value)
	}
	files["refused/a.yaml"] = strings.Replace(configMap("refused", "1"), "metadata:", "metadata:\n  labels: {l: \"${key}\"}", 1)
	revision := "main@sha1:" + s.repo.Commit(files)
	s.source()
	for _, row := range rows {
		s.secretVariables(row.name, row.bad)
		s.unit(row.name, readsFrom(fromSecret(row.name)))
	}
	for _, row := range rows {
		k := s.awaitFailure(row.name, row.failure, row.words...)
		if strings.Contains(standingOf(k), secret) {
			t.Errorf("%s: the status shows the value: %s", row.name, standingOf(k))
		}
	}
	for _, row := range rows {
		m := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: row.name, Namespace: s.namespace}}
		edit(s, m, func(m *corev1.Secret) {
			m.Data = map[string][]byte{}
			for name, value := range row.good {
				m.Data[name] = []byte(value)
			}
		})
	}
	for _, row := range rows {
		s.awaitLive(row.name, revision)
	}
	if log := s.engine.log.about(secret); log != "" {
		t.Errorf("the log shows the value: %s", log)
	}
	var events corev1.EventList
	if err := s.client.List(t.Context(), &events); err != nil {
		t.Fatal(err)
	}
	for _, e := range events.Items {
		if strings.Contains(e.Message, secret) {
			t.Errorf("an event shows the value: %s", e.Message)
		}
	}
}

// An object that moves from a unit to one that lacks a value is not deleted
// meanwhile: nobody knows what that unit wants.
func TestSubstituteFromMissingKeepsWhatMoves(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	vars := s.variables("vars", map[string]string{"a": "one"})
	first := "main@sha1:" + s.repo.Commit(map[string]string{
		"one/a.yaml": configMap("a", "1"), "one/b.yaml": configMap("moves", "1"), "two/a.yaml": configMap("c", "${a}"),
	})
	s.source()
	s.unit("one")
	s.unit("two", readsFrom(fromMap("vars")))
	s.awaitLive("one", first)
	s.awaitLive("two", first)
	s.drop(vars)
	s.awaitFailure("two", meta.BuildFailedReason, "does not exist")
	before := s.deliveredConfigs()

	s.repo.Commit(map[string]string{"two/b.yaml": configMap("moves", "1")})
	second := s.remove("one/b.yaml")
	s.awaitFailure("one", meta.PruneFailedReason, s.namespace+"/two", "cannot be built", "does not exist")
	s.untouched(before)
	s.variables("vars", map[string]string{"a": "one"})
	s.awaitLive("one", second)
	s.awaitLive("two", second)
	if now := s.deliveredConfigs(); now["moves"].uid != before["moves"].uid {
		t.Error("what moved was deleted on the way")
	}
}

// drop deletes an object.
func (s *stage) drop(m *corev1.ConfigMap) {
	s.Helper()
	if err := s.client.Delete(s.Context(), m); err != nil {
		s.Fatalf("delete %s: %v", m.Name, err)
	}
}

// Many units that read one ConfigMap: a commit that touches one is one build, and a
// change of the ConfigMap builds its users and nobody else.
func TestSubstituteFromSharedByMany(t *testing.T) {
	t.Parallel()
	const many, others = 60, 10
	instance := testkit.Start(t)
	engine := engineFor(t, instance.Config)
	s := stageOn(t, instance.Config)
	s.engine = engine
	vars := s.variables("shared", map[string]string{"a": "first"})
	files := map[string]string{}
	for i := range many + others {
		files[fmt.Sprintf("u%d/a.yaml", i)] = configMap(fmt.Sprint("c", i), "${a:=none}")
	}
	revision := "main@sha1:" + s.repo.Commit(files)
	s.source()
	for i := range many + others {
		s.unit(fmt.Sprint("u", i), func(k *kustomizev1.Kustomization) {
			if i < many {
				readsFrom(fromMap("shared"))(k)
			}
		})
	}
	live := func(revision string) {
		t.Helper()
		for i := range many + others {
			s.awaitLive(fmt.Sprint("u", i), revision)
		}
	}
	live(revision)
	builds := engine.count(t, "bowline_builds_total", "")
	built := func(what string, want float64) {
		t.Helper()
		now := engine.count(t, "bowline_builds_total", "")
		if now-builds != want {
			t.Errorf("%s: %v builds, want %v", what, now-builds, want)
		}
		builds = now
	}
	live(s.push(map[string]string{"u7/a.yaml": configMap("c7", "${a} moved")}))
	built("a commit that touches one unit", 1)

	edit(s, vars, func(m *corev1.ConfigMap) { m.Data["a"] = "second" })
	for i := range many {
		s.poll(fmt.Sprintf("c%d delivered with the new value", i), func() bool {
			return strings.HasPrefix(s.config(fmt.Sprint("c", i)).Data["value"], "second")
		})
	}
	built("a change of the ConfigMap", many)
}
