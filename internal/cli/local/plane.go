// Package local is the room of the planes that run on this machine: a control
// plane, an engine and a Git server as background processes, with a folder of
// their own. It starts, finds and stops processes; what they are told to
// deliver is not its business.
package local

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/bowline-dev/bowline/internal/background"
	"github.com/bowline-dev/bowline/internal/failure"
)

// Plane is one management plane on this machine, whether it runs or not.
type Plane struct {
	// Name tells it from others on the machine.
	Name string
	// Dir holds everything that is its own, but the data of the control plane.
	Dir string
	// Clusters is the folder of all embedded control planes.
	Clusters string

	home string
}

// Settings are what a plane remembers from one start to the next.
type Settings struct {
	// Existing is true when the plane works on a cluster that it did not make.
	Existing bool `json:"existing,omitempty"`
	// Kubeconfig, KubeconfigEnv and Context say how to reach the cluster.
	Kubeconfig    string `json:"kubeconfig,omitempty"`
	KubeconfigEnv string `json:"kubeconfigEnv,omitempty"`
	Context       string `json:"context,omitempty"`
	// Server is the address of the API server.
	Server string `json:"server,omitempty"`
	// HealthAddr and MetricsAddr are where the engine answers.
	HealthAddr  string `json:"healthAddr,omitempty"`
	MetricsAddr string `json:"metricsAddr,omitempty"`
	// ProviderAddr is where the local provider answers, and ProviderProgram the build that runs as it.
	ProviderAddr    string `json:"providerAddr,omitempty"`
	ProviderProgram string `json:"providerProgram,omitempty"`
	// Program identifies the build of the program that runs as the engine.
	Program string `json:"program,omitempty"`
	// GitAddr is where the Git server answers.
	GitAddr string `json:"gitAddr,omitempty"`
	// URL is the repository that the plane serves itself.
	URL string `json:"url,omitempty"`
	// Example is what the repository was made from.
	Example string `json:"example,omitempty"`
	// Hub is the control plane among the plane's members that is its hub, since the plane was moved into it; empty before.
	Hub string `json:"hub,omitempty"`
	// Left is the hub that the plane was before, for as long as it is needed; nil when that is over.
	Left *Left `json:"left,omitempty"`
	// Repo, Path and Branch are what --repo, --path and --branch said.
	Repo   string `json:"repo,omitempty"`
	Path   string `json:"path,omitempty"`
	Branch string `json:"branch,omitempty"`
}

// Left is a hub that a plane is moved out of.
type Left struct {
	// Kubeconfig and Server say how to reach it.
	Kubeconfig string `json:"kubeconfig"`
	Server     string `json:"server"`
	// Cluster is the FleetCluster that becomes the hub instead, as namespace/name.
	Cluster string `json:"cluster"`
}

var validName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// Open finds the plane with the given name. Its folder is below $BOWLINE_HOME,
// else $XDG_DATA_HOME/bowline, else ~/.local/share/bowline, and is not made yet.
func Open(name string) (*Plane, error) {
	if !validName.MatchString(name) {
		return nil, &failure.Error{Op: "read flag", Object: "--name", Kind: failure.Invalid,
			Err: errors.New("\"" + name + "\" is not a name: use small letters, digits and dashes")}
	}
	home, err := homeDir()
	if err != nil {
		return nil, err
	}
	return &Plane{Name: name, Dir: filepath.Join(home, "planes", name), Clusters: filepath.Join(home, "clusters"), home: home}, nil
}

func homeDir() (string, error) {
	if dir := os.Getenv("BOWLINE_HOME"); dir != "" {
		return filepath.Abs(dir)
	}
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "bowline"), nil
	}
	user, err := os.UserHomeDir()
	if err != nil {
		return "", &failure.Error{Op: "find the data folder", Kind: failure.NotFound, Err: err, Remedy: "set BOWLINE_HOME"}
	}
	return filepath.Join(user, ".local", "share", "bowline"), nil
}

// RunningKubeconfig returns the kubeconfig of the first plane, by name, whose engine runs on this machine; "" where none does. What
// cannot be read is passed over.
func RunningKubeconfig() string {
	home, err := homeDir()
	if err != nil {
		return ""
	}
	entries, err := os.ReadDir(filepath.Join(home, "planes"))
	if err != nil {
		return ""
	}
	for _, entry := range entries {
		p, err := Open(entry.Name())
		if err != nil {
			continue
		}
		if _, runs := p.Engine().Running(); !runs {
			continue
		}
		if s, err := p.Settings(); err == nil && s.Kubeconfig != "" {
			return s.Kubeconfig
		}
	}
	return ""
}

// Path returns a path below the plane's folder.
func (p *Plane) Path(elem ...string) string {
	return filepath.Join(append([]string{p.Dir}, elem...)...)
}

// Exists reports whether the plane was ever started and not deleted since.
func (p *Plane) Exists() bool {
	_, err := os.Stat(p.Path(settingsFile))
	return err == nil
}

// Engine is the plane's engine.
func (p *Plane) Engine() background.Service { return p.service("engine") }

// Git is the plane's Git server.
func (p *Plane) Git() background.Service { return p.service("git") }

func (p *Plane) service(name string) background.Service {
	return background.Service{Dir: p.Dir, Name: name}
}

// Lock keeps other commands from starting or stopping the same plane until
// release is called. It makes the plane's folder.
func (p *Plane) Lock() (release func(), err error) {
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return nil, &failure.Error{Op: "make folder", Object: p.Dir, Kind: failure.Denied, Err: err}
	}
	f, err := background.TryLock(p.Path("lock"))
	if errors.Is(err, background.ErrLocked) {
		return nil, &failure.Error{Op: "lock", Object: p.Dir, Kind: failure.Conflict,
			Err: errors.New("another command is starting or stopping it"), Remedy: "wait until that is done"}
	}
	if err != nil {
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}

const settingsFile = "plane.json"

// Settings reads what the plane remembers; a plane that was never started
// remembers nothing.
func (p *Plane) Settings() (Settings, error) {
	var s Settings
	raw, err := os.ReadFile(p.Path(settingsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	if err != nil {
		return s, &failure.Error{Op: "read", Object: p.Path(settingsFile), Kind: failure.Invalid, Err: err}
	}
	return s, nil
}

// Remember writes the settings down.
func (p *Plane) Remember(s Settings) error {
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := background.WriteFile(p.Path(settingsFile), append(raw, '\n')); err != nil {
		return &failure.Error{Op: "write", Object: p.Path(settingsFile), Kind: failure.Denied, Err: err}
	}
	return nil
}

// Remove deletes the plane's folder, and the folders above it that are then empty
// up to the data folder itself.
func (p *Plane) Remove() error {
	if err := os.RemoveAll(p.Dir); err != nil {
		return &failure.Error{Op: "remove", Object: p.Dir, Kind: failure.Denied, Err: err}
	}
	for _, dir := range []string{filepath.Dir(p.Dir), p.Clusters, p.home} {
		// Fails where something else is still inside, as it should.
		_ = os.Remove(dir)
	}
	return nil
}
