package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// startProfile begins a CPU profile of the engine where profiles are asked for.
// The function that it returns waits for it and adds a heap profile. A profile
// that cannot be had is said and does not end the run.
func (b *bench) startProfile(ctx context.Context, step string) (stop func()) {
	if b.cfg.profile == "" {
		return func() {}
	}
	base := filepath.Join(b.cfg.profile, strings.ReplaceAll(step, " ", "-"))
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.saveProfile(ctx, "profile?seconds=15", base+".cpu.pprof")
	}()
	return func() {
		<-done
		b.saveProfile(ctx, "heap", base+".heap.pprof")
	}
}

// saveProfile writes what the engine serves at path to a file.
func (b *bench) saveProfile(ctx context.Context, path, file string) {
	if err := fetchTo(ctx, b.pprof+path, file); err != nil {
		b.log.printf("no profile: %v", err)
	}
}

func fetchTo(ctx context.Context, url, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, res.Status)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return err
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, res.Body); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}
