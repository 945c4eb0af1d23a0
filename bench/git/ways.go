package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"

	"github.com/bowline-dev/bowline/internal/gitserve"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/git"
)

// changedFile is the file that the one-file commits change.
const changedFile = "dir-25/file-7.yaml"

// fetcher brings the repository up to date and returns the content of changedFile.
type fetcher func(ctx context.Context) ([]byte, error)

// perform is the process of one way: a step for each line of standard input.
func perform(ctx context.Context, way, url, data string) error {
	fetch, err := newFetcher(way, url, data)
	if err != nil {
		return err
	}
	steps := bufio.NewScanner(os.Stdin)
	for steps.Scan() {
		debug.FreeOSMemory()
		// "5" resets the peak of resident memory (proc(5)).
		_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
		begin := time.Now()
		content, err := fetch(ctx)
		if err != nil {
			return err
		}
		took := time.Since(begin)
		if steps.Text() == "one-file commit" && !bytes.HasPrefix(content, []byte("changed:")) {
			return fmt.Errorf("%s still reads %q", changedFile, content)
		}
		var children syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &children); err != nil {
			return err
		}
		f := figures{Way: way, Step: steps.Text(), Seconds: took.Seconds(), SelfMB: peakMB(), ChildMB: float64(children.Maxrss) / 1024, DiskMB: diskMB(data)}
		if err := json.NewEncoder(os.Stdout).Encode(f); err != nil {
			return err
		}
	}
	return steps.Err()
}

func peakMB() float64 {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(v)[0], 64)
			return kb / 1024
		}
	}
	return 0
}

func diskMB(dir string) float64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil {
			if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
				sum += info.Size()
			}
		}
		return nil
	})
	return float64(sum) / (1 << 20)
}

func newFetcher(way, url, data string) (fetcher, error) {
	switch way {
	case "bowline":
		store, err := git.New(git.Options{DataDir: data})
		if err != nil {
			return nil, err
		}
		var held source.Artifact // an engine holds on to what it has built from
		return func(ctx context.Context) ([]byte, error) {
			a, err := store.Fetch(ctx, git.Request{URL: url, Ref: git.Ref{Branch: "main"}, Timeout: 10 * time.Minute})
			if err != nil {
				return nil, err
			}
			held = a
			return held.Tree.ReadFile(changedFile)
		}, nil
	case "git":
		return gitExecutable(url, data, "--depth=1"), nil
	case "git-full":
		return gitExecutable(url, data), nil
	case "go-git":
		return goGit(url, data, 1), nil
	case "go-git-full":
		return goGit(url, data, 0), nil
	default:
		return nil, fmt.Errorf("there is no way %q", way)
	}
}

// gitExecutable fetches and reads with the git executable alone.
func gitExecutable(url, data string, depth ...string) fetcher {
	git := func(ctx context.Context, args ...string) ([]byte, error) {
		cmd := gitserve.Command(ctx, append([]string{"-C", data}, args...)...)
		cmd.Stderr = os.Stderr
		return cmd.Output()
	}
	return func(ctx context.Context) ([]byte, error) {
		if _, err := os.Stat(filepath.Join(data, "HEAD")); err != nil {
			if err := os.MkdirAll(data, 0o700); err != nil {
				return nil, err
			}
			if _, err := git(ctx, "init", "-q", "--bare"); err != nil {
				return nil, err
			}
		}
		out, err := git(ctx, "ls-remote", url, "refs/heads/main")
		if err != nil {
			return nil, err
		}
		have, err := git(ctx, "rev-parse", "-q", "--verify", "refs/heads/main")
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return nil, err
		}
		if !bytes.HasPrefix(out, bytes.TrimSpace(have)) || len(have) == 0 {
			args := append([]string{"fetch", "-q", "--no-tags"}, depth...)
			if _, err := git(ctx, append(args, url, "+refs/heads/main:refs/heads/main")...); err != nil {
				return nil, err
			}
		}
		return git(ctx, "cat-file", "blob", "refs/heads/main:"+changedFile)
	}
}

// goGit fetches and reads with the go-git library alone.
func goGit(url, data string, depth int) fetcher {
	return func(ctx context.Context) ([]byte, error) {
		repo, err := gogit.PlainOpen(data)
		if errors.Is(err, gogit.ErrRepositoryNotExists) {
			repo, err = gogit.PlainCloneContext(ctx, data, true, &gogit.CloneOptions{
				URL: url, Depth: depth, SingleBranch: true, ReferenceName: "refs/heads/main", Tags: gogit.NoTags,
			})
		} else if err == nil {
			err = repo.FetchContext(ctx, &gogit.FetchOptions{
				Depth: depth, Tags: gogit.NoTags, Force: true, RefSpecs: []config.RefSpec{"+refs/heads/main:refs/heads/main"},
			})
			if errors.Is(err, gogit.NoErrAlreadyUpToDate) {
				err = nil
			}
		}
		if err != nil {
			return nil, err
		}
		ref, err := repo.Reference(plumbing.NewBranchReferenceName("main"), true)
		if err != nil {
			return nil, err
		}
		commit, err := repo.CommitObject(ref.Hash())
		if err != nil {
			return nil, err
		}
		file, err := commit.File(changedFile)
		if err != nil {
			return nil, err
		}
		r, err := file.Reader()
		if err != nil {
			return nil, err
		}
		defer func() { _ = r.Close() }()
		return io.ReadAll(r)
	}
}
