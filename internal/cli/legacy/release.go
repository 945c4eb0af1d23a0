package legacy

import (
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// kept are fields of the spec that mean the same today.
var kept = map[string]bool{"values": true, "releaseName": true, "targetNamespace": true, "maxHistory": true}

// folded are fields of the spec that become part of others.
var folded = map[string]bool{"wait": true, "rollback": true, "resetValues": true, "skipCRDs": true, "forceUpgrade": true,
	"helmVersion": true, "disableOpenAPIValidation": true}

// editSpec returns the lines of the new spec, without the line of its key. limit is the
// line where the spec ends.
func (r *release) editSpec(spec *yaml.Node, limit int) []string {
	column := spec.Content[0].Column
	out := render(column, &r.leading(spec).Node)
	if len(out) == 1 && strings.TrimSpace(out[0]) == "{}" {
		out = nil
	}
	trailing := r.trailing(spec)
	for i := 0; i+1 < len(spec.Content); i += 2 {
		e := entry{spec.Content[i], spec.Content[i+1]}
		from, key, to := r.span(spec, i/2, limit)
		if name := e.key.Value; name == "values" || name == "valuesFrom" {
			out = append(out, r.block(column, trailing)...)
			trailing = newMapping()
		}
		out = append(out, r.lines[from:key]...)
		if kept[e.key.Value] {
			out = append(out, r.lines[key:to]...)
			continue
		}
		fields := r.translate(e)
		if len(fields.Content) == 0 {
			for _, c := range comments(e) {
				out = append(out, strings.Repeat(" ", column-1)+c+"\n")
			}
			continue
		}
		out = append(out, render(column, &fields.Node)...)
	}
	return terminated(append(out, r.block(column, trailing)...))
}

// terminated makes every line end, as the last of a file need not.
func terminated(lines []string) []string {
	for i, line := range lines {
		if !strings.HasSuffix(line, "\n") {
			lines[i] = line + "\n"
		}
	}
	return lines
}

func (r *release) block(column int, m *mapping) []string {
	if len(m.Content) == 0 {
		return nil
	}
	return render(column, &m.Node)
}

// leading are fields that today's kind needs and that the Helm Operator had otherwise.
func (r *release) leading(spec *yaml.Node) *mapping {
	m := newMapping()
	if r.partial {
		return m
	}
	m.set("interval", word(short(r.options.Interval)))
	target := text(spec, "targetNamespace")
	if text(spec, "releaseName") == "" {
		r.releaseName(m, target)
	}
	if target != "" && target != r.namespace {
		m.set("storageNamespace", word(target)) // where Helm 3 kept it
	}
	if at(spec, "maxHistory") == nil {
		m.set("maxHistory", number(10)) // the Helm Operator's default
	}
	return m
}

// releaseName writes down the name that the Helm Operator made up.
func (r *release) releaseName(m *mapping, target string) {
	switch {
	case r.namespace == "":
		r.note(field(r.root, "metadata").key, "HelmRelease %s: the Helm Operator named its release NAMESPACE-%s, and the namespace is not known here: set spec.releaseName, "+
			"or run this with --namespace; without it a second release is installed", r.name(), r.name())
	case target != "" && target != r.namespace:
		m.set("releaseName", word(r.namespace+"-"+target+"-"+r.name()))
	default:
		m.set("releaseName", word(r.namespace+"-"+r.name()))
	}
}

// translate returns what stands in the place of one field.
func (r *release) translate(e entry) *mapping {
	m := newMapping()
	switch e.key.Value {
	case "chart":
		return m.add("chart", r.chart(e.value))
	case "valuesFrom":
		if values := r.valuesFrom(); len(values.Content) > 0 {
			return m.set("valuesFrom", values)
		}
		return m
	case "valueFileSecrets":
		if at(r.root, "spec", "valuesFrom") == nil {
			return m.set("valuesFrom", r.valuesFrom())
		}
		return m
	case "timeout":
		return m.set("timeout", r.seconds(e))
	case "test":
		return m.add("test", r.test(e.value))
	}
	if !folded[e.key.Value] {
		r.note(e.key, "spec.%s is no field of the Helm Operator's HelmRelease, and is left out", e.key.Value)
	}
	if e.key.Value == "helmVersion" && e.value.Value == "v2" {
		r.note(e.key, "HelmRelease %s is a release of Helm 2, which nothing reads any more: convert it with the helm-2to3 plugin before the engine installs it a second time", r.name())
	}
	return m
}

// seconds makes a duration of a number of seconds, as the Helm Operator had it.
func (r *release) seconds(e entry) *yaml.Node {
	var s int64
	n := resolve(e.value)
	if n.Decode(&s) != nil {
		r.note(e.key, "%s is no number of seconds", e.key.Value)
		return word(n.Value)
	}
	out := word(short(time.Duration(s) * time.Second))
	out.LineComment = n.LineComment
	return out
}

// short writes 5m0s as 5m.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func (r *release) test(v *yaml.Node) *mapping {
	m := newMapping()
	m.move("enable", field(v, "enable"))
	if e := field(v, "timeout"); e.value != nil {
		m.set("timeout", r.seconds(e))
	}
	m.move("ignoreFailures", field(v, "ignoreFailures"))
	return m // cleanup was for Helm 2
}

// trailing are install, upgrade and rollback, each made of several older fields.
func (r *release) trailing(spec *yaml.Node) *mapping {
	m := newMapping()
	install, upgrade := newMapping(), newMapping()
	rollsBack := isTrue(spec, "rollback", "enable")
	wait := rollsBack || isTrue(spec, "test", "enable")
	if n := at(spec, "wait"); n != nil {
		wait = isTrue(spec, "wait")
	}
	// A patch says so either way: what it is laid over says the opposite.
	if waits := at(spec, "wait") != nil; !wait && (!r.partial || waits) || r.partial && waits {
		install.set("disableWait", truth(!wait))
		upgrade.set("disableWait", truth(!wait))
	}
	if isTrue(spec, "disableOpenAPIValidation") {
		install.set("disableOpenAPIValidation", yes())
		upgrade.set("disableOpenAPIValidation", yes())
	}
	if isTrue(spec, "skipCRDs") {
		install.set("crds", word("Skip"))
	}
	if !r.partial {
		// An installation that failed was undone and begun anew at the next interval.
		install.add("remediation", newMapping().set("retries", number(-1)))
	}
	if isTrue(spec, "forceUpgrade") {
		upgrade.set("force", yes())
	}
	if n := at(spec, "resetValues"); n != nil && !isTrue(spec, "resetValues") {
		upgrade.set("preserveValues", yes())
	}
	if rollsBack {
		upgrade.add("remediation", r.remediation(at(spec, "rollback")))
	}
	m.add("install", install).add("upgrade", upgrade)
	if rollsBack {
		m.add("rollback", r.rollback(at(spec, "rollback")))
	}
	return m
}

// remediation says how often an upgrade is tried again after it was rolled back.
func (r *release) remediation(old *yaml.Node) *mapping {
	m := newMapping()
	if !isTrue(old, "retry") {
		return m.set("remediateLastFailure", yes())
	}
	retries := int64(5)
	if n := at(old, "maxRetries"); n != nil {
		if n.Decode(&retries) != nil {
			r.note(n, "spec.rollback.maxRetries is no number")
		}
	}
	if retries == 0 {
		retries = -1 // without a limit, then and now
	}
	return m.set("retries", number(retries)).set("remediateLastFailure", yes())
}

func (r *release) rollback(old *yaml.Node) *mapping {
	m := newMapping()
	if e := field(old, "timeout"); e.value != nil {
		m.set("timeout", r.seconds(e))
	}
	if !isTrue(old, "wait") {
		m.set("disableWait", yes())
	}
	m.move("disableHooks", field(old, "disableHooks")).move("force", field(old, "force"))
	if e := field(old, "recreate"); isTrue(old, "recreate") {
		r.note(e.key, "spec.rollback.recreate restarted pods that had not changed; nothing does that any more, and it is left out")
	}
	return m
}

// where names the HelmRelease in notes.
func (r *release) where() string { return "HelmRelease " + r.name() }
