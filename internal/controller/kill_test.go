package controller

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/testkit"
)

const (
	kills = 50
	// midApply is how many of them have to strike between the first and the last
	// change of a commit, so that the test proves what it says.
	midApply = kills / 4
)

// The engine is killed at random moments while commits add, change and remove
// objects. Whatever was left half done, the next start finishes: the cluster then
// equals Git, and nothing that stayed in Git was ever deleted.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	instance := testkit.Start(t)
	if err := crds.Apply(t.Context(), instance.Config); err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	w := &wreck{stage: stageOn(t, instance.Config), rng: rand.New(rand.NewPCG(seed, 0)), wants: map[string]string{}}
	w.units = []string{"first", "second"}
	dir := t.TempDir()
	start := func() *child { return startChild(t, instance.Kubeconfig, dir) }

	w.bystander()
	for range 40 {
		w.add()
	}
	revision := w.commit()
	w.source()
	for _, unit := range w.units {
		w.unit(unit)
	}
	engine := start()
	defer func() { engine.kill(t) }()
	w.finished(revision)

	half := 0
	for kill := range kills {
		before := w.identities()
		wanted := maps.Clone(w.wants)
		added := w.change()
		struck := w.strikeDuring(engine, len(w.differs(before)))
		if struck {
			half++
		}
		// The next commit takes back some of what may be half done.
		for _, name := range added {
			if w.rng.IntN(2) == 0 {
				delete(w.wants, name)
			}
		}
		w.change()
		engine = start()
		revision = w.commit()
		if kill%5 == 4 { // a start may be killed as well
			pass(time.Duration(w.rng.IntN(700)) * time.Millisecond) // the random moment itself
			engine.kill(t)
			engine = start()
		}
		w.finished(revision)
		w.equalsGit(kill)
		w.nothingLost(kill, before, wanted)
		if t.Failed() {
			t.Fatalf("kill %d of %d, seed %d; the engine said:\n%s", kill, kills, seed, engine.output.about(""))
		}
	}
	t.Logf("%d of %d kills struck in mid-apply", half, kills)
	if half < midApply {
		t.Errorf("only %d of %d kills struck in mid-apply, want %d: the test proves little", half, kills, midApply)
	}
}

// wreck is a stage on which an engine is killed again and again.
type wreck struct {
	*stage
	rng   *rand.Rand
	units []string
	// wants is what Git holds: "<unit>/<kind>-<number>" to a value.
	wants map[string]string
	made  int
	// committed is what wants was at the last commit.
	committed map[string]string
}

// add makes up an object of any unit and returns its name.
func (w *wreck) add() string {
	kind := []string{"configmap", "serviceaccount"}[w.rng.IntN(2)]
	name := fmt.Sprintf("%s/%s-%d", w.units[w.rng.IntN(len(w.units))], kind, w.made)
	w.made++
	w.wants[name] = fmt.Sprint(w.rng.Uint32())
	return name
}

// change adds, removes and changes some objects and returns the names of the
// added ones. It never removes more than a deletion budget allows.
func (w *wreck) change() (added []string) {
	names := slices.Sorted(maps.Keys(w.wants))
	w.rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	count := w.rng.IntN(4)
	for _, name := range names[:count] {
		delete(w.wants, name)
	}
	for _, name := range names[count : count+5] {
		w.wants[name] = fmt.Sprint(w.rng.Uint32())
	}
	for range count + w.rng.IntN(3) {
		added = append(added, w.add())
	}
	return added
}

// commit makes Git hold what is wanted and returns the revision.
func (w *wreck) commit() string {
	w.Helper()
	files := map[string]string{}
	var gone []string
	for name := range w.committed {
		if _, still := w.wants[name]; !still {
			gone = append(gone, name+".yaml")
		}
	}
	for name, value := range w.wants {
		if w.committed[name] != value {
			files[name+".yaml"] = w.manifest(name, value)
		}
	}
	if len(gone) > 0 {
		w.repo.Delete(gone...)
	}
	w.committed = maps.Clone(w.wants)
	commit := w.repo.Commit(files)
	fleet := w.fleet()
	if w.client.Get(w.Context(), client.ObjectKeyFromObject(fleet), fleet) == nil {
		w.ask(fleet)
	}
	return "main@sha1:" + commit
}

func (w *wreck) manifest(name, value string) string {
	kind := "ConfigMap"
	if strings.Contains(name, "serviceaccount") {
		kind = "ServiceAccount"
	}
	_, short, _ := strings.Cut(name, "/")
	return fmt.Sprintf("apiVersion: v1\nkind: %s\nmetadata:\n  name: %s\n  annotations: {value: %q}\n", kind, short, value)
}

// strikeDuring commits what is wanted and kills the engine after a random number
// of the changes that this takes. It reports whether some were left to do.
func (w *wreck) strikeDuring(engine *child, changes int) (half bool) {
	w.Helper()
	before := w.identities()
	strike := int64(w.rng.IntN(changes + 1))
	var seen atomic.Int64
	reached := make(chan struct{}, 1)
	for _, list := range []client.ObjectList{&corev1.ConfigMapList{}, &corev1.ServiceAccountList{}} {
		events := w.changes(list)
		defer events.Stop() //nolint:gocritic // two of them, until the kill
		go func() {
			for range events.ResultChan() {
				if seen.Add(1) == strike {
					reached <- struct{}{}
				}
			}
		}()
	}
	w.commit()
	if strike == 0 { // while it fetches, builds, plans or writes what it intends
		pass(time.Duration(w.rng.IntN(60)) * time.Millisecond) // the random moment itself
	} else {
		select {
		case <-reached:
			pass(time.Duration(w.rng.IntN(3000)) * time.Microsecond) // between two requests
		case <-time.After(patience):
			w.Fatalf("only %d of %d changes after %s; the engine said:\n%s", seen.Load(), changes, patience, engine.output.about(""))
		}
	}
	engine.kill(w.T)
	after := w.identities()
	return !maps.Equal(before, after) && len(w.differs(after)) > 0
}

// changes watches the objects of a kind from their newest state on, so that every
// event is a change.
func (w *wreck) changes(list client.ObjectList) watch.Interface {
	w.Helper()
	if err := w.client.List(w.Context(), list, client.InNamespace(w.namespace)); err != nil {
		w.Fatal(err)
	}
	events, err := w.client.Watch(w.Context(), list, client.InNamespace(w.namespace), &client.ListOptions{
		Raw: &metav1.ListOptions{ResourceVersion: list.GetResourceVersion()},
	})
	if err != nil {
		w.Fatal(err)
	}
	return events
}

// finished waits until all units are ready at the revision.
func (w *wreck) finished(revision string) {
	w.Helper()
	for _, unit := range w.units {
		w.awaitLive(unit, revision)
	}
}

// seen is an object on the cluster: who it is, whose, and what it holds.
type seen struct{ uid, value string }

// identities returns the delivered objects by the names that wants uses.
func (w *wreck) identities() map[string]seen {
	w.Helper()
	out := map[string]seen{}
	for _, kind := range []string{"ConfigMap", "ServiceAccount"} {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind + "List"))
		if err := w.client.List(w.Context(), list, client.InNamespace(w.namespace), client.HasLabels{object.KustomizeGroup + "/name"}); err != nil {
			w.Fatalf("list %s: %v", kind, err)
		}
		for i := range list.Items {
			o := &list.Items[i]
			name := o.GetLabels()[object.KustomizeGroup+"/name"] + "/" + o.GetName()
			out[name] = seen{string(o.GetUID()), o.GetAnnotations()["value"]}
		}
	}
	return out
}

// differs returns the names of the objects that are not as wanted.
func (w *wreck) differs(live map[string]seen) []string {
	var out []string
	for name, value := range w.wants {
		if live[name].value != value {
			out = append(out, name)
		}
	}
	for name := range live {
		if _, wanted := w.wants[name]; !wanted {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// equalsGit fails the test when the cluster or the inventories hold anything but
// what Git holds, and when something that is not ours was touched.
func (w *wreck) equalsGit(kill int) {
	w.Helper()
	if wrong := w.differs(w.identities()); len(wrong) > 0 {
		w.Errorf("after kill %d the cluster differs from Git in %v", kill, wrong)
	}
	for _, unit := range w.units {
		k := &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Name: unit, Namespace: w.namespace}}
		w.read(k)
		for _, entry := range k.Status.Inventory.Entries {
			id, err := object.ParseInventory(entry.ID)
			if _, wanted := w.wants[unit+"/"+id.Name]; err != nil || !wanted {
				w.Errorf("after kill %d the inventory of %s holds %s, which Git does not", kill, unit, entry.ID)
			}
		}
		if want := w.count(unit); len(k.Status.Inventory.Entries) != want {
			w.Errorf("after kill %d the inventory of %s holds %d objects, want %d", kill, unit, len(k.Status.Inventory.Entries), want)
		}
	}
	w.config("bystander")
}

func (w *wreck) count(unit string) (n int) {
	for name := range w.wants {
		if strings.HasPrefix(name, unit+"/") {
			n++
		}
	}
	return n
}

// nothingLost fails the test when an object that was in Git before and is in Git
// now has been deleted and made anew in between.
func (w *wreck) nothingLost(kill int, before map[string]seen, wanted map[string]string) {
	w.Helper()
	now := w.identities()
	for name := range wanted {
		if _, still := w.wants[name]; still && now[name].uid != before[name].uid {
			w.Errorf("after kill %d %s is another object than before, although it never left Git", kill, name)
		}
	}
}

// bystander makes an object that is nobody's.
func (w *wreck) bystander() {
	w.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "bystander", Namespace: w.namespace}})
}
