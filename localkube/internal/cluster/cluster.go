// Package cluster is the front desk of the local clusters: where each keeps its data, which
// process holds it, and how it is started, looked at, stopped and deleted.
//
// A cluster is one folder, <root>/<name>:
//
//	cluster.json   what it was started with: port, components, nodes
//	etcd/          its data
//	pki/           its certificates and keys
//	kubeconfig     its administrator, mode 0600
//	lock           held by the process that runs it
//	localkube.log  what the components have to say
package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Components that can be chosen; etcd and the API server always run.
const (
	ComponentAPIServer         = "apiserver"
	ComponentControllerManager = "controller-manager"
	ComponentScheduler         = "scheduler"
	ComponentNodes             = "nodes"
)

// ComponentsAll stands for every component.
const ComponentsAll = "all"

// AllComponents lists every component, in the order in which they start.
func AllComponents() []string {
	return []string{ComponentAPIServer, ComponentControllerManager, ComponentScheduler, ComponentNodes}
}

// ParseComponents reads a comma-separated list of components, or "all".
func ParseComponents(text string) ([]string, error) {
	if text == ComponentsAll {
		return AllComponents(), nil
	}
	wanted := strings.Split(text, ",")
	for _, component := range wanted {
		if !slices.Contains(AllComponents(), component) {
			return nil, fmt.Errorf("unknown component %q: choose %s, or some of %s", component, ComponentsAll,
				strings.Join(AllComponents(), ","))
		}
	}
	var chosen []string
	for _, component := range AllComponents() {
		if component == ComponentAPIServer || slices.Contains(wanted, component) {
			chosen = append(chosen, component)
		}
	}
	return chosen, nil
}

// State is what a cluster remembers over restarts; the content of cluster.json.
type State struct {
	Name       string   `json:"name"`
	Port       int      `json:"port"`              // of the API server, on 127.0.0.1
	Components []string `json:"components"`        // what runs
	Nodes      int      `json:"nodes"`             // how many simulated nodes
	Emulate    string   `json:"emulate,omitempty"` // minor version that it behaves like
	NoFsync    bool     `json:"noFsync,omitempty"`
}

func (s State) runs(component string) bool { return slices.Contains(s.Components, component) }

// Cluster is one cluster, which may or may not exist, and may or may not run.
type Cluster struct {
	Name string
	Dir  string // absolute
}

var validName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?$`)

// Open returns the named cluster under root without looking whether it exists.
func Open(root, name string) (Cluster, error) {
	if !validName.MatchString(name) {
		return Cluster{}, fmt.Errorf("cluster name %q: use up to 53 lower-case letters, digits and dashes, with a letter or digit at both ends", name)
	}
	absolute, err := filepath.Abs(root)
	if err != nil {
		return Cluster{}, fmt.Errorf("cluster root %s: %w", root, err)
	}
	return Cluster{Name: name, Dir: filepath.Join(absolute, name)}, nil
}

// List returns the clusters under root, by name.
func List(root string) ([]Cluster, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list clusters: %w", err)
	}
	var clusters []Cluster
	for _, entry := range entries {
		c, err := Open(root, entry.Name())
		if err == nil && entry.IsDir() && c.Exists() {
			clusters = append(clusters, c)
		}
	}
	return clusters, nil
}

// DefaultRoot is where clusters are kept unless told otherwise: $BOWLINE_HOME/clusters, else
// $XDG_DATA_HOME/bowline/clusters, else ~/.local/share/bowline/clusters.
func DefaultRoot(getenv func(string) string) (string, error) {
	if home := getenv("BOWLINE_HOME"); home != "" {
		return filepath.Join(home, "clusters"), nil
	}
	if data := getenv("XDG_DATA_HOME"); data != "" {
		return filepath.Join(data, "bowline", "clusters"), nil
	}
	home := getenv("HOME")
	if home == "" {
		return "", errors.New("nowhere to keep clusters: none of BOWLINE_HOME, XDG_DATA_HOME and HOME is set; set one, or use --root")
	}
	return filepath.Join(home, ".local", "share", "bowline", "clusters"), nil
}

// Kubeconfig is the path of the administrator's kubeconfig.
func (c Cluster) Kubeconfig() string { return filepath.Join(c.Dir, "kubeconfig") }

// Log is the path of the log.
func (c Cluster) Log() string { return filepath.Join(c.Dir, "localkube.log") }

func (c Cluster) stateFile() string { return filepath.Join(c.Dir, "cluster.json") }

// Exists says whether the cluster was ever started.
func (c Cluster) Exists() bool {
	_, err := os.Stat(c.stateFile())
	return err == nil
}

// ErrNotFound is wrapped by errors about a cluster that was never started.
var ErrNotFound = errors.New("no such cluster")

// State reads what the cluster remembers.
func (c Cluster) State() (State, error) {
	data, err := os.ReadFile(c.stateFile())
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, fmt.Errorf("cluster %q: %w in %s; make it with: localkube start %s", c.Name, ErrNotFound, filepath.Dir(c.Dir), c.Name)
	}
	if err != nil {
		return State{}, fmt.Errorf("cluster %q: %w", c.Name, err)
	}
	var state State
	if err := json.Unmarshal(data, &state); err != nil {
		return State{}, fmt.Errorf("cluster %q: read %s: %w; delete the file to have it made anew, with another port", c.Name, c.stateFile(), err)
	}
	return state, nil
}

func (c Cluster) saveState(state State) error {
	data, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return fmt.Errorf("cluster %q: encode state: %w", c.Name, err)
	}
	temporary := c.stateFile() + ".new"
	if err := os.WriteFile(temporary, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("cluster %q: write state: %w", c.Name, err)
	}
	if err := os.Rename(temporary, c.stateFile()); err != nil {
		return fmt.Errorf("cluster %q: write state: %w", c.Name, err)
	}
	return nil
}
