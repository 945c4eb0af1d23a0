package legacy

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// chart is the new field of that name.
func (r *release) chart(old *yaml.Node) *mapping {
	old = resolve(old)
	spec := newMapping()
	switch {
	case r.partial:
		r.partialChart(spec, old)
	case text(old, "git") != "":
		r.gitChart(spec, old)
	default:
		r.repositoryChart(spec, old)
	}
	return newMapping().add("spec", spec)
}

func (r *release) repositoryChart(spec *mapping, old *yaml.Node) {
	spec.move("chart", field(old, "name")).move("version", field(old, "version"))
	if text(old, "version") == "" {
		r.note(old, "%s: the chart has no version, so that every new one is installed", r.where())
	}
	address := field(old, "repository")
	url := address.value.Value
	switch scheme, _, _ := strings.Cut(url, "://"); {
	case strings.Contains(url, "kubernetes-charts.storage.googleapis.com"):
		r.note(address.key, "%s does not answer any more; the charts are kept at https://charts.helm.sh/stable", url)
	case scheme != "http" && scheme != "https":
		r.note(address.key, "no engine of today fetches charts from %s, which took a plugin of the Helm Operator: serve them over HTTP or from an OCI registry, or from a Bucket", url)
	}
	if e := field(old, "chartPullSecret"); e.key != nil {
		r.note(e.key, "chart.chartPullSecret never had an effect and is left out; a HelmRepository has spec.secretRef for credentials")
	}
	source := newMapping().set("interval", word(short(r.options.Interval))).move("url", address)
	spec.add("sourceRef", r.source("HelmRepository", "helm "+url, source))
}

// partialChart is what a patch says about a chart.
func (r *release) partialChart(spec *mapping, old *yaml.Node) {
	spec.move("chart", field(old, "name")).move("chart", field(old, "path")).move("version", field(old, "version"))
	if e := field(old, "ref"); e.key != nil {
		r.note(e.key, "this patch of a HelmRelease sets chart.ref: patch spec.ref of its GitRepository instead")
	}
}

func (r *release) gitChart(spec *mapping, old *yaml.Node) {
	folder := "./" + strings.Trim(path.Clean("/"+text(old, "path")), "/")
	chart := entry{field(old, "path").key, word(folder)}
	if chart.key == nil {
		chart.key = word("path")
		r.note(old, "%s: the chart has no path: the root of the repository is taken", r.where())
	}
	spec.move("chart", chart)
	if e := field(old, "skipDepUpdate"); e.key != nil && isTrue(old, "skipDepUpdate") {
		r.note(e.key, "chart.skipDepUpdate is left out: dependencies that the chart's folder holds are used, and those that it lacks are fetched")
	}
	address := field(old, "git")
	url := r.gitAddress(address)
	value := word(url)
	value.LineComment = address.value.LineComment
	source := newMapping().set("interval", word(short(r.options.Interval))).move("url", entry{address.key, value})
	ref := r.gitRef(old)
	source.add("ref", ref)
	secret := text(old, "secretRef", "name")
	if secret != "" {
		source.add("secretRef", newMapping().set("name", word(secret)))
		if ns := text(old, "secretRef", "namespace"); ns != "" && ns != r.namespace {
			r.note(field(old, "secretRef").key, "the Secret %s/%s is in another namespace, which a GitRepository cannot read: copy it to the namespace of %s", ns, secret, r.where())
		}
	} else if strings.HasPrefix(url, "ssh://") {
		r.note(address.key, "the key for %s was mounted into the Helm Operator: put it into a Secret with the keys identity and known_hosts, and name that in spec.secretRef of the GitRepository", url)
	}
	key := fmt.Sprintf("git %s %s %s", url, refText(&ref.Node), secret)
	spec.add("sourceRef", r.source("GitRepository", key, source))
	// A commit that changed the chart was an upgrade, whatever its version.
	spec.set("reconcileStrategy", word("Revision"))
	r.chartFiles(spec, folder)
}

// scp is the short form of an SSH address: user@host:path.
var scp = regexp.MustCompile(`^([^/@]+@[^/:]+):([^/].*)$`)

// unshortened is the URL of an address in that form, and any other as it is.
func unshortened(address string) string { return scp.ReplaceAllString(address, "ssh://$1/$2") }

func (r *release) gitAddress(e entry) string {
	url := unshortened(e.value.Value)
	if scheme, _, ok := strings.Cut(url, "://"); !ok || scheme != "https" && scheme != "http" && scheme != "ssh" {
		r.note(e.key, "a GitRepository is fetched over HTTPS, HTTP or SSH, which %s is not: change its spec.url", url)
	}
	return url
}

var (
	commitHash = regexp.MustCompile(`^[0-9a-f]{40}$`)
	versionTag = regexp.MustCompile(`^v?[0-9]+\.[0-9]+`)
)

// gitRef makes a reference to one kind of thing of a word that could be any.
func (r *release) gitRef(old *yaml.Node) *mapping {
	e := field(old, "ref")
	m := newMapping()
	switch ref := text(old, "ref"); {
	case ref == "":
		return m.set("branch", word("master"))
	case commitHash.MatchString(ref):
		return m.move("commit", e)
	case strings.HasPrefix(ref, "refs/"):
		return m.move("name", e)
	case versionTag.MatchString(ref):
		r.note(e.key, "chart.ref %s is taken for a tag: make it a branch in the GitRepository if it is one", ref)
		return m.move("tag", e)
	}
	return m.move("branch", e)
}

// refText is the same for references to the same thing.
func refText(ref *yaml.Node) string {
	return strings.Join([]string{text(ref, "branch"), text(ref, "tag"), text(ref, "commit"), text(ref, "name")}, " ")
}

// source makes the object that the chart comes from, unless the file has it already, and
// returns the reference to it. Documents of one file always go together, which files
// of one folder need not; so each file has sources of its own.
func (r *release) source(kind, key string, spec *mapping) *mapping {
	key = text(r.root, "metadata", "namespace") + " " + key
	name, ok := r.sources[key]
	if !ok {
		name = r.existing(kind, spec)
	}
	if name == "" {
		name = r.name()
		metadata := newMapping().set("name", word(name)).move("namespace", field(at(r.root, "metadata"), "namespace"))
		object := newMapping().set("apiVersion", word("source.toolkit.fluxcd.io/v1")).set("kind", word(kind)).add("metadata", metadata).add("spec", spec)
		r.before = append(render(1, &object.Node), "---\n")
	}
	r.sources[key] = name
	return newMapping().set("kind", word(kind)).set("name", word(name))
}

// existing is the name of a source in the same file that has the same address already.
func (r *release) existing(kind string, spec *mapping) string {
	for _, d := range r.siblings {
		if text(d.root, "kind") == kind && text(d.root, "spec", "url") == text(&spec.Node, "url") &&
			refText(at(d.root, "spec", "ref")) == refText(at(&spec.Node, "ref")) &&
			text(d.root, "metadata", "namespace") == text(r.root, "metadata", "namespace") {
			return text(d.root, "metadata", "name")
		}
	}
	return ""
}
