// Package install is the room where a hub gets Cluster API without cert-manager: the definitions
// and webhooks of its core, which are part of the program, and of other providers; where their
// managers serve webhooks, with a certificate made here; and how those managers are called. It
// starts no process: who does decides where they run and how long.
package install

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/failure"
)

// Components are what a provider of Cluster API needs on the API server of its hub.
type Components struct {
	// Definitions are its custom resource definitions.
	Definitions []*unstructured.Unstructured
	// Webhooks are its configurations of mutating and validating webhooks.
	Webhooks []*unstructured.Unstructured
}

// admission maps the kinds of webhook configurations to their resources.
var admission = map[string]schema.GroupVersionResource{
	"MutatingWebhookConfiguration":   {Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"},
	"ValidatingWebhookConfiguration": {Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"},
}

//go:embed core.yaml
var core []byte

// Core returns the components of Cluster API itself: clusters, machines and what groups them. The
// caller owns the objects.
func Core() (Components, error) { return Read(bytes.NewReader(core)) }

// Read returns the components in a stream of YAML documents, such as tools/gen-components.sh
// makes, and passes over documents of other kinds.
func Read(r io.Reader) (Components, error) {
	var c Components
	decoder := yaml.NewYAMLOrJSONDecoder(r, 4096)
	for {
		u := &unstructured.Unstructured{}
		err := decoder.Decode(u)
		if errors.Is(err, io.EOF) {
			return c, nil
		}
		if err != nil {
			return Components{}, &failure.Error{Op: "read", Kind: failure.Invalid, Object: "components of a Cluster API provider", Err: err}
		}
		_, webhook := admission[u.GetKind()]
		switch {
		case webhook:
			c.Webhooks = append(c.Webhooks, u)
		case u.GetKind() == "CustomResourceDefinition":
			c.Definitions = append(c.Definitions, u)
		}
	}
}

// redirect returns copies of the webhook configurations that call the manager at s, where the
// published ones name a Service of the cluster.
func (c Components) redirect(s Server) ([]*unstructured.Unstructured, error) {
	var redirected []*unstructured.Unstructured
	for _, u := range c.Webhooks {
		u = u.DeepCopy()
		hooks, _ := u.Object["webhooks"].([]any)
		for _, h := range hooks {
			hook, _ := h.(map[string]any)
			path, _, _ := unstructured.NestedString(hook, "clientConfig", "service", "path")
			if path == "" {
				return nil, &failure.Error{Op: "redirect", Kind: failure.Invalid, Object: u.GetKind() + "/" + u.GetName(),
					Err: fmt.Errorf("webhook %v names no path of a service", hook["name"])}
			}
			hook["clientConfig"] = map[string]any{"url": "https://" + s.Addr + path, "caBundle": s.bundle()}
		}
		redirected = append(redirected, u)
	}
	return redirected, nil
}

// Install puts c on the cluster of cfg, for the manager at s, and returns when all its kinds are
// served. It may be called again, for another server too. From then on, until that manager
// answers, the API server refuses to write objects of its kinds: a check that nobody makes is
// not passed.
func (c Components) Install(ctx context.Context, cfg *rest.Config, s Server) error {
	webhooks, err := c.redirect(s)
	if err != nil {
		return err
	}
	if err := crds.Install(ctx, cfg, c.Definitions); err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return &failure.Error{Op: "connect", Kind: failure.Invalid, Object: cfg.Host, Err: err}
	}
	for _, u := range webhooks {
		if _, err := client.Resource(admission[u.GetKind()]).Apply(ctx, u.GetName(), u, metav1.ApplyOptions{FieldManager: crds.FieldManager, Force: true}); err != nil {
			return fmt.Errorf("install %s/%s: %w", u.GetKind(), u.GetName(), err)
		}
	}
	return nil
}

// Withdraw removes the webhooks of c from the cluster of cfg, so that its objects can be written
// without its manager: they are then checked against their schemas alone. The definitions stay.
func (c Components) Withdraw(ctx context.Context, cfg *rest.Config) error {
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return &failure.Error{Op: "connect", Kind: failure.Invalid, Object: cfg.Host, Err: err}
	}
	for _, u := range c.Webhooks {
		err := client.Resource(admission[u.GetKind()]).Delete(ctx, u.GetName(), metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("remove %s/%s: %w", u.GetKind(), u.GetName(), err)
		}
	}
	return nil
}
