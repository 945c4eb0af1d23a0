package release

import (
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/bowline-dev/bowline/internal/testkit"
)

// TestAWatchThatIsRefused has credentials that may read one namespace only, until they may more.
func TestAWatchThatIsRefused(t *testing.T) {
	namespace := namespaceOf(t, "watch-refused")
	account := types.NamespacedName{Namespace: namespace, Name: "reader"}
	cluster, err := clusterOf(t).AsAccount(account)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(testkit.Cluster(t))
	if err != nil {
		t.Fatal(err)
	}
	reads := []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get", "list", "watch"}}}
	subject := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account.Name}}
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "reader"}, Rules: reads}
	if _, err := client.RbacV1().Roles(namespace).Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "reader"}, Subjects: subject, RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "reader"}}
	if _, err := client.RbacV1().RoleBindings(namespace).Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	told := make(chan types.NamespacedName, 8)
	clock := clocktesting.NewFakePassiveClock(day)
	w := NewWatch(t.Context(), WatchOptions{Cluster: cluster, Clock: clock, Log: testr.New(t), Notify: func(unit types.NamespacedName) { told <- unit }})
	await := func(why string) {
		t.Helper()
		select {
		case <-told:
		case <-time.After(settle):
			t.Fatalf("%s: nobody was told", why)
		}
	}
	unit, key := types.NamespacedName{Namespace: namespace, Name: "demo"}, Key{Namespace: namespace, Name: "demo"}
	w.Use(unit, key)
	await("the watch was refused")
	if _, ok := w.Known(key); ok || !w.Refused() {
		t.Fatalf("known %v, refused %v", ok, w.Refused())
	}
	if err := storeIn(t, namespace, nil).Create(t.Context(), deployed(namespace, 1), 0); err != nil {
		t.Fatal(err)
	}
	s, err := NewStore(cluster, namespace, w)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := s.Last(t.Context(), "demo"); err != nil || r.Version != 1 {
		t.Fatalf("the storage itself gives %v, %v", r, err)
	}

	all := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: namespace}, Rules: reads}
	if _, err := client.RbacV1().ClusterRoles().Create(t.Context(), all, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	everywhere := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: namespace}, Subjects: subject, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: namespace}}
	if _, err := client.RbacV1().ClusterRoleBindings().Create(t.Context(), everywhere, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.Use(unit, key)
	if _, ok := w.Known(key); ok || !w.Refused() {
		t.Fatal("it asks again at once")
	}
	for deadline := time.Now().Add(settle); w.Refused() && time.Now().Before(deadline); { // the server's own authorizer may lag
		clock.SetTime(clock.Now().Add(askAgain))
		w.Use(unit, key)
		await("it asked again")
	}
	if seen, ok := w.Known(key); !ok || len(seen) != 1 || w.Refused() {
		t.Errorf("with the rights it knows %v, %v", seen, ok)
	}
}
