// Package admission is the room where a hub judges the fleet's kinds before they are stored: the webhooks that its API
// server asks, the certificate that they are served with, and the configuration that names them. What is wrong is told field by
// field to whoever writes the object. The reconcilers check again, so what was stored while nobody judged is told
// in conditions.
package admission

import (
	"errors"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/template"
)

// Options says how objects are judged.
type Options struct {
	// Compiler is the one that reconcilers use as well, so that a template is compiled once; nil means one of its own.
	Compiler *template.Compiler
	// Clock tells when a certificate has to be renewed; nil means that of the machine.
	Clock clock.WithTicker
}

// AddToScheme registers the kinds that this room reads and writes.
func AddToScheme(s *runtime.Scheme) error {
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, corev1.AddToScheme, admissionregistrationv1.AddToScheme} {
		if err := add(s); err != nil {
			return fmt.Errorf("register API types: %w", err)
		}
	}
	return nil
}

// CacheOptions limits what a manager's cache holds for this room to the one configuration that is its own.
func CacheOptions() map[client.Object]cache.ByObject {
	return map[client.Object]cache.ByObject{
		&admissionregistrationv1.ValidatingWebhookConfiguration{}: {Field: fields.OneTermEqualSelector("metadata.name", ConfigurationName)},
	}
}

// Register has a manager judge. Its webhook server has to be a *Server, its scheme to have AddToScheme, and its
// cache CacheOptions.
func Register(mgr ctrl.Manager, o Options) error {
	server, ok := mgr.GetWebhookServer().(*Server)
	if !ok {
		return errors.New("set up admission: the manager has another webhook server")
	}
	if o.Compiler == nil {
		o.Compiler = template.NewCompiler()
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	j := &judge{client: mgr.GetClient(), live: mgr.GetAPIReader(), compiler: o.Compiler}
	if err := j.serve(mgr); err != nil {
		return fmt.Errorf("set up admission: %w", err)
	}
	k := &keeper{client: mgr.GetClient(), live: mgr.GetAPIReader(), server: server, clock: o.Clock, elected: mgr.Elected()}
	err := ctrl.NewControllerManagedBy(mgr).Named("fleet-admission").
		For(&admissionregistrationv1.ValidatingWebhookConfiguration{}).
		WatchesRawSource(k.begin()).
		WithOptions(controller.Options{NeedLeaderElection: new(false), MaxConcurrentReconciles: 1}).
		Complete(k)
	if err != nil {
		return fmt.Errorf("set up admission: %w", err)
	}
	return nil
}

// serve adds the webhooks to the manager's server, one for each kind.
func (j *judge) serve(mgr ctrl.Manager) error {
	return errors.Join(
		builder.WebhookManagedBy(mgr, &v1alpha1.ClusterTemplate{}).WithValidator(validator[*v1alpha1.ClusterTemplate]{
			judge: j.template, spec: func(t *v1alpha1.ClusterTemplate) any { return t.Spec },
		}).Complete(),
		builder.WebhookManagedBy(mgr, &v1alpha1.FleetCluster{}).WithValidator(validator[*v1alpha1.FleetCluster]{
			judge: j.cluster, spec: func(c *v1alpha1.FleetCluster) any { return c.Spec },
		}).Complete(),
		builder.WebhookManagedBy(mgr, &v1alpha1.Placement{}).WithValidator(validator[*v1alpha1.Placement]{
			judge: j.placement, spec: func(p *v1alpha1.Placement) any { return p.Spec },
		}).Complete(),
	)
}
