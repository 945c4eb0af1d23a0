// Package shipped is the room where the templates at the top of the repository are found, with their
// examples and with the definitions that their providers publish. It is for tests: those of
// internal/fleet/template judge what the examples become by the definitions alone, and those here
// by a real API server with the managers that can run beside it.
//
// The definitions of Cluster API and of its provider for AWS are in their modules, which
// tools/capi and tools/capa pin. Those of the providers for Azure and vSphere are in no module that
// can be pinned: the environment variable BOWLINE_CRDS names a folder with them, as
// azure/<group>_<plural>.yaml and vsphere/<group>_<plural>.yaml. Without it they are told to be missing.
package shipped

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// Example is a FleetCluster of one of the templates that ship.
type Example struct {
	Name     string // template-example
	File     string
	Template *fleetv1.ClusterTemplate // in the namespace of the FleetCluster
	Cluster  *fleetv1.FleetCluster
}

// Examples reads those of the repository at root, in the order of their names. An unknown
// field in a file is an error, as is that there are none.
func Examples(root string) ([]Example, error) {
	files, err := filepath.Glob(filepath.Join(root, "templates", "*", "examples", "*.yaml"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: no examples in templates", root)
	}
	all := make([]Example, 0, len(files))
	for _, file := range files {
		folder := filepath.Dir(filepath.Dir(file))
		e := Example{File: file, Template: &fleetv1.ClusterTemplate{}, Cluster: &fleetv1.FleetCluster{}}
		e.Name = filepath.Base(folder) + "-" + strings.TrimSuffix(filepath.Base(file), ".yaml")
		if err := errors.Join(decode(filepath.Join(folder, "template.yaml"), e.Template), decode(file, e.Cluster)); err != nil {
			return nil, err
		}
		e.Template.Namespace = e.Cluster.Namespace
		all = append(all, e)
	}
	return all, nil
}

func decode(file string, into any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := yaml.UnmarshalStrict(text, into); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// Definitions are the custom resource definitions of one provider.
type Definitions struct {
	Provider string // core, kubeadm, aws, local, azure, vsphere
	// Folders hold a file for each definition, called <group>_<plural>.yaml.
	Folders []string
	// Missing says what to do to have them, where they are not here; then there are no Folders.
	Missing string
}

// Find finds the definitions of all kinds that the templates of the repository at root make.
func Find(ctx context.Context, root string) []Definitions {
	core, coreErr := moduleDir(ctx, filepath.Join(root, "tools", "capi"), "sigs.k8s.io/cluster-api")
	aws, awsErr := moduleDir(ctx, filepath.Join(root, "tools", "capa"), "sigs.k8s.io/cluster-api-provider-aws/v2")
	all := []Definitions{
		{Provider: "core", Folders: []string{below(core, "config/crd/bases")}, Missing: download("capi", coreErr)},
		{Provider: "kubeadm", Missing: download("capi", coreErr),
			Folders: []string{below(core, "controlplane/kubeadm/config/crd/bases"), below(core, "bootstrap/kubeadm/config/crd/bases")}},
		{Provider: "aws", Folders: []string{below(aws, "config/crd/bases")}, Missing: download("capa", awsErr)},
		{Provider: "local", Folders: []string{below(root, "internal/crds/local")}},
	}
	folder := os.Getenv("BOWLINE_CRDS")
	for _, provider := range []string{"azure", "vsphere"} {
		d := Definitions{Provider: provider, Folders: []string{filepath.Join(folder, provider)}}
		if folder == "" {
			d.Missing = "set BOWLINE_CRDS to a folder with its definitions"
		}
		all = append(all, d)
	}
	for i := range all {
		if all[i].Missing != "" {
			all[i].Folders = nil
		}
	}
	return all
}

func below(dir, slashed string) string { return filepath.Join(dir, filepath.FromSlash(slashed)) }

func download(tool string, err error) string {
	if err == nil {
		return ""
	}
	return fmt.Sprintf("run `go mod download` in tools/%s (%v)", tool, err)
}

// moduleDir returns where the module is that the module of a tool pins. It downloads nothing.
func moduleDir(ctx context.Context, tool, module string) (string, error) {
	list := exec.CommandContext(ctx, "go", "list", "-m", "-json", module)
	list.Dir = tool
	list.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOPROXY=off", "GOWORK=off")
	out, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("go list -m %s: %w", module, err)
	}
	var found struct{ Dir string }
	if err := json.Unmarshal(out, &found); err != nil {
		return "", err
	}
	if found.Dir == "" {
		return "", fmt.Errorf("%s is not in the cache of modules", module)
	}
	return found.Dir, nil
}
