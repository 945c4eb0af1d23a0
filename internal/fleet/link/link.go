package link

import (
	"context"
	"fmt"
	"sync"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// owner is the field manager of what the member's side writes, here and on the hub.
const owner = client.FieldOwner("bowline-link")

// Options is what a link needs of the engine that it is a part of.
type Options struct {
	Membership
	// Client writes to the member and reads from Cache; Direct reads from its API server.
	Client client.Client
	Direct client.Reader
	// Cache is the engine's, and Copies knows the member's own copies of assignments alone.
	Cache, Copies cache.Cache
	// Version asks the member's API server for its version.
	Version func(context.Context) (string, error)
	// Sources are the kinds of sources that the member serves. Releases and Fleet say whether it serves HelmReleases, and
	// FleetClusters of its own.
	Sources         []string
	Releases, Fleet bool
	// Pending returns the deletions that wait for approval, and Drifted how many units have objects that somebody else
	// keeps changing. Poke tells that one of them changed.
	Pending func() []v1alpha1.PendingDeletion
	Drifted func() int
	Log     logr.Logger
}

// Link is the member's side of the exchange. It is a manager.Runnable, for the engine that leads.
type Link struct {
	Options
	hub *connection
	// copying and telling wake what copies the assignment, and what reports.
	copying, telling wake

	mu sync.Mutex
	// All below is guarded by mu.
	// wanted is the assignment that the hub last told, and refused why it told one that is not for this member.
	wanted  *v1alpha1.ClusterAssignment
	refused string
	// uncopied says why what the hub told is not copied; empty where it is.
	uncopied string
	// rebase: what the hub has of the report has to be asked for.
	rebase bool
	facts  v1alpha1.ClusterFacts
	// left is whether the member has let go of everything and the hub knows.
	left bool
	// carried remembers which units are as they were assigned; only the one that reports uses it.
	carried map[unitKey]carried
	// stored is what the member's API made of what was copied last, and behind since when the hub tells what is older; only the one
	// that copies uses them.
	stored stored
	behind behind
}

// New returns a link that runs when the engine's manager starts it.
func New(o Options) *Link {
	o.Timing = o.Timing.withDefaults()
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	return &Link{Options: o, hub: newConnection(o.Hub), copying: newWake(), telling: newWake(), rebase: true, carried: map[unitKey]carried{}}
}

// Poke says that something changed which reports tell of and no event does.
func (l *Link) Poke() { l.telling.up() }

// Start implements manager.Runnable: it runs until ctx is done, or the member has left. That the hub cannot be
// reached is no error.
func (l *Link) Start(ctx context.Context) error {
	if err := l.listen(ctx); err != nil {
		return err
	}
	if !l.Cache.WaitForCacheSync(ctx) || !l.Copies.WaitForCacheSync(ctx) {
		return nil // the engine stops
	}
	running, end := context.WithCancel(ctx)
	defer end()
	var all sync.WaitGroup
	for _, work := range []func(context.Context){l.follow, l.copy, l.renew, l.know} {
		all.Go(func() { work(running) })
	}
	all.Go(func() {
		defer end() // nothing is left to do
		l.tell(running)
	})
	all.Wait()
	l.hub.drop()
	l.mu.Lock()
	left := l.left
	l.mu.Unlock()
	if left && ctx.Err() == nil {
		l.goodbye(ctx)
	}
	return nil
}

// goodbye ends the membership.
func (l *Link) goodbye(ctx context.Context) {
	own := &v1alpha1.ClusterAssignment{}
	err := l.Copies.Get(ctx, l.key(), own)
	if err == nil {
		err = l.Client.Delete(ctx, own, client.Preconditions{UID: &own.UID})
	}
	if client.IgnoreNotFound(err) != nil {
		l.Log.Error(err, "the copy of the assignment stays, though the cluster has left the fleet")
	}
	l.Log.Info("the cluster has left the fleet", "cluster", l.Cluster.String())
	if l.Left != nil {
		l.Left()
	}
}

// listen has everything that reports tell of wake the one that reports.
func (l *Link) listen(ctx context.Context) error {
	poke := toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { l.telling.up() }, DeleteFunc: func(any) { l.telling.up() },
		UpdateFunc: func(before, after any) {
			if versionOf(before) != versionOf(after) {
				l.telling.up()
			}
		},
	}
	nodes := &metav1.PartialObjectMetadata{}
	nodes.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Node"))
	countOnly := poke
	countOnly.UpdateFunc = func(any, any) {}
	own := poke
	own.AddFunc = func(any) { l.copying.up(); l.telling.up() }
	own.DeleteFunc = own.AddFunc
	own.UpdateFunc = func(before, after any) {
		poke.UpdateFunc(before, after)
		l.copying.up()
	}
	for _, on := range l.listened(nodes) {
		from, handler := l.Cache, toolscache.ResourceEventHandler(poke)
		switch on.(type) {
		case *metav1.PartialObjectMetadata:
			handler = countOnly
		case *v1alpha1.ClusterAssignment:
			from, handler = l.Copies, own
		}
		informer, err := from.GetInformer(ctx, on, cache.BlockUntilSynced(false))
		if err == nil {
			_, err = informer.AddEventHandler(handler)
		}
		if err != nil {
			return fmt.Errorf("watch what is reported to the hub: %T: %w", on, err)
		}
	}
	return nil
}

func (l *Link) listened(nodes client.Object) []client.Object {
	all := []client.Object{nodes, &v1alpha1.ClusterAssignment{}, &kustomizev1.Kustomization{}}
	if l.Releases {
		all = append(all, &helmv2.HelmRelease{})
	}
	if l.Fleet {
		all = append(all, &v1alpha1.FleetCluster{})
	}
	for _, kind := range l.Sources {
		if o := sourceObject(kind); o != nil {
			all = append(all, o)
		}
	}
	return all
}

func versionOf(o any) string {
	m, ok := o.(metav1.Object)
	if !ok {
		return ""
	}
	return m.GetResourceVersion()
}

// sourceObject returns an object of a kind of sources whose revisions are reported, and nil for others: artifacts that
// are made of sources here are not news to the hub.
func sourceObject(kind string) client.Object {
	switch kind {
	case sourcev1.GitRepositoryKind:
		return &sourcev1.GitRepository{}
	case sourcev1.OCIRepositoryKind:
		return &sourcev1.OCIRepository{}
	case sourcev1.BucketKind:
		return &sourcev1.Bucket{}
	case sourcev1.HelmRepositoryKind:
		return &sourcev1.HelmRepository{}
	}
	return nil
}

// key names the member's copy.
func (l *Link) key() types.NamespacedName {
	return types.NamespacedName{Namespace: v1alpha1.MemberNamespace, Name: l.Cluster.Name}
}
