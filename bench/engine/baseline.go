package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// plurals are the resources of the kinds that the fleet consists of.
var plurals = map[string]string{
	"Namespace": "namespaces", "ServiceAccount": "serviceaccounts", "Service": "services",
	"Deployment": "deployments", "ConfigMap": "configmaps",
}

// request is one server-side apply, ready to be sent.
type request struct {
	path string
	data []byte
}

// applyRequests returns the applies of one unit, in their order.
func applyRequests(name string) ([]request, error) {
	var all []request
	for _, o := range unitObjects(name, "first") {
		data, err := json.Marshal(o)
		if err != nil {
			return nil, err
		}
		root := "/api/v1"
		if o["apiVersion"] != "v1" {
			root = fmt.Sprintf("/apis/%s", o["apiVersion"])
		}
		kind, meta := fmt.Sprint(o["kind"]), o["metadata"].(body)
		if ns, ok := meta["namespace"]; ok {
			root += fmt.Sprintf("/namespaces/%s", ns)
		}
		path := fmt.Sprintf("%s/%s/%s?fieldManager=bare-client&force=true", root, plurals[kind], meta["name"])
		all = append(all, request{path, data})
	}
	return all, nil
}

// bareClient sends the applies of all units, nothing else: what the control
// plane itself costs on this machine, below which no engine can come.
func bareClient(ctx context.Context, c *client, cfg *config) (took, cpu time.Duration, err error) {
	units := make([][]request, cfg.units)
	for n := range units {
		if units[n], err = applyRequests(unitName(n)); err != nil {
			return 0, 0, err
		}
	}
	before, start := ownCPU(), time.Now()
	err = parallel(cfg.workers, len(units), func(n int) error {
		for _, r := range units[n] {
			if err := c.do(ctx, http.MethodPatch, r.path, applyPatch, r.data); err != nil {
				return err
			}
		}
		return nil
	})
	return time.Since(start), ownCPU() - before, err
}

// parallel calls do with 0 … n-1 on some workers and returns all errors.
func parallel(workers, n int, do func(int) error) error {
	next := make(chan int)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for range min(workers, n) {
		wg.Go(func() {
			for i := range next {
				errs[i] = do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return errors.Join(errs...)
}

// ownCPU is the processor time that this process has used.
func ownCPU() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
