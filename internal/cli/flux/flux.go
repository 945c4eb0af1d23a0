// Package flux is the room that knows the toolkit's own engine as it is installed on a
// cluster: its controllers, their versions and arguments, which kinds they serve,
// and how they are stopped and started again. It decides nothing about delivery.
package flux

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
)

// The controllers that do what Bowline does.
const (
	kustomizeController = "kustomize-controller"
	helmController      = "helm-controller"
	sourceController    = "source-controller"
	sourceWatcher       = "source-watcher"
)

// partOf is the label that every object of a Flux installation carries; versionLabel
// holds the version of the distribution.
const (
	partOf       = "app.kubernetes.io/part-of"
	versionLabel = "app.kubernetes.io/version"
)

// Installation is a Flux as it is on a cluster.
type Installation struct {
	// Namespace is where its controllers run.
	Namespace string
	// Version is that of the distribution, such as "v2.9.5"; empty where nothing says.
	Version string
	// Controllers are its deployments in the order of their names.
	Controllers []Controller
}

// Controller is one controller of an installation.
type Controller struct {
	appsv1.Deployment
	// Role is the name of the controller's image, which the deployment's own name
	// need not be: shards are named otherwise.
	Role string
	// Version is the tag of the image; empty where it is named by digest only.
	Version string
	// Args are the arguments of the controller by name, without leading dashes.
	Args map[string]string
}

// Find reads the installation in a namespace.
func Find(ctx context.Context, c client.Reader, namespace string) (*Installation, error) {
	var list appsv1.DeploymentList
	if err := c.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels{partOf: "flux"}); err != nil {
		return nil, fmt.Errorf("look for Flux in namespace %s: %w", namespace, err)
	}
	out := &Installation{Namespace: namespace}
	for _, d := range list.Items {
		out.Controllers = append(out.Controllers, controllerOf(d))
		out.Version = cmp.Or(out.Version, d.Labels[versionLabel])
	}
	slices.SortFunc(out.Controllers, func(a, b Controller) int { return cmp.Compare(a.Name, b.Name) })
	if len(out.role(kustomizeController)) == 0 {
		return nil, &failure.Error{Op: "look for Flux", Object: "in namespace " + namespace, Kind: failure.NotFound,
			Err:    fmt.Errorf("there is no %s labelled %s=flux", kustomizeController, partOf),
			Remedy: "name its namespace with -n, or start the engine with `bowline controller` where there never was one"}
	}
	return out, nil
}

func controllerOf(d appsv1.Deployment) Controller {
	out := Controller{Deployment: d, Role: d.Name, Args: map[string]string{}}
	containers := d.Spec.Template.Spec.Containers
	if len(containers) == 0 {
		return out
	}
	manager := containers[0]
	for _, c := range containers {
		if c.Name == "manager" {
			manager = c
		}
	}
	out.Role, out.Version = imageOf(manager.Image)
	out.Args = argsOf(slices.Concat(manager.Command, manager.Args))
	return out
}

// switches are the flags of the controllers that take no word after them as a value.
var switches = []string{
	"enable-leader-election", "insecure-allow-http", "insecure-kubeconfig-exec", "insecure-kubeconfig-tls", "leader-election-release-on-cancel",
	"log-json", "no-cross-namespace-refs", "no-remote-bases", "watch-all-namespaces",
}

// argsOf reads a command line as the controllers do: --name=value, --name value, or
// --name alone, which is true.
func argsOf(words []string) map[string]string {
	out := map[string]string{}
	for i := 0; i < len(words); i++ {
		name, ok := strings.CutPrefix(words[i], "--")
		if !ok {
			continue
		}
		name, value, given := strings.Cut(name, "=")
		if !given {
			value = "true"
			if i+1 < len(words) && !slices.Contains(switches, name) && !strings.HasPrefix(words[i+1], "-") {
				i++
				value = words[i]
			}
		}
		out[name] = value
	}
	return out
}

// imageOf returns the last part of an image's name, and its tag.
func imageOf(image string) (name, tag string) {
	image, _, _ = strings.Cut(image, "@")
	image = image[strings.LastIndex(image, "/")+1:]
	name, tag, _ = strings.Cut(image, ":")
	return name, tag
}

// role returns the controllers of a role: more than one where they are shards.
func (i *Installation) role(names ...string) []*Controller {
	var out []*Controller
	for k := range i.Controllers {
		if slices.Contains(names, i.Controllers[k].Role) {
			out = append(out, &i.Controllers[k])
		}
	}
	return out
}

// Replaced returns the controllers that do what Bowline does, in the order in which
// they are to be stopped: who uses sources before who fetches them.
func (i *Installation) Replaced() []*Controller {
	return slices.Concat(i.role(kustomizeController), i.role(helmController), i.role(sourceWatcher), i.role(sourceController))
}

// Supported says why a version of Flux, or how it is set up, cannot be taken over from.
func (i *Installation) Supported() error {
	for _, c := range i.Replaced() {
		if err := cmp.Or(c.supportedVersion(i.Version), c.supportedSetup()); err != nil {
			return err
		}
	}
	return nil
}

// supportedVersion holds for controllers since their API is stable, in the major
// version of then, or the second of the distribution where only that is known.
func (c *Controller) supportedVersion(distribution string) error {
	major := "v1"
	if c.Role == sourceWatcher {
		major = "v2"
	}
	known := c.Version != "" && strings.HasPrefix(c.Version, major+".") ||
		c.Version == "" && strings.HasPrefix(distribution, "v2.")
	switch {
	case known:
		return nil
	case c.Version == "" && distribution == "":
		return c.unsupported("its image is named by digest, so its version is unknown", "label it "+versionLabel+"=v2.x.y, the version of Flux")
	default:
		return c.unsupported(fmt.Sprintf("its version is %s; %s is supported, of Flux v2", cmp.Or(c.Version, distribution), major), "upgrade Flux first")
	}
}

// The labels that the Flux Operator gives what it keeps up.
const (
	managedBy         = "app.kubernetes.io/managed-by"
	fluxOperator      = "flux-operator"
	operatorName      = "fluxcd.controlplane.io/name"
	operatorNamespace = "fluxcd.controlplane.io/namespace"
)

// supportedSetup holds for controllers that stay stopped once they are, and that
// serve what Bowline would: everything.
func (c *Controller) supportedSetup() error {
	instance, namespace := c.Labels[operatorName], c.Labels[operatorNamespace]
	if c.Labels[managedBy] == fluxOperator || instance != "" || namespace != "" {
		instance, namespace = cmp.Or(instance, "flux"), cmp.Or(namespace, c.Namespace)
		return c.unsupported("the Flux Operator manages it, and would start it again",
			fmt.Sprintf("remove FluxInstance/%s/%s first without its controllers: annotate it fluxcd.controlplane.io/reconcile=disabled, delete it, "+
				"and take the labels %s, %s and %s off the deployments", namespace, instance, managedBy, operatorName, operatorNamespace))
	}
	if c.Args["watch-all-namespaces"] == "false" {
		return c.unsupported("it serves its own namespace only (--watch-all-namespaces=false), and Bowline serves all", "let it serve all namespaces first")
	}
	if s := c.Args[watchSelector]; s != "" && !shards(s) {
		return c.unsupported("it serves some objects only (--"+watchSelector+"="+s+"), and Bowline serves all", "let it serve all objects first")
	}
	return nil
}

// watchSelector is the argument that makes a controller serve objects with labels
// only; shardKey is the label by which shards share all objects among themselves.
const (
	watchSelector = "watch-label-selector"
	shardKey      = "sharding.fluxcd.io/key"
)

// shards reports whether a selector is that of a shard and chooses by nothing else.
func shards(selector string) bool {
	s, err := labels.Parse(selector)
	if err != nil {
		return false
	}
	requirements, _ := s.Requirements()
	return !slices.ContainsFunc(requirements, func(r labels.Requirement) bool { return r.Key() != shardKey })
}

func (c *Controller) unsupported(why, remedy string) error {
	return &failure.Error{Op: "take over from", Object: c.String(), Kind: failure.Unsupported, Err: errors.New(why), Remedy: remedy}
}

// String names the deployment.
func (c *Controller) String() string { return "Deployment/" + c.Namespace + "/" + c.Name }

// Tag is the version for people.
func (c *Controller) Tag() string { return cmp.Or(c.Version, "version unknown") }
