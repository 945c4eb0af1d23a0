package legacy

import (
	"path"
	"regexp"
	"strings"
)

// syncObjects writes the GitRepository and the Kustomizations of folders. Objects that the
// file holds already stay as they are.
func (f *fluxV1) syncObjects(folders []string) {
	o := f.options
	if o.Daemon.URL == "" {
		for config := range f.done {
			f.done[config] = false
			delete(f.after, config)
		}
		f.note("", 0, "it is not known where fluxd delivered from: say so with --git-url, and a GitRepository and Kustomizations are made for %s", strings.Join(folders, ", "))
		return
	}
	before, _ := f.text(o.File)
	docs := split(o.File, before)
	has := func(kind, name, folder string) bool {
		for _, d := range docs {
			if text(d.root, "kind") == kind && (text(d.root, "metadata", "name") == name || folder != "" && path.Clean(text(d.root, "spec", "path")) == folder) {
				return true
			}
		}
		return false
	}
	out := terminated(strings.SplitAfter(strings.TrimSuffix(string(before), "\n"), "\n"))
	if len(before) == 0 {
		out = nil
	}
	add := func(object *mapping) {
		if len(out) > 0 {
			out = append(out, "---\n")
		}
		out = append(out, render(1, &object.Node)...)
	}
	if !has("GitRepository", o.Name, "") {
		add(f.gitRepository())
	}
	for _, folder := range folders {
		if name := f.kustomizationName(folder); !has("Kustomization", name, folder) {
			add(f.kustomization(name, folder))
		}
	}
	f.after[o.File] = []byte(strings.Join(out, ""))
}

func (f *fluxV1) object(api, kind, name string, spec *mapping) *mapping {
	metadata := newMapping().set("name", word(name)).set("namespace", word(f.options.Namespace))
	return newMapping().set("apiVersion", word(api)).set("kind", word(kind)).add("metadata", metadata).add("spec", spec)
}

func (f *fluxV1) gitRepository() *mapping {
	d := f.options.Daemon
	url := unshortened(d.URL)
	spec := newMapping().set("interval", word(short(d.Poll))).set("url", word(url)).add("ref", newMapping().set("branch", word(d.Branch)))
	if strings.HasPrefix(url, "ssh://") {
		spec.add("secretRef", newMapping().set("name", word(d.Secret)))
		f.note(f.options.File, 0, "the Secret %s/%s needs the key known_hosts besides identity, and to be in that namespace", f.options.Namespace, d.Secret)
	}
	return f.object("source.toolkit.fluxcd.io/v1", "GitRepository", f.options.Name, spec)
}

func (f *fluxV1) kustomization(name, folder string) *mapping {
	d := f.options.Daemon
	at := "./"
	if folder != "." {
		at += folder
	}
	spec := newMapping().set("interval", word(short(d.Sync))).set("path", word(at))
	spec.set("prune", truth(d.Prune))
	if !d.Prune {
		f.note(f.options.File, 0, "prune is false, as fluxd ran without --sync-garbage-collection: what is removed from Git stays on the cluster")
	}
	if d.SOPS {
		spec.add("decryption", newMapping().set("provider", word("sops")))
		f.note(f.options.File, 0, "keys for SOPS were mounted into fluxd: put them into a Secret and name it in spec.decryption.secretRef")
	}
	spec.add("sourceRef", newMapping().set("kind", word("GitRepository")).set("name", word(f.options.Name)))
	return f.object("kustomize.toolkit.fluxcd.io/v1", "Kustomization", name, spec)
}

// notInNames is what a name of an object may not hold.
var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// kustomizationName makes a name of a folder.
func (f *fluxV1) kustomizationName(folder string) string {
	if folder == "." {
		return f.options.Name
	}
	return strings.Trim(notInNames.ReplaceAllString(strings.ToLower(folder), "-"), "-")
}
