// Command git measures ways to fetch from a Git repository, on a generated one of
// 50,000 files and 10,000 commits, over HTTP on loopback: the time and the
// memory of a first fetch, of a fetch that finds nothing new, and of a
// fetch of a commit that changes one file. It prints a Markdown table.
//
// Each way runs in processes of its own, so that what one uses is not put
// down to another: one process for the first fetch and one, on the same data, for the
// others.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/bowline-dev/bowline/internal/gitserve"
)

// figures are what one step of one way cost.
type figures struct {
	Way     string  `json:"way"`
	Step    string  `json:"step"`
	Seconds float64 `json:"seconds"`
	// SelfMB and ChildMB are the peaks of resident memory of the process and of its largest child.
	SelfMB  float64 `json:"selfMB"`
	ChildMB float64 `json:"childMB"`
	DiskMB  float64 `json:"diskMB"`
}

func main() {
	files := flag.Int("files", 50_000, "files in the repository")
	commits := flag.Int("commits", 10_000, "commits in the repository")
	runs := flag.Int("runs", 5, "one-file commits to fetch; the median is shown")
	asJSON := flag.Bool("json", false, "print JSON instead of a table")
	ways := flag.String("ways", "bowline,git,git-full,go-git,go-git-full", "what to measure")
	way := flag.String("way", "", "internal: be the process of one way")
	url := flag.String("url", "", "internal: repository")
	data := flag.String("data", "", "internal: data folder")
	flag.Parse()
	var err error
	if *way != "" {
		err = perform(context.Background(), *way, *url, *data)
	} else {
		err = measure(context.Background(), *files, *commits, *runs, strings.Split(*ways, ","), *asJSON)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/git:", err)
		os.Exit(1)
	}
}

func measure(ctx context.Context, files, commits, runs int, ways []string, asJSON bool) error {
	dir, err := os.MkdirTemp("", "bowline-bench-git-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	fmt.Fprintf(os.Stderr, "generating %d files and %d commits\n", files, commits)
	root := filepath.Join(dir, "served")
	repo, err := generate(ctx, root, files, commits)
	if err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: gitserve.Handler(root, gitserve.Options{ReadOnly: true}), ReadHeaderTimeout: time.Minute}
	go func() { _ = srv.Serve(l) }()
	defer func() { _ = srv.Close() }()
	url := "http://" + l.Addr().String() + "/big.git"
	// The first to fetch would pay for the server's cold caches.
	if _, err := gitExecutable(url, filepath.Join(dir, "warm"), "--depth=1")(ctx); err != nil {
		return err
	}
	var all []figures
	for i, way := range ways {
		fmt.Fprintln(os.Stderr, "measuring", way)
		got, err := measureWay(ctx, way, url, filepath.Join(dir, way), repo, runs, i)
		if err != nil {
			return fmt.Errorf("%s: %w", way, err)
		}
		all = append(all, got...)
	}
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(all)
	}
	printTable(all)
	return nil
}

// measureWay runs the two processes of a way and commits between their steps.
func measureWay(ctx context.Context, way, url, data string, repo *gitserve.Repo, runs, seed int) ([]figures, error) {
	first, err := start(ctx, way, url, data)
	if err != nil {
		return nil, err
	}
	f, err := first.step("first fetch")
	if err == nil {
		err = first.end()
	}
	if err != nil {
		return nil, err
	}
	out := []figures{f}
	second, err := start(ctx, way, url, data)
	if err != nil {
		return nil, err
	}
	// The first step of a new process opens the data; it is not measured.
	if _, err := second.step("open"); err != nil {
		return nil, err
	}
	var unchanged, changed []figures
	for i := range runs {
		if f, err = second.step("nothing new"); err != nil {
			return nil, err
		}
		unchanged = append(unchanged, f)
		content := fmt.Sprintf("changed: %d-%d\n", seed, i)
		if _, err := repo.Commit(ctx, gitserve.Commit{Branch: "main", Message: "one file", When: time.Unix(1_800_000_000, 0),
			Files: map[string]gitserve.File{changedFile: {Data: []byte(content)}}}); err != nil {
			return nil, err
		}
		if f, err = second.step("one-file commit"); err != nil {
			return nil, err
		}
		changed = append(changed, f)
	}
	return append(out, median(unchanged), median(changed)), second.end()
}

// performer is the process of a way, seen from outside.
type performer struct {
	cmd *exec.Cmd
	in  *bufio.Writer
	out *bufio.Scanner
	end func() error
}

func start(ctx context.Context, way, url, data string) (*performer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-way", way, "-url", url, "-data", data)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p := &performer{cmd: cmd, in: bufio.NewWriter(in), out: bufio.NewScanner(out)}
	p.end = func() error {
		_ = in.Close()
		return cmd.Wait()
	}
	return p, cmd.Start()
}

// step has the process do one step and returns what it cost.
func (p *performer) step(name string) (figures, error) {
	_, _ = fmt.Fprintln(p.in, name)
	if err := p.in.Flush(); err != nil {
		return figures{}, err
	}
	if !p.out.Scan() {
		return figures{}, fmt.Errorf("the process ended in step %q", name)
	}
	var f figures
	err := json.Unmarshal(p.out.Bytes(), &f)
	return f, err
}
