package legacy

import (
	"cmp"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// FluxV1Options are what Flux v1 was told by arguments. What is empty is read from
// the Deployment of fluxd, where the tree holds one.
type FluxV1Options struct {
	// Daemon are the arguments of fluxd.
	Daemon Daemon
	// Namespace and Name are those of the objects that are made.
	Namespace, Name string
	// File is where they are written to, relative to the tree.
	File string
}

// Daemon are those arguments of fluxd that say what is delivered.
type Daemon struct {
	URL, Branch string
	Paths       []string
	Poll, Sync  time.Duration
	// Prune is --sync-garbage-collection.
	Prune bool
	// SOPS is --sops.
	SOPS bool
	// Secret holds the key for Git.
	Secret string
}

// FluxV1 rewrites what is Flux v1's own in the tree below dir: its annotations, its
// .flux.yaml files, and its arguments, which become a GitRepository and Kustomizations.
// Nothing is written: see Write.
func FluxV1(dir string, o FluxV1Options) (*Result, error) {
	t, err := readTree(dir)
	if err != nil {
		return nil, err
	}
	f := &fluxV1{tree: t, options: o, done: map[string]bool{}}
	f.findDaemon()
	for _, p := range t.paths() {
		if path.Base(p) != configFile && p != o.File {
			f.annotations(p)
		}
	}
	if err := f.deliver(); err != nil {
		return nil, err
	}
	return t.result(), nil
}

// fluxV1 is one translation on its way.
type fluxV1 struct {
	*tree
	options FluxV1Options
	// done says for each .flux.yaml whether all that it governs was translated.
	done map[string]bool
}

// fluxd is an image of the daemon.
var fluxd = regexp.MustCompile(`(^|/)(fluxcd|weaveworks)/flux(:|@|$)`)

// findDaemon reads the arguments of the daemon from its Deployment. What the user
// said counts more.
func (f *fluxV1) findDaemon() {
	for _, p := range f.paths() {
		for _, d := range split(p, f.files[p]) {
			containers := at(d.root, "spec", "template", "spec", "containers")
			if text(d.root, "kind") != "Deployment" || containers == nil {
				continue
			}
			for _, c := range containers.Content {
				if fluxd.MatchString(text(c, "image")) {
					f.readArguments(d, at(c, "args"))
					f.noteAt(d, c, "the daemon of Flux v1: stop it before the engine starts, and remove its manifests and those of memcached")
				}
			}
		}
	}
	d := &f.options.Daemon
	d.fill(Daemon{Branch: "master", Poll: 5 * time.Minute, Sync: 5 * time.Minute})
	d.Secret = cmp.Or(d.Secret, "flux-git-deploy")
}

// silent are arguments that say nothing about what is delivered.
var silent = regexp.MustCompile(`^--(memcached|registry|listen|ssh-keygen|connect|token|git-(user|email|set-author|ci-skip|label|notes-ref|sync-tag|timeout|signing-key|readonly)|sync-(timeout|state)|manifest-generation|k8s-(secret-volume|secret-data|unsafe)|log-format|docker-config|kubernetes-kubectl|automation-interval)`)

// readArguments takes over what the user did not say.
func (f *fluxV1) readArguments(doc *document, args *yaml.Node) {
	if args == nil {
		return
	}
	var read Daemon
	for _, n := range args.Content {
		name, value, given := strings.Cut(n.Value, "=")
		on := !given || value == "true"
		var err error
		switch name {
		case "--git-url":
			read.URL = value
		case "--git-branch":
			read.Branch = value
		case "--git-path":
			read.Paths = append(read.Paths, strings.Split(value, ",")...)
		case "--git-poll-interval":
			read.Poll, err = time.ParseDuration(value)
		case "--sync-interval":
			read.Sync, err = time.ParseDuration(value)
		case "--sync-garbage-collection":
			read.Prune = on
		case "--sops":
			read.SOPS = on
		case "--k8s-secret-name":
			read.Secret = value
		default:
			if !silent.MatchString(name) {
				f.noteAt(doc, n, "fluxd's argument %s is not translated", n.Value)
			}
		}
		if err != nil {
			f.noteAt(doc, n, "%s is no duration", n.Value)
		}
	}
	f.options.Daemon.fill(read)
}

// fill takes over what d does not say.
func (d *Daemon) fill(read Daemon) {
	d.URL, d.Branch, d.Secret = cmp.Or(d.URL, read.URL), cmp.Or(d.Branch, read.Branch), cmp.Or(d.Secret, read.Secret)
	d.Poll, d.Sync = cmp.Or(d.Poll, read.Poll), cmp.Or(d.Sync, read.Sync)
	d.Prune, d.SOPS = d.Prune || read.Prune, d.SOPS || read.SOPS
	if len(d.Paths) == 0 {
		d.Paths = read.Paths
	}
}

// ignored are the annotations by which Flux v1 left an object alone.
var ignored = []string{"fluxcd.io/ignore", "flux.weave.works/ignore"}

// annotations rewrites the annotations of one file.
func (f *fluxV1) annotations(p string) {
	whole := string(f.files[p])
	if !strings.Contains(whole, "fluxcd.io/") && !strings.Contains(whole, "flux.weave.works/") {
		return
	}
	docs := split(p, f.files[p])
	for _, d := range docs {
		annotations := at(d.root, "metadata", "annotations")
		if annotations == nil {
			continue
		}
		for i := 0; i+1 < len(annotations.Content); i += 2 {
			f.annotation(d, annotations.Content[i], annotations.Content[i+1])
		}
	}
	f.after[p] = join(docs)
}

func (f *fluxV1) annotation(d *document, key, value *yaml.Node) {
	group, name, _ := strings.Cut(key.Value, "/")
	switch {
	case slices.Contains(ignored, key.Value) && value.Value == "sync_only":
		f.replace(d, key, value, "kustomize.toolkit.fluxcd.io/prune")
	case slices.Contains(ignored, key.Value) && value.Value == "true":
		f.replace(d, key, value, "kustomize.toolkit.fluxcd.io/reconcile")
	case slices.Contains(ignored, key.Value):
		f.noteAt(d, key, "%s: %s had no effect: remove it", key.Value, value.Value)
	case !slices.Contains(groups, group):
	case name == "automated" && value.Value != "true", strings.HasPrefix(name, "locked"):
		f.noteAt(d, key, "%s kept images from being updated: they stay unless a line names an image policy, so remove it", key.Value)
	default:
		f.noteAt(d, key, "%s: %s updated images in Git; make an ImageRepository, an ImagePolicy%s and an ImageUpdateAutomation of it, mark the line of the image with the policy, and remove it",
			key.Value, value.Value, policyHint(value.Value))
	}
}

// groups are those of Flux v1's annotations; all but the first two are about images alone.
var groups = []string{"fluxcd.io", "flux.weave.works", "repository.fluxcd.io", "registry.fluxcd.io", "tag.fluxcd.io", "filter.fluxcd.io"}

// policyHint says what a filter of Flux v1 is in an ImagePolicy.
func policyHint(filter string) string {
	kind, pattern, _ := strings.Cut(filter, ":")
	switch pattern = strings.TrimSpace(pattern); kind {
	case "semver":
		return " (policy.semver.range: " + quoted(pattern) + ")"
	case "glob":
		pattern = "^" + globPattern(pattern) + "$"
	case "regex", "regexp":
	default:
		return ""
	}
	return " (filterTags.pattern: " + quoted(pattern) + ", and a policy that orders the tags, since the time of an image is not looked at)"
}

// quoted is a text in YAML's single quotes.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func globPattern(glob string) string {
	return strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(glob))
}

// replace writes another annotation in the place of one.
func (f *fluxV1) replace(d *document, key, value *yaml.Node, name string) {
	i := key.Line - 1
	if value.Line != key.Line {
		f.noteAt(d, key, "%s is not on one line with its value and is not translated: it is %s: disabled today", key.Value, name)
		return
	}
	before, rest := d.lines[i][:key.Column-1], d.lines[i][key.Column-1:]
	_, after, _ := strings.Cut(rest, key.Value)
	old := after
	after = strings.Replace(after, value.Value, "disabled", 1)
	// Quotes around the key are kept by what is left of it.
	quote := ""
	if strings.HasPrefix(rest, `"`) || strings.HasPrefix(rest, "'") {
		quote = rest[:1]
	}
	if after == old {
		f.noteAt(d, key, "%s is not translated: it is %s: disabled today", key.Value, name)
		return
	}
	d.lines[i] = before + quote + name + after
}
