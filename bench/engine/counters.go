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
	page, err := c.send(ctx, http.MethodGet, "/metrics", "", "text/plain", nil)
	if err != nil {
		return total, err
	}
	defer func() { _ = page.Close() }()
	lines := bufio.NewScanner(page)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "apiserver_request_total{") {
			if err := total.add(line, resources); err != nil {
				return total, err
			}
		}
	}
	return total, lines.Err()
}

// add counts one line of the metric apiserver_request_total.
func (c *counters) add(line string, resources map[string]bool) error {
	at := strings.LastIndexByte(line, ' ')
	n, err := strconv.ParseFloat(line[at+1:], 64)
	if err != nil {
		return fmt.Errorf("read the API server's metrics: %q: %w", line, err)
	}
	l := map[string]string{}
	for _, m := range label.FindAllStringSubmatch(line[:at], -1) {
		l[m[1]] = m[2]
	}
	if !writes[l["verb"]] {
		return nil
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
	return nil
}
