package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// delivered are the resources that the fleet consists of: only requests for
// these count as applies of the engine.
var delivered = map[string]bool{
	"namespaces": true, "serviceaccounts": true, "services": true, "deployments": true, "configmaps": true,
}

// writes are the verbs, in the API server's words, that change an object.
var writes = map[string]bool{"APPLY": true, "PATCH": true, "PUT": true, "POST": true, "DELETE": true}

// counters are the API server's own counts of requests since it started.
type counters struct {
	// applies are server-side applies of delivered resources, dryRuns all
	// writes of them that only pretend.
	applies, dryRuns float64
	// otherWrites are all other writes of delivered resources, by anybody.
	otherWrites float64
	// statusWrites are writes to the status of what the engine serves.
	statusWrites float64
}

// reported are the resources whose status the engine writes.
var reported = map[string]bool{
	"kustomizations": true, "gitrepositories": true, "helmreleases": true, "helmrepositories": true, "helmcharts": true,
}

func (c *counters) minus(o counters) counters {
	return counters{
		applies: c.applies - o.applies, dryRuns: c.dryRuns - o.dryRuns,
		otherWrites: c.otherWrites - o.otherWrites, statusWrites: c.statusWrites - o.statusWrites,
	}
}

var label = regexp.MustCompile(`(\w+)="([^"]*)"`)

// readCounters counts requests for the resources. It scrapes the API server. A scrape costs the server about what a
// few hundred requests do, so it happens between measures, never in one.
func readCounters(ctx context.Context, c *client, resources map[string]bool) (counters, error) {
	var total counters
	err := eachCount(ctx, c, func(labels map[string]string, n float64) { total.add(labels, n, resources) })
	return total, err
}

// requests are all that the API server has answered since it started, and renewals of Leases among them.
type requests struct{ all, leases float64 }

// countRequests counts all requests but watches, which are counted when they end.
func countRequests(ctx context.Context, c *client) (requests, error) {
	var total requests
	err := eachCount(ctx, c, func(l map[string]string, n float64) {
		if l["verb"] == "WATCH" {
			return
		}
		total.all += n
		if l["resource"] == "leases" && writes[l["verb"]] {
			total.leases += n
		}
	})
	return total, err
}

// eachCount calls do for each line of the metric apiserver_request_total.
func eachCount(ctx context.Context, c *client, do func(labels map[string]string, n float64)) error {
	page, err := c.send(ctx, http.MethodGet, "/metrics", "", "text/plain", nil)
	if err != nil {
		return err
	}
	defer func() { _ = page.Close() }()
	lines := bufio.NewScanner(page)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), "apiserver_request_total{") {
			continue
		}
		labels, n, err := parseCount(lines.Text())
		if err != nil {
			return err
		}
		do(labels, n)
	}
	return lines.Err()
}

// parseCount reads one line of a metric.
func parseCount(line string) (labels map[string]string, n float64, err error) {
	at := strings.LastIndexByte(line, ' ')
	if n, err = strconv.ParseFloat(line[at+1:], 64); err != nil {
		return nil, 0, fmt.Errorf("read the API server's metrics: %q: %w", line, err)
	}
	labels = map[string]string{}
	for _, m := range label.FindAllStringSubmatch(line[:at], -1) {
		labels[m[1]] = m[2]
	}
	return labels, n, nil
}

// add counts what one line of the metric says.
func (c *counters) add(l map[string]string, n float64, resources map[string]bool) {
	if !writes[l["verb"]] {
		return
	}
	whole := resources[l["resource"]] && l["subresource"] == ""
	switch {
	case whole && l["dry_run"] != "":
		c.dryRuns += n
	case whole && l["verb"] == "APPLY":
		c.applies += n
	case whole:
		c.otherWrites += n
	case l["subresource"] == "status" && reported[l["resource"]]:
		c.statusWrites += n
	}
}
