package helm

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"

	"helm.sh/helm/v4/pkg/chart/common"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Capabilities are what templates see of the cluster: its version and the API versions
// that it serves. They never change.
type Capabilities struct {
	caps   common.Capabilities
	digest string
}

// NewCapabilities returns the capabilities of a cluster. version is a Kubernetes version
// such as "v1.36.3", and apiVersions hold entries such as "apps/v1" and
// "apps/v1/Deployment"; they may come in any order and more than once.
func NewCapabilities(version string, apiVersions []string) (*Capabilities, error) {
	kube, err := common.ParseKubeVersion(version)
	if err != nil {
		return nil, &failure.Error{Op: "read", Kind: failure.Invalid, Object: fmt.Sprintf("Kubernetes version %q", version), Err: err}
	}
	sorted := slices.Clone(apiVersions)
	slices.Sort(sorted)
	sorted = slices.Compact(sorted)
	h := sha256.New()
	fmt.Fprintln(h, version)
	for _, v := range sorted {
		fmt.Fprintln(h, v)
	}
	return &Capabilities{
		caps:   common.Capabilities{KubeVersion: *kube, APIVersions: sorted, HelmVersion: common.DefaultCapabilities.HelmVersion},
		digest: hex.EncodeToString(h.Sum(nil)[:16]),
	}, nil
}

// DefaultCapabilities are those that Helm assumes where there is no cluster.
func DefaultCapabilities() *Capabilities {
	caps := common.DefaultCapabilities.Copy()
	return &Capabilities{caps: *caps, digest: "default " + caps.KubeVersion.Version}
}

// With returns the capabilities with another version of Kubernetes, unless it is empty,
// and more API versions.
func (c *Capabilities) With(version string, apiVersions []string) (*Capabilities, error) {
	if version == "" {
		version = c.caps.KubeVersion.Version
	}
	return NewCapabilities(version, slices.Concat(c.caps.APIVersions, apiVersions))
}

// Digest identifies the capabilities: equal digests, equal capabilities.
func (c *Capabilities) Digest() string { return c.digest }

// APIVersions returns the API versions that discovery tells, as templates ask for them: groups with their versions,
// and those with each of their kinds. They are sorted.
func APIVersions(groups []*metav1.APIGroup, lists []*metav1.APIResourceList) []string {
	var all []string
	for _, g := range groups {
		for _, v := range g.Versions {
			all = append(all, v.GroupVersion)
		}
	}
	for _, list := range lists {
		for _, res := range list.APIResources {
			all = append(all, path.Join(list.GroupVersion, res.Kind))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// capabilities returns what templates see, with what the chart itself defines where that
// will be there first.
func (req Request) capabilities(chart *chartv2.Chart) *common.Capabilities {
	caps := req.Capabilities.caps.Copy()
	if req.DefinitionsFirst {
		if own := definedVersions(chart); len(own) > 0 {
			caps.APIVersions = slices.Concat(caps.APIVersions, own)
		}
	}
	return caps
}

// definedVersions returns the API versions that a chart's crds folders define. What
// cannot be read is reported where the definitions themselves are.
func definedVersions(chart *chartv2.Chart) []string {
	var all []string
	for _, crd := range chart.CRDObjects() {
		for _, doc := range bytes.Split(append([]byte("\n"), crd.File.Data...), []byte("\n---")) {
			var definition struct {
				Spec struct {
					Group    string
					Names    struct{ Kind string }
					Versions []struct {
						Name   string
						Served bool
					}
				}
			}
			if yaml.Unmarshal(doc, &definition) != nil {
				continue
			}
			for _, v := range definition.Spec.Versions {
				if gv := definition.Spec.Group + "/" + v.Name; v.Served {
					all = append(all, gv, gv+"/"+definition.Spec.Names.Kind)
				}
			}
		}
	}
	return all
}
