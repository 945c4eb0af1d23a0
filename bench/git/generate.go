package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/bowline-dev/bowline/internal/gitserve"
)

// generate makes root/big.git: files of about half a kilobyte in folders of a
// hundred, and commits that change one file each. It is packed as a server would have it.
func generate(ctx context.Context, root string, files, commits int) (*gitserve.Repo, error) {
	repo, err := gitserve.Init(ctx, root, "big.git", "main")
	if err != nil {
		return nil, err
	}
	cmd := gitserve.Command(ctx, "-C", repo.Dir, "fast-import", "--quiet")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w := bufio.NewWriterSize(in, 1<<20)
	for c := range commits {
		fmt.Fprintf(w, "commit refs/heads/main\ncommitter Bench <bench@localhost> %d +0000\ndata 6\ncommit\n", 1_700_000_000+c)
		if c == 0 {
			for f := range files {
				writeFile(w, f, 0)
			}
			continue
		}
		// A stride that is prime to the number of files touches them all over the tree.
		writeFile(w, c*7919%files, c)
	}
	err = w.Flush()
	if cerr := in.Close(); err == nil {
		err = cerr
	}
	if werr := cmd.Wait(); err == nil {
		err = werr
	}
	if err != nil {
		return nil, err
	}
	return repo, gitserve.Command(ctx, "-C", repo.Dir, "repack", "-a", "-d", "-q", "-b").Run()
}

func writeFile(w *bufio.Writer, f, version int) {
	text := fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: config-%d\n  namespace: team-%d\n  labels:\n    app.kubernetes.io/part-of: bench\ndata:\n  version: %q\n", f, f/100, fmt.Sprint(version))
	for i := range 8 {
		text += fmt.Sprintf("  key-%d: value-%d-%x\n", i, f, uint32(f*2654435761+i*40503)) //nolint:gosec // wrapping is wanted
	}
	fmt.Fprintf(w, "M 100644 inline dir-%d/file-%d.yaml\ndata %d\n%s\n", f/100, f%100, len(text), text)
}

// median returns the figures of the run with the median time.
func median(runs []figures) figures {
	slices.SortFunc(runs, func(a, b figures) int {
		switch {
		case a.Seconds < b.Seconds:
			return -1
		case a.Seconds > b.Seconds:
			return 1
		default:
			return 0
		}
	})
	return runs[len(runs)/2]
}

func printTable(all []figures) {
	fmt.Println("| way | step | time | peak of the process | peak of its largest child | on disk |")
	fmt.Println("|---|---|---|---|---|---|")
	for _, f := range all {
		took := fmt.Sprintf("%.2f s", f.Seconds)
		if f.Seconds < 0.5 {
			took = fmt.Sprintf("%.0f ms", f.Seconds*1000)
		}
		fmt.Println("| " + strings.Join([]string{f.Way, f.Step, took, mb(f.SelfMB), mb(f.ChildMB), mb(f.DiskMB)}, " | ") + " |")
	}
}

func mb(v float64) string {
	if v == 0 {
		return "–"
	}
	return fmt.Sprintf("%.0f MB", v)
}
