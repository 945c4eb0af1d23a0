package pivot

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/version"
	kubeversion "k8s.io/apimachinery/pkg/version"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	clusterctlv1 "sigs.k8s.io/cluster-api/cmd/clusterctl/api/v1alpha3"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// installed is what a cluster has of Cluster API. Providers are named as the label of what they consist of names them, such as infrastructure-aws.
type installed struct {
	// listed are the providers in clusterctl's inventory, with their newest versions.
	listed map[string]string
	// running are those with a Deployment, with the newest version that an image of one has; empty where no image says one.
	running map[string]string
	// contract is the version in which Clusters are stored, by which clusterctl knows the contract; empty where there are none.
	contract string
}

// contracts is a kind whose objects move, and the contracts of Cluster API that it follows on either side.
type contracts struct {
	definition  string
	hub, target []string
}

// surveyInstalled reads what a cluster has of Cluster API.
func surveyInstalled(ctx context.Context, s Side) (i installed, err error) {
	i.listed, i.running = map[string]string{}, map[string]string{}
	providers := &clusterctlv1.ProviderList{}
	if err := s.Client.List(ctx, providers); err != nil && !apimeta.IsNoMatchError(err) {
		return i, wrap(err, "list the providers of Cluster API at %s", s.Config.Host)
	}
	for n := range providers.Items {
		newest(i.listed, providers.Items[n].ManifestLabel(), providers.Items[n].Version)
	}
	deployments := &appsv1.DeploymentList{}
	if err := s.Client.List(ctx, deployments, client.HasLabels{clusterv1.ProviderNameLabel}); err != nil {
		return i, wrap(err, "list the managers of Cluster API at %s", s.Config.Host)
	}
	for n := range deployments.Items {
		d := &deployments.Items[n]
		newest(i.running, d.Labels[clusterv1.ProviderNameLabel], versionOf(d))
	}
	clusters, err := definition(ctx, s, "clusters."+clusterv1.GroupVersion.Group)
	if clusters != nil {
		i.contract = stored(clusters)
	}
	return i, err
}

// newest notes a version of a provider, unless a newer one is noted. One that is no version is kept: it is told.
func newest(of map[string]string, name, v string) {
	was, known := of[name]
	if known && was != "" {
		before, errBefore := version.ParseSemantic(was)
		now, err := version.ParseSemantic(v)
		if v == "" || err == nil && (errBefore != nil || !before.LessThan(now)) {
			return
		}
	}
	of[name] = v
}

// versionOf is the version that the image of a manager says in its tag; empty where it says none.
func versionOf(d *appsv1.Deployment) string {
	for _, c := range d.Spec.Template.Spec.Containers {
		image, _, _ := strings.Cut(c.Image, "@")
		_, tag, _ := strings.Cut(image[strings.LastIndex(image, "/")+1:], ":")
		if _, err := version.ParseSemantic(tag); err == nil && (c.Name == "manager" || len(d.Spec.Template.Spec.Containers) == 1) {
			return tag
		}
	}
	return ""
}

// definition reads a custom resource definition; nil where there is none, or none any more.
func definition(ctx context.Context, s Side, name string) (*apiextensionsv1.CustomResourceDefinition, error) {
	d := &apiextensionsv1.CustomResourceDefinition{}
	err := s.Client.Get(ctx, client.ObjectKey{Name: name}, d)
	if apierrors.IsNotFound(err) || err == nil && d.DeletionTimestamp != nil {
		return nil, nil
	}
	return d, wrap(err, "read CustomResourceDefinition/%s", name)
}

// stored is the version of a kind in which its objects are stored.
func stored(d *apiextensionsv1.CustomResourceDefinition) string {
	for _, v := range d.Spec.Versions {
		if v.Storage {
			return v.Name
		}
	}
	return ""
}

// serves reports whether a definition has a version served.
func serves(d *apiextensionsv1.CustomResourceDefinition, name string) bool {
	return slices.ContainsFunc(d.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool { return v.Name == name && v.Served })
}

var aVersion = regexp.MustCompile(`^v\d+((alpha|beta)\d+)?$`)

// contractsOf are the contracts of Cluster API that a kind follows, the newest first. Its labels name them.
func contractsOf(d *apiextensionsv1.CustomResourceDefinition) (all []string) {
	for key := range d.Labels {
		if contract, ok := strings.CutPrefix(key, clusterv1.GroupVersion.Group+"/"); ok && aVersion.MatchString(contract) {
			all = append(all, contract)
		}
	}
	slices.SortFunc(all, func(a, b string) int { return kubeversion.CompareKubeAwareVersionStrings(b, a) })
	return all
}

const (
	upgradeTarget = "bring the target to what the hub has first: clusterctl upgrade apply"
	installTarget = "install Cluster API and the providers of the hub there, in the same versions: clusterctl init"
)

// ofVersions says where the target has an older Cluster API than the hub, or another one. Providers in clusterctl's inventory are judged as
// clusterctl judges them, which would find out when nothing can be given up any more; what runs is judged beside it, for clusters
// without an inventory.
func (f *facts) ofVersions(add func(object, why, remedy string)) {
	hub, target := f.hub.contract, f.target.contract
	switch moves := clusterv1.GroupVersion.Version; {
	case hub != "" && hub != moves:
		add("Cluster API", fmt.Sprintf("the hub has its contract %s, and only %s can be moved", hub, moves), "bring the hub to a release with that contract: clusterctl upgrade apply")
	case hub != "" && target != "" && hub != target:
		add("Cluster API", fmt.Sprintf("the hub has its contract %s, and the target %s", hub, target), upgradeTarget)
	}
	told := map[string]bool{}
	for _, of := range []struct{ hub, target map[string]string }{{f.hub.listed, f.target.listed}, {f.hub.running, f.target.running}} {
		for _, name := range slices.Sorted(maps.Keys(of.hub)) {
			has, known := of.target[name]
			if !known {
				has = f.target.running[name]
			}
			why, remedy := olderThan(of.hub[name], has, known)
			if why != "" && !told[name] {
				told[name] = true
				add("provider "+name+" of Cluster API", why, remedy)
			}
		}
	}
	for _, c := range f.contracts {
		if len(c.hub) > 0 && !slices.Contains(c.target, c.hub[0]) {
			add("CustomResourceDefinition/"+c.definition, fmt.Sprintf("on the hub it follows the contract %s of Cluster API, and on the target %s", c.hub[0], orNone(c.target)), upgradeTarget)
		}
	}
	for _, name := range f.unlabelled {
		add("CustomResourceDefinition/"+name, "Cluster API's move passes over kinds without the label "+clusterctlv1.ClusterctlLabel,
			fmt.Sprintf("label it: kubectl label crd %s %s=", name, clusterctlv1.ClusterctlLabel))
	}
}

// olderThan says what is wrong with the version that the target has of a provider, by that of the hub.
func olderThan(hub, target string, known bool) (why, remedy string) {
	if !known {
		why = fmt.Sprintf("the hub has %s, and the target has not got it", orUnknown(hub))
		if target != "" {
			why = fmt.Sprintf("the hub has %s, and the target, which runs %s, does not list it among its providers", orUnknown(hub), target)
		}
		return why, installTarget
	}
	if hub == "" || target == "" {
		return "", ""
	}
	is, err := version.ParseSemantic(hub)
	if err != nil {
		return fmt.Sprintf("the hub has %q, which is no version", hub), "correct its Provider: kubectl get providers -A"
	}
	has, err := version.ParseSemantic(target)
	switch {
	case err != nil:
		return fmt.Sprintf("the hub has %s, and the target %q, which is no version", hub, target), "correct its Provider: kubectl get providers -A"
	case has.LessThan(is):
		return fmt.Sprintf("the hub has %s, and the target %s, which is older", hub, target), upgradeTarget
	}
	return "", ""
}

func orUnknown(v string) string {
	if v == "" {
		return "a version that its image does not say"
	}
	return v
}

func orNone(all []string) string {
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, " and ")
}
