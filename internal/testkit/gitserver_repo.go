package testkit

import (
	"os"
	"path/filepath"

	"github.com/bowline-dev/bowline/internal/gitserve"
)

// Repo is one repository of a GitServer. Its methods fail the test when git does.
type Repo struct {
	s    *GitServer
	name string
	repo *gitserve.Repo
	// branch is what Commit and its siblings work on: "main" unless On changed it.
	branch string
}

// Repo returns the repository name.git, made on first use with branch "main" as its HEAD.
func (s *GitServer) Repo(name string) *Repo {
	s.T.Helper()
	if _, err := os.Stat(filepath.Join(s.root, name+".git", "HEAD")); err == nil {
		return &Repo{s: s, name: name, repo: &gitserve.Repo{Dir: filepath.Join(s.root, name+".git")}, branch: "main"}
	}
	repo, err := gitserve.Init(s.context(), s.root, name+".git", "main")
	s.check(err)
	return &Repo{s: s, name: name, repo: repo, branch: "main"}
}

func (s *GitServer) check(err error) {
	s.T.Helper()
	if err != nil {
		s.T.Fatalf("git server: %v", err)
	}
}

// Dir is the bare repository's folder.
func (r *Repo) Dir() string { return r.repo.Dir }

// URL is the address over HTTP.
func (r *Repo) URL() string { return r.s.URL() + "/" + r.name + ".git" }

// SSHURL is the address over SSH; the server needs GitSSH.
func (r *Repo) SSHURL() string { return "ssh://git@" + r.s.ssh.addr + "/" + r.name + ".git" }

// On returns the same repository with another branch to work on.
func (r *Repo) On(branch string) *Repo {
	c := *r
	c.branch = branch
	return &c
}

// Commit writes files (path to content) on top of the branch and returns the commit's hash.
func (r *Repo) Commit(files map[string]string) string {
	r.s.T.Helper()
	return r.commit(gitserve.Commit{Message: "change", Files: toFiles(files)})
}

// CommitFiles is Commit with modes, for symbolic links, executables and submodules.
func (r *Repo) CommitFiles(files map[string]gitserve.File) string {
	r.s.T.Helper()
	return r.commit(gitserve.Commit{Message: "change", Files: files})
}

// Symlink commits a symbolic link.
func (r *Repo) Symlink(name, to string) string {
	r.s.T.Helper()
	return r.CommitFiles(map[string]gitserve.File{name: {Data: []byte(to), Mode: "120000"}})
}

// Delete commits the removal of files or folders.
func (r *Repo) Delete(paths ...string) string {
	r.s.T.Helper()
	return r.commit(gitserve.Commit{Message: "remove", Delete: paths})
}

// CommitDir makes the branch hold exactly the files of dir.
func (r *Repo) CommitDir(dir string) string {
	r.s.T.Helper()
	sha, err := r.repo.CommitDir(r.s.context(), dir, gitserve.Commit{Branch: r.branch, Message: "import", When: r.s.tick()})
	r.s.check(err)
	return sha
}

// ForcePush rewrites the branch: one commit without a parent that holds just these files.
func (r *Repo) ForcePush(files map[string]string) string {
	r.s.T.Helper()
	return r.commit(gitserve.Commit{Message: "rewrite", Files: toFiles(files), Orphan: true})
}

func (r *Repo) commit(c gitserve.Commit) string {
	r.s.T.Helper()
	c.Branch, c.When = r.branch, r.s.tick()
	sha, err := r.repo.Commit(r.s.context(), c)
	r.s.check(err)
	return sha
}

// Branch makes (or moves) a branch to a revision.
func (r *Repo) Branch(name, rev string) {
	r.s.T.Helper()
	r.SetRef("refs/heads/"+name, rev)
}

// Tag makes (or moves) a lightweight tag to a revision.
func (r *Repo) Tag(name, rev string) {
	r.s.T.Helper()
	r.SetRef("refs/tags/"+name, rev)
}

// TagAnnotated makes an annotated tag at a revision.
func (r *Repo) TagAnnotated(name, rev string) {
	r.s.T.Helper()
	r.s.check(r.repo.TagAnnotated(r.s.context(), name, rev, name))
}

// SetRef makes a full reference name point at a revision.
func (r *Repo) SetRef(ref, rev string) {
	r.s.T.Helper()
	r.s.check(r.repo.SetRef(r.s.context(), ref, rev))
}

// DeleteBranch removes a branch.
func (r *Repo) DeleteBranch(name string) {
	r.s.T.Helper()
	r.s.check(r.repo.DeleteRef(r.s.context(), "refs/heads/"+name))
}

// DeleteTag removes a tag.
func (r *Repo) DeleteTag(name string) {
	r.s.T.Helper()
	r.s.check(r.repo.DeleteRef(r.s.context(), "refs/tags/"+name))
}

func toFiles(files map[string]string) map[string]gitserve.File {
	out := make(map[string]gitserve.File, len(files))
	for name, content := range files {
		out[name] = gitserve.File{Data: []byte(content)}
	}
	return out
}
