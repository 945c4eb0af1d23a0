package legacy

import (
	"path"

	"go.yaml.in/yaml/v3"
)

// valuesFrom is the new list of that name. Deprecated references to Secrets come first,
// as they did.
func (r *release) valuesFrom() *yaml.Node {
	spec := at(r.root, "spec")
	out := list()
	if secrets := at(spec, "valueFileSecrets"); secrets != nil {
		for _, n := range secrets.Content {
			out.Content = append(out.Content, &newMapping().set("kind", word("Secret")).move("name", field(n, "name")).Node)
		}
	}
	from := at(spec, "valuesFrom")
	if from == nil {
		return out
	}
	for _, n := range from.Content {
		if m := r.valueReference(resolve(n), len(out.Content) > 0); m != nil {
			m.HeadComment, m.FootComment = n.HeadComment, n.FootComment
			out.Content = append(out.Content, &m.Node)
		}
	}
	return out
}

// valueReference is nil where nothing of the kind exists any more. later says that
// other references come before it.
func (r *release) valueReference(n *yaml.Node, later bool) *mapping {
	for i := 0; i+1 < len(n.Content); i += 2 {
		e := entry{n.Content[i], resolve(n.Content[i+1])}
		switch e.key.Value {
		case "configMapKeyRef":
			return r.keyReference("ConfigMap", e)
		case "secretKeyRef":
			return r.keyReference("Secret", e)
		case "externalSourceRef":
			r.note(e.key, "values from the address %s cannot be fetched any more: keep them in a ConfigMap and refer to that", text(e.value, "url"))
		case "chartFileRef":
			r.chartFileNotes(e, later)
		default:
			r.note(e.key, "valuesFrom has no %s", e.key.Value)
		}
	}
	return nil
}

func (r *release) keyReference(kind string, e entry) *mapping {
	m := newMapping().set("kind", word(kind)).move("name", field(e.value, "name"))
	if text(e.value, "key") != "" {
		m.move("valuesKey", field(e.value, "key"))
	}
	m.move("optional", field(e.value, "optional"))
	if ns := field(e.value, "namespace"); ns.value != nil && ns.value.Value != r.namespace {
		r.note(ns.key, "values come from the %s %s/%s, and %s reads its own namespace only: copy it there", kind, ns.value.Value, text(e.value, "name"), r.where())
	}
	return m
}

// chartFileNotes tells where files of a chart, which became valuesFiles of it, count
// less than they did.
func (r *release) chartFileNotes(e entry, later bool) {
	switch {
	case text(at(r.root, "spec", "chart"), "git") == "":
		r.note(e.key, "values from a file of the chart need a chart from Git, then as now: it is left out")
	case later:
		r.note(e.key, "%s of the chart came after other values and had the last word; it is one of chart.spec.valuesFiles now, which the others override", text(e.value, "path"))
	}
}

// chartFiles makes valuesFiles of the references to files of the chart.
func (r *release) chartFiles(spec *mapping, folder string) {
	from := at(r.root, "spec", "valuesFrom")
	if from == nil {
		return
	}
	files := list()
	optional := false
	for _, n := range from.Content {
		if ref := at(n, "chartFileRef"); ref != nil {
			if len(files.Content) == 0 {
				// Naming files replaces the chart's own values, which come first.
				files.Content = append(files.Content, word("./"+path.Join(folder, "values.yaml")))
			}
			files.Content = append(files.Content, word("./"+path.Join(folder, text(ref, "path"))))
			optional = optional || isTrue(ref, "optional")
		}
	}
	if len(files.Content) == 0 {
		return
	}
	spec.set("valuesFiles", files)
	if optional {
		spec.set("ignoreMissingValuesFiles", yes())
	}
}
