package git

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/git/odb"
	"github.com/bowline-dev/bowline/internal/source/git/wire"
)

const (
	heads = "refs/heads/"
	tags  = "refs/tags/"
)

func refError(object string, err error) error {
	return &failure.Error{Op: "read reference", Object: object, Kind: failure.Invalid, Err: err, Remedy: "correct spec.ref"}
}

// check finds what is wrong with a reference whatever the repository.
func (r Ref) check() error {
	for field, name := range map[string]string{"branch": heads + r.Branch, "tag": tags + r.Tag, "name": r.Name} {
		if name != heads && name != tags && name != "" && !validRef(name) {
			return refError(field, fmt.Errorf("%q is not a valid name for a Git reference", name))
		}
	}
	if r.Commit != "" {
		if _, err := odb.ParseHash(strings.ToLower(r.Commit)); err != nil {
			return refError("commit", err)
		}
	}
	if r.SemVer != "" {
		if _, err := semver.NewConstraint(r.SemVer); err != nil {
			return refError("semver", fmt.Errorf("%q is not a range of versions: %w", r.SemVer, err))
		}
	}
	return nil
}

// validRef follows git-check-ref-format(1).
func validRef(name string) bool {
	if strings.ContainsAny(name, " ~^:?*[\\\x7f") || strings.ContainsFunc(name, func(c rune) bool { return c < 0x20 }) ||
		strings.Contains(name, "..") || strings.Contains(name, "@{") || strings.Contains(name, "//") ||
		strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") || strings.HasSuffix(name, ".") {
		return false
	}
	return !slices.ContainsFunc(strings.Split(name, "/"), func(part string) bool {
		return strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock")
	})
}

// fullName is the one reference that r is about, or "" when it is about a
// commit or a range of versions.
func (r Ref) fullName() string {
	switch {
	case r.Commit != "" && r.Branch != "":
		return heads + r.Branch
	case r.Commit != "":
		return ""
	case r.Name != "":
		return r.Name
	case r.SemVer != "":
		return ""
	case r.Tag != "":
		return tags + r.Tag
	case r.Branch != "":
		return heads + r.Branch
	default:
		return heads + DefaultBranch
	}
}

// label is what a revision begins with.
func (r Ref) label(name string) string {
	if r.Name != "" && r.Commit == "" {
		return name
	}
	for _, prefix := range []string{heads, tags} {
		if short, ok := strings.CutPrefix(name, prefix); ok {
			return short
		}
	}
	return name
}

// candidate is one commit that a reference may resolve to.
type candidate struct {
	label string
	// tag is the name of the tag by which it was found, or "".
	tag  string
	want odb.Hash // what to ask the server for: a commit or an annotated tag
	// commit is what want leads to. A server of old may not say it for a tag;
	// then it is the same as want.
	commit odb.Hash
}

// resolve finds what r means among the references of the remote. There is more than
// one candidate when tags differ in nothing but build metadata. ok is false
// when the remote has no such reference.
func (r Ref) resolve(refs []wire.Ref) (found []candidate, ok bool, err error) {
	if name := r.fullName(); name != "" {
		for _, ref := range refs {
			if ref.Name == name {
				c := newCandidate(r.label(name), ref)
				if r.Commit != "" {
					c, err = r.pinned(c.label)
				}
				return []candidate{c}, true, err
			}
		}
		return nil, false, nil
	}
	if r.Commit != "" {
		c, err := r.pinned("")
		return []candidate{c}, true, err
	}
	return r.resolveSemVer(refs)
}

func (r Ref) pinned(label string) (candidate, error) {
	h, err := odb.ParseHash(strings.ToLower(r.Commit))
	return candidate{label: label, want: h, commit: h}, err
}

func newCandidate(label string, ref wire.Ref) candidate {
	c := candidate{label: label, want: ref.Hash, commit: ref.Commit()}
	c.tag, _ = strings.CutPrefix(ref.Name, tags)
	if c.tag == ref.Name {
		c.tag = ""
	}
	return c
}

func (r Ref) resolveSemVer(refs []wire.Ref) ([]candidate, bool, error) {
	constraint, err := semver.NewConstraint(r.SemVer)
	if err != nil {
		return nil, false, err
	}
	var best *semver.Version
	var found []candidate
	for _, ref := range refs {
		tag, isTag := strings.CutPrefix(ref.Name, tags)
		// A version has all three numbers; a "v" before them is allowed.
		v, err := semver.StrictNewVersion(strings.TrimPrefix(tag, "v"))
		if !isTag || err != nil || !constraint.Check(v) || (best != nil && v.LessThan(best)) {
			continue
		}
		if best == nil || best.LessThan(v) {
			found = nil
		}
		best, found = v, append(found, newCandidate(tag, ref))
	}
	return found, len(found) > 0, nil
}

// missing says that the remote has no such reference, and what it has instead.
func (r Ref) missing(url string, all []wire.Ref) error {
	e := &failure.Error{Op: "fetch", Object: url, Kind: failure.NotFound}
	var what, prefix, kind string
	switch name := r.fullName(); {
	case strings.HasPrefix(name, heads):
		what, prefix, kind, e.Remedy = "branch "+strings.TrimPrefix(name, heads), heads, "branches", "set spec.ref.branch to one of them"
	case strings.HasPrefix(name, tags):
		what, prefix, kind, e.Remedy = "tag "+strings.TrimPrefix(name, tags), tags, "tags", "set spec.ref.tag to one of them"
	case name != "":
		what, prefix, kind, e.Remedy = "reference "+name, "refs/", "references", "correct spec.ref.name"
	default:
		what, prefix, kind, e.Remedy = fmt.Sprintf("tag with a version in the range %q", r.SemVer), tags, "tags", "correct spec.ref.semver"
	}
	if len(all) == 0 {
		e.Err, e.Remedy = errors.New("the repository is empty: it has no branch and no tag"), "push a commit to it"
		return e
	}
	var names []string
	for _, ref := range all {
		// A server may say anything; what is shown is a name.
		if name, ok := strings.CutPrefix(ref.Name, prefix); ok && validRef(ref.Name) {
			names = append(names, name)
		}
	}
	e.Err = fmt.Errorf("there is no %s; the repository has %s", what, brief(names, kind))
	return e
}

// brief lists a few names.
func brief(names []string, kind string) string {
	const few = 8
	switch {
	case len(names) == 0:
		return "no " + kind
	case len(names) > few:
		// The last tags are the latest more often than the first are.
		if kind == "tags" {
			names = names[len(names)-few:]
			return "the " + kind + " …, " + strings.Join(names, ", ")
		}
		return "the " + kind + " " + strings.Join(names[:few], ", ") + ", …"
	default:
		return "the " + kind + " " + strings.Join(names, ", ")
	}
}
