package admission

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// The names of what this room keeps on the API server.
const (
	// ConfigurationName is that of the ValidatingWebhookConfiguration.
	ConfigurationName = "bowline-fleet"
	// Namespace and SecretName are where the certificate is kept, with its key and all that are trusted.
	Namespace  = v1alpha1.MemberNamespace
	SecretName = "bowline-admission"
)

// owner is the field manager of what this room writes.
const owner = client.FieldOwner("bowline-admission")

// again is after what time an engine that stands by looks for a certificate that the leader is to renew, and after what
// time a write is tried again that somebody was faster with.
const (
	standby = time.Hour
	again   = 100 * time.Millisecond
)

// bundleKey holds what is trusted, as cert-manager has it.
const bundleKey = "ca.crt"

// keeper keeps the certificate good, and the configuration as it has to be. All engines serve, and the one that leads
// says so on the API server.
type keeper struct {
	client  client.Client
	live    client.Reader
	server  *Server
	clock   clock.PassiveClock
	elected <-chan struct{}
}

// begin asks for a first look, and for one when the engine has become the leader.
func (k *keeper) begin() source.Source {
	return source.Func(func(ctx context.Context, q workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		first := reconcile.Request{NamespacedName: client.ObjectKey{Name: ConfigurationName}}
		q.Add(first)
		go func() {
			select {
			case <-k.elected:
				q.Add(first)
			case <-ctx.Done():
			}
		}()
		return nil
	})
}

func (k *keeper) leads() bool {
	select {
	case <-k.elected:
		return true
	default:
		return false
	}
}

// Reconcile implements reconcile.Reconciler. What is trusted is told before it is served with.
func (k *keeper) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if req.Name != ConfigurationName {
		return ctrl.Result{}, nil
	}
	certificate, bundle, err := k.certificate(ctx)
	if err == nil && k.leads() {
		err = k.configure(ctx, bundle)
	}
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return ctrl.Result{RequeueAfter: again}, nil
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	k.server.current.Store(certificate)
	wait := renewal(certificate).Sub(k.clock.Now())
	if wait <= 0 {
		wait = standby
	}
	return ctrl.Result{RequeueAfter: wait}, nil
}

// certificate returns what is kept, made anew where it is not good any more.
func (k *keeper) certificate(ctx context.Context) (*tls.Certificate, []byte, error) {
	secret := &corev1.Secret{}
	err := k.live.Get(ctx, client.ObjectKey{Namespace: Namespace, Name: SecretName}, secret)
	if client.IgnoreNotFound(err) != nil {
		return nil, nil, fmt.Errorf("read the certificate of webhooks: %w", err)
	}
	now, data := k.clock.Now(), secret.Data
	good, bad := read(data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey], data[bundleKey], k.server.host, now)
	if bad == nil && (now.Before(renewal(good)) || !k.leads()) {
		return good, data[bundleKey], nil
	}
	pem, key, err := issue(k.server.host, now)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate for webhooks: %w", err)
	}
	bundle := trust(pem, data[bundleKey], now)
	next := secret.DeepCopy()
	next.Namespace, next.Name = Namespace, SecretName
	next.Data = map[string][]byte{corev1.TLSCertKey: pem, corev1.TLSPrivateKeyKey: key, bundleKey: bundle}
	if err := k.keep(ctx, next); err != nil {
		return nil, nil, fmt.Errorf("keep the certificate of webhooks: %w", err)
	}
	good, err = read(pem, key, bundle, k.server.host, now)
	return good, bundle, err
}

// keep writes the Secret, and makes its namespace where that is missing.
func (k *keeper) keep(ctx context.Context, secret *corev1.Secret) error {
	if secret.UID != "" {
		return k.client.Update(ctx, secret, owner)
	}
	secret.Type = corev1.SecretTypeTLS
	err := k.client.Create(ctx, secret, owner)
	if !apierrors.IsNotFound(err) {
		return err
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: Namespace}}
	if err := k.client.Create(ctx, namespace, owner); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return k.client.Create(ctx, secret, owner)
}

// configure has the API server ask here.
func (k *keeper) configure(ctx context.Context, bundle []byte) error {
	want := k.webhooks(bundle)
	kept := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	err := k.client.Get(ctx, client.ObjectKey{Name: ConfigurationName}, kept)
	switch {
	case apierrors.IsNotFound(err):
		kept.Name, kept.Webhooks = ConfigurationName, want
		err = k.client.Create(ctx, kept, owner)
	case err == nil && !equality.Semantic.DeepEqual(kept.Webhooks, want):
		kept.Webhooks = want
		err = k.client.Update(ctx, kept, owner)
	}
	if err != nil {
		return fmt.Errorf("configure webhooks: %w", err)
	}
	return nil
}

// webhooks says for which requests the API server asks, with all that it would fill in.
func (k *keeper) webhooks(bundle []byte) []admissionregistrationv1.ValidatingWebhook {
	var all []admissionregistrationv1.ValidatingWebhook
	for _, kind := range []struct{ singular, plural string }{
		{"clustertemplate", "clustertemplates"}, {"fleetcluster", "fleetclusters"}, {"placement", "placements"},
	} {
		all = append(all, admissionregistrationv1.ValidatingWebhook{
			Name:         kind.plural + "." + v1alpha1.GroupVersion.Group,
			ClientConfig: k.server.at("/validate-fleet-bowline-dev-v1alpha1-"+kind.singular, bundle),
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
				Rule: admissionregistrationv1.Rule{
					APIGroups: []string{v1alpha1.GroupVersion.Group}, APIVersions: []string{v1alpha1.GroupVersion.Version},
					Resources: []string{kind.plural}, Scope: new(admissionregistrationv1.NamespacedScope),
				},
			}},
			// What the engine itself writes are labels, finalizers and statuses; nobody is asked about those.
			MatchConditions: []admissionregistrationv1.MatchCondition{{
				Name: "spec-changed", Expression: "request.operation == 'CREATE' || object.spec != oldObject.spec",
			}},
			// A hub that is down must not stop Git: what it did not judge, its reconcilers check when it is back.
			FailurePolicy: new(admissionregistrationv1.Ignore), MatchPolicy: new(admissionregistrationv1.Equivalent),
			SideEffects: new(admissionregistrationv1.SideEffectClassNone), TimeoutSeconds: new(int32(5)),
			AdmissionReviewVersions: []string{"v1"}, NamespaceSelector: &metav1.LabelSelector{}, ObjectSelector: &metav1.LabelSelector{},
		})
	}
	return all
}
