# Bowline: build, check, run. Needs Go, git and make; a C compiler adds the race
# detector to the tests. Everything else is fetched by version from go.sum.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.DELETE_ON_ERROR:

# One set of flags for every go command: a package compiled for the executable
# is then reused by vet, lint and test. The control plane alone takes minutes.
export GOFLAGS := $(shell go env GOFLAGS) -trimpath
# Without cgo the executables are static, and a quarter smaller: a library among
# the dependencies imports the package plugin, which makes the linker keep every
# exported method where plugins can be loaded. Only the race detector needs cgo.
export CGO_ENABLED := 0
BIN := bin
TOOLS := $(BIN)/tools
BUCKET_TOOLS := $(TOOLS)/versitygw $(TOOLS)/fake-gcs-server
CORE_COMPONENTS := internal/fleet/capi/install/core.yaml
CLUSTER_API := $(TOOLS)/capi-manager $(TOOLS)/capa-manager $(TOOLS)/capa-components.yaml
LOCALKUBE_VERSION := v1.36.3
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

# The packages of our own kinds.
APIS := api/fleet/v1alpha1 api/local/v1alpha1

# How many packages are compiled or tested side by side.
P ?= $(shell nproc 2>/dev/null || echo 2)

# How many tests of a package run side by side.
PARALLEL ?= $(P)

# Packages tested under the race detector where there is a C compiler: all that
# run goroutines. The rest gains nothing from it.
# Programs that tests start are under it too where their end is awaited, because a race ends them
# with a status of its own. Those that are killed, or outlive the command that a test looks at, are
# built without: nobody would read its report, and they start and work several times as fast.
# Each test says itself that a race was found while it ran, so no process has to stay for a second
# after its end, as those under the detector do.
RACE ?= ./internal/... ./cmd/...
NORACE ?= ./bench/... ./examples/...
# `make verify` vets everything. To vet a test once more takes facts about all dependencies as they are under the race
# detector: two minutes of a processor where nothing is cached.
TESTFLAGS ?= -vet=off -timeout 40m -parallel $(PARALLEL)

.PHONY: help
help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- build and run ----------------------------------------------------------

.PHONY: build
build: bowline $(BIN)/localkube ## Build bin/bowline and bin/localkube

.PHONY: bowline
bowline:
	go build -p $(P) -ldflags "-s -w -X main.version=$(VERSION)" -o $(BIN)/bowline ./cmd/bowline

# Rebuilt only when its own sources change: linking it takes a while. The version
# is the one that the control plane reports to its clients.
LOCALKUBE_SOURCES := $(shell find localkube -name '*.go' ! -name '*_test.go' 2>/dev/null) localkube/go.mod localkube/go.sum
$(BIN)/localkube: $(LOCALKUBE_SOURCES)
	@echo "building the control plane; the first time takes some minutes"
	cd localkube && go build -p $(P) -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$(LOCALKUBE_VERSION)" -o ../$(BIN)/localkube ./cmd/localkube

.PHONY: up
up: build $(TOOLS)/capi-manager ## Start a hub and the clusters of the example fleet (ARGS=... for bowline up)
	$(BIN)/bowline up $(ARGS)

.PHONY: down
down: ## Stop what `make up` started and leave nothing behind
	@if [ -x $(BIN)/bowline ]; then $(BIN)/bowline down $(ARGS); else echo "nothing to stop: $(BIN)/bowline is not built"; fi

# ---- test -------------------------------------------------------------------

.PHONY: test
test: ssh-keygen $(BIN)/localkube $(TOOLS)/flux $(TOOLS)/helm $(BUCKET_TOOLS) $(CLUSTER_API) ## Run all tests, against the real API server in bin/localkube
	@cc=$$(go env CC); \
	if command -v "$${cc%% *}" >/dev/null; then \
	  echo "go test -race $(RACE)"; \
	  CGO_ENABLED=1 GORACE=atexit_sleep_ms=0 go test -race -p $(P) $(TESTFLAGS) $(RACE); \
	else \
	  echo "==================================================================="; \
	  echo "WARNING: no C compiler: tests run WITHOUT the race detector."; \
	  echo "         Install gcc to find data races."; \
	  echo "==================================================================="; \
	  go test -p $(P) $(TESTFLAGS) $(RACE); \
	fi
	go test -p $(P) $(TESTFLAGS) $(NORACE)
	cd localkube && go test -p $(P) $(TESTFLAGS) ./...

# What git signs with. Where it is missing and cannot be installed, the test of that is skipped.
.PHONY: ssh-keygen
ssh-keygen:
	@command -v ssh-keygen >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get -qq update && apt-get -qq install --no-install-recommends openssh-client >/dev/null; } || { \
	  echo "==================================================================="; \
	  echo "WARNING: no ssh-keygen: that git's own signatures are verified is NOT"; \
	  echo "         tested. Install openssh-client."; \
	  echo "==================================================================="; \
	}

# ---- verify -----------------------------------------------------------------

.PHONY: verify
verify: verify-format verify-tidy verify-vet verify-rules verify-gen verify-docs lint ## Check everything short of the tests
	@echo "verify: all good"

.PHONY: verify-format
verify-format:
	@bad=$$(git ls-files -co --exclude-standard '*.go' | while read -r f; do [ ! -f "$$f" ] || echo "$$f"; done | xargs gofmt -l); \
	if [ -n "$$bad" ]; then echo "not formatted, run gofmt -w on:"; echo "$$bad"; exit 1; fi

.PHONY: verify-tidy
verify-tidy:
	go mod tidy -diff
	cd localkube && go mod tidy -diff

.PHONY: verify-vet
verify-vet:
	go vet ./...
	cd localkube && go vet ./...

.PHONY: verify-rules
verify-rules:
	go test ./internal/rules/...

# Generated files are made a second time, elsewhere, and compared: this neither
# touches the working tree nor depends on what is committed.
.PHONY: verify-gen
verify-gen: $(TOOLS)/controller-gen
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	tools/gen-crds.sh $(TOOLS)/controller-gen "$$dir" && \
	diff -ru --exclude='*.go' internal/crds "$$dir" || { echo "internal/crds is not what the types say: run make gen"; exit 1; }
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && for api in $(APIS); do \
	$(TOOLS)/controller-gen object paths=./$$api output:object:dir="$$dir" && \
	diff -u $$api/zz_generated.deepcopy.go "$$dir/zz_generated.deepcopy.go" || { echo "$$api is not what its types say: run make gen"; exit 1; }; done

.PHONY: verify-docs
verify-docs: bowline
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	$(BIN)/bowline docs --dir "$$dir" && \
	diff -ru docs/cli "$$dir" || { echo "docs/cli is not what the commands say: run make docs"; exit 1; }

.PHONY: lint
lint: $(TOOLS)/golangci-lint ## Run the linters of .golangci.yml on both modules
	$(TOOLS)/golangci-lint run
	cd localkube && ../$(TOOLS)/golangci-lint run --config ../.golangci.yml

# ---- generate ---------------------------------------------------------------

.PHONY: gen
gen: $(TOOLS)/controller-gen ## Make the generated files: custom resource definitions, copies of objects
	tools/gen-crds.sh $(TOOLS)/controller-gen internal/crds
	$(TOOLS)/controller-gen object paths=./api/...
	tools/gen-components.sh tools/capi >$(CORE_COMPONENTS).new && mv $(CORE_COMPONENTS).new $(CORE_COMPONENTS)

.PHONY: docs
docs: bowline ## Make the CLI reference in docs/cli
	rm -rf docs/cli && mkdir -p docs/cli
	$(BIN)/bowline docs --dir docs/cli

# The tools are pinned in a module of their own, so that what they import never
# weighs on the product.
$(TOOLS)/%: tools/go.mod tools/go.sum
	@mkdir -p $(TOOLS)
	@echo "building $*"
	cd tools && go build -p $(P) -ldflags "-s -w" -o ../$(TOOLS)/$* $$(go list -f '{{.ImportPath}}' tool | grep '/$*$$')
	@touch $@

# The command lines of the toolkit and of Helm, which tests drive the engine with, and read and change
# releases with. Each is pinned in a module of its own as well: two to four minutes to compile.
$(TOOLS)/flux $(TOOLS)/helm: $(TOOLS)/%: tools/%/go.mod tools/%/go.sum tools/%/build.sh
	@mkdir -p $(TOOLS)
	@echo "building $*; the first time takes some minutes"
	P=$(P) tools/$*/build.sh $@
	@touch $@

# The servers of buckets, which tests keep objects in: about two minutes to compile.
$(BUCKET_TOOLS): tools/buckets/go.mod tools/buckets/go.sum
	@mkdir -p $(TOOLS)
	@echo "building $(@F)"
	cd tools/buckets && go build -p $(P) -ldflags "-s -w" -o ../../$@ $$(go list -f '{{.ImportPath}}' tool | grep '/$(@F)$$')
	@touch $@

# Cluster API's managers: its own builds clusters, here and in tests; the one for AWS judges
# templates in tests. Each is pinned in a module of its own, with what it needs on an API server.
$(TOOLS)/capi-manager $(TOOLS)/capa-manager: $(TOOLS)/%-manager: tools/%/go.mod tools/%/go.sum tools/manager.sh
	@mkdir -p $(TOOLS)
	@echo "building $(@F); the first time takes some minutes"
	P=$(P) tools/manager.sh tools/$* $@
	@touch $@

$(TOOLS)/capa-components.yaml: tools/capa/go.mod tools/capa/go.sum tools/gen-components.sh internal/fleet/capi/install/cmd/components/main.go
	@mkdir -p $(TOOLS)
	tools/gen-components.sh tools/capa >$@

# Microsoft's emulator of Azure's storage. It takes Node, which nothing else here does, so it is
# not among what `make test` builds: without it, one test of buckets is skipped.
$(TOOLS)/azurite: tools/azurite.sh
	@mkdir -p $(TOOLS)
	tools/azurite.sh $@
	@touch $@

# ---- measure ----------------------------------------------------------------

.PHONY: bench
bench: build ## Measure the engine: table and JSON (ARGS=... for bench/engine)
	go build -o $(BIN)/bench-engine ./bench/engine
	$(BIN)/bench-engine $(ARGS)

.PHONY: bench-git
bench-git: ## Measure ways to fetch from Git (ARGS=... for bench/git)
	go run ./bench/git $(ARGS)
