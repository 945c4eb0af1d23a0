package legacy

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/bowline-dev/bowline/internal/failure"
)

// configFile tells Flux v1 how to generate manifests.
const configFile = ".flux.yaml"

// deliver makes the objects that say what is delivered, of fluxd's arguments and the
// .flux.yaml files.
func (f *fluxV1) deliver() error {
	paths, err := f.targets()
	if err != nil {
		return err
	}
	var folders []string
	for _, p := range paths {
		folders = append(folders, f.target(p)...)
	}
	for config, ok := range f.done {
		if ok {
			f.after[config] = nil
		}
	}
	slices.Sort(folders)
	if folders = slices.Compact(folders); len(folders) > 0 {
		f.syncObjects(folders)
	}
	return nil
}

// targets are the folders that Flux v1 delivered: those that it was told, or those that
// hold a .flux.yaml of their own.
func (f *fluxV1) targets() ([]string, error) {
	var out []string
	for _, p := range f.options.Daemon.Paths {
		clean := path.Clean(strings.TrimPrefix(p, "/"))
		if clean == ".." || strings.HasPrefix(clean, "../") {
			return nil, &failure.Error{Op: "read flag", Object: "--git-path", Kind: failure.Invalid, Err: fmt.Errorf("%q is outside of the repository", p)}
		}
		if !slices.ContainsFunc(f.paths(), func(file string) bool { return clean == "." || strings.HasPrefix(file, clean+"/") }) {
			return nil, &failure.Error{Op: "read flag", Object: "--git-path", Kind: failure.NotFound, Err: fmt.Errorf("there is nothing in %q", p)}
		}
		out = append(out, clean)
	}
	if len(out) > 0 {
		return out, nil
	}
	for _, p := range f.paths() {
		if path.Base(p) != configFile {
			continue
		}
		if dir := path.Dir(p); f.kustomizationOf(dir) != "" {
			out = append(out, dir)
			continue
		}
		f.note(p, 1, "governs folders below it that cannot be told from here: name those that fluxd delivered with --git-path")
	}
	if len(out) == 0 && f.options.Daemon.URL != "" {
		out = []string{"."}
	}
	return out, nil
}

// target returns the folders to deliver for one target path.
func (f *fluxV1) target(dir string) []string {
	config := f.configOf(dir)
	if config == "" {
		f.scanned(dir)
		return []string{dir}
	}
	if _, ok := f.done[config]; !ok {
		f.done[config] = true
	}
	doc := mappingOf(split(config, f.files[config]))
	switch {
	case field(doc.root, "scanForFiles").key != nil:
		f.scanned(dir)
		return []string{dir}
	case field(doc.root, "patchUpdated").key != nil:
		folders := f.generators(doc, dir, at(doc.root, "patchUpdated", "generators"))
		f.patchFile(doc, dir, folders)
		return folders
	case field(doc.root, "commandUpdated").key != nil:
		if e := field(at(doc.root, "commandUpdated"), "updaters"); e.key != nil {
			f.noteAt(doc, e.key, "updaters wrote new images into Git by commands of yours: an ImageUpdateAutomation does that today")
		}
		return f.generators(doc, dir, at(doc.root, "commandUpdated", "generators"))
	}
	f.done[config] = false
	f.note(config, 1, "is no configuration of Flux v1: it has none of patchUpdated, commandUpdated and scanForFiles")
	return nil
}

// mappingOf is the first document that is a mapping, or else the first one.
func mappingOf(docs []*document) *document {
	return docs[max(0, slices.IndexFunc(docs, func(d *document) bool { return d.root != nil }))]
}

// configOf is the .flux.yaml that governs a folder: its own, or the next above it.
func (f *fluxV1) configOf(dir string) string {
	for {
		p := path.Join(dir, configFile)
		if _, ok := f.files[p]; ok {
			return p
		}
		if dir == "." {
			return ""
		}
		dir = path.Dir(dir)
	}
}

// scanned notes what today's engines do otherwise with a folder of plain manifests.
func (f *fluxV1) scanned(dir string) {
	for _, p := range f.paths() {
		if path.Base(p) == "Chart.yaml" && (dir == "." || strings.HasPrefix(p, dir+"/")) {
			f.note(p, 0, "Flux v1 passed over charts among manifests, and a Kustomization does not: name %s/ in a .sourceignore at the top of the repository", path.Dir(p))
		}
	}
}

// kustomizeBuild is a command that a Kustomization does by itself.
var kustomizeBuild = regexp.MustCompile(`^\s*(?:kustomize\s+build|kubectl\s+kustomize)((?:\s+-[^\s]+)*)(?:\s+([^\s;|&<>$` + "`" + `-][^\s;|&<>$` + "`" + `]*))?((?:\s+-[^\s]+)*)\s*$`)

// generators returns the folders that the commands build.
func (f *fluxV1) generators(doc *document, dir string, commands *yaml.Node) []string {
	if commands == nil {
		return nil
	}
	var out []string
	for _, n := range commands.Content {
		command := at(n, "command")
		if command == nil {
			continue
		}
		m := kustomizeBuild.FindStringSubmatch(command.Value)
		if m == nil {
			f.done[doc.path] = false
			f.noteAt(doc, command, "no engine of today runs commands from Git, such as %q: commit what it prints, use a kustomization, or a HelmRelease where it renders a chart", oneLine(command.Value))
			continue
		}
		if options := strings.TrimSpace(m[1] + " " + m[3]); options != "" {
			f.noteAt(doc, command, "the options %s are not passed on: a Kustomization builds without plugins, and loads files from the whole repository", options)
		}
		folder := path.Join(dir, m[2])
		if folder == ".." || strings.HasPrefix(folder, "../") {
			f.done[doc.path] = false
			f.noteAt(doc, command, "builds a folder outside of the repository")
			continue
		}
		out = append(out, folder)
	}
	return out
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// patchFile makes the patches in which Flux v1 kept updates part of the kustomization.
func (f *fluxV1) patchFile(doc *document, dir string, folders []string) {
	e := field(at(doc.root, "patchUpdated"), "patchFile")
	file := path.Join(dir, text(at(doc.root, "patchUpdated"), "patchFile"))
	if _, ok := f.files[file]; e.key == nil || !ok {
		return // it was to be made with the first update
	}
	if len(folders) != 1 || f.kustomizationOf(folders[0]) == "" {
		f.done[doc.path] = false
		f.noteAt(doc, e.key, "the patches in %s belong to more than one kustomization, or to none: name them in its patches", file)
		return
	}
	kustomization := f.kustomizationOf(folders[0])
	name := strings.TrimPrefix(file, folders[0]+"/")
	whole, _ := f.text(kustomization)
	if folders[0] != "." && name == file {
		f.done[doc.path] = false
		f.noteAt(doc, e.key, "the patches in %s are outside of the folder of %s: move them there and name them in its patches", file, kustomization)
		return
	}
	after, ok := withPatch(kustomization, whole, name)
	if !ok {
		f.done[doc.path] = false
		f.note(kustomization, 1, "could not be given the patches in %s: add `- path: %s` to its patches", file, name)
		return
	}
	f.after[kustomization] = after
}

// withPatch adds a file of patches to a kustomization.
func withPatch(p string, whole []byte, name string) ([]byte, bool) {
	docs := split(p, whole)
	d := mappingOf(docs)
	if d.root == nil || d.root.Style&yaml.FlowStyle != 0 {
		return nil, false
	}
	patches := at(d.root, "patches")
	if patches == nil {
		d.lines = append(terminated(d.lines), "patches:\n", "  - path: "+name+"\n")
		return join(docs), true
	}
	for _, n := range patches.Content {
		if text(n, "path") == name {
			return whole, true
		}
	}
	if patches.Kind != yaml.SequenceNode || patches.Style&yaml.FlowStyle != 0 || len(patches.Content) == 0 {
		return nil, false
	}
	// The first column of an item is that of what follows its dash.
	line := strings.Repeat(" ", patches.Content[0].Column-3) + "- path: " + name + "\n"
	end := d.end("patches")
	for strings.TrimSpace(d.lines[end-1]) == "" {
		end--
	}
	d.lines = slices.Insert(terminated(d.lines), end, line)
	return join(docs), true
}
