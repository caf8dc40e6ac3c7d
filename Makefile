# `make help` says what there is. Everything installs what it needs by itself.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

BIN := $(CURDIR)/_output/bin
LAB := $(BIN)/lab
IMAGES := $(BIN)/images
PROVISIONER := $(BIN)/rbd-provisioner
export RBD_PROVISIONER := $(PROVISIONER)

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app.version=$(VERSION)

# What the product and its tests are compiled with, beside what the lab needs. spin checks docs/model.
DEV_PACKAGES := gcc,libc6-dev,librbd-dev,librados-dev,spin
# Packages that compile without Ceph's headers: all but the Ceph client and main.
UNIT = $(shell go list ./... | grep -v -e '/rbdutil/librbd$$' -e '/cmd/rbd-provisioner$$')

##@ What it is for

.PHONY: demo
export KEEP
demo: prepare $(LAB) $(IMAGES) ## From nothing to a StatefulSet on RBD volumes, on real nodes. KEEP=1 leaves it running.
	@archives=$$($(IMAGES) build | paste -sd,) && \
	$(LAB) run demo --nodes 2 --images "$$archives" $(if $(KEEP),--keep) -- e2e/demo/demo.sh

##@ Tests

.PHONY: test
test: ## All tests: unit, fuzz, Ceph and control plane, faults, nodes.
	@$(MAKE) test-unit
	@$(MAKE) test-fuzz
	@$(MAKE) test-ceph
	@$(MAKE) test-faults
	@$(MAKE) e2e

.PHONY: test-unit
test-unit: ## Unit tests. No Ceph, no Kubernetes, no root (but for installing gcc where it is missing).
	@command -v gcc >/dev/null || $(MAKE) prepare
	go test -race -shuffle=on $(UNIT)

FUZZTIME ?= 5s

.PHONY: test-fuzz
test-fuzz: ## Fuzz what reads classes, claims and secrets: each target for FUZZTIME, 5s unless given.
	@for package in ./provisioner ./provisioner/pvindex ./provisioner/storageclass ./rbdutil; do \
		targets=$$(go test -list '^Fuzz' $$package | grep '^Fuzz'); \
		for target in $$targets; do \
			printf '%s make: fuzzing %s in %s for $(FUZZTIME) …\n' "$$(date +%H:%M:%S)" $$target $$package; \
			go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

# The tests of the next four run inside a lab's network, where no proxy can be reached:
# they are compiled before, outside. Within, `go test` finds everything in its cache.
compile = go test -c -o /dev/null

.PHONY: test-ceph
test-ceph: prepare $(LAB) $(PROVISIONER) ## The Ceph client and the provisioner itself, on a real Ceph and control plane.
	@$(call say,compiling the tests)
	@$(compile) -race -tags ceph ./rbdutil/librbd && $(compile) -tags e2e ./e2e/controller
	@$(LAB) run test-ceph --nodes 0 -- bash -euc '\
		go test -count=1 -race -tags ceph -timeout 20m ./rbdutil/librbd; \
		go test -count=1 -tags e2e -timeout 20m ./e2e/controller'
	@$(LAB) run test-ceph --nodes 0 --rbd-in-controller-manager -- \
		go test -count=1 -tags e2e -timeout 10m -run '^TestExpansion' ./e2e/controller

CLAIMS ?= 300
KILLS ?= 20
.PHONY: soak
soak: prepare $(LAB) $(PROVISIONER) ## Pause at every message and request; then kill and pause over claims that come and go. CLAIMS=1000 KILLS=100 SEED=1
	@$(call say,compiling the tests)
	@$(compile) -race -tags ceph ./rbdutil/librbd && $(compile) -tags e2e ./e2e/controller
	@$(LAB) run soak --nodes 0 -- env PAUSES=0 SOAK_CLAIMS=$(CLAIMS) SOAK_KILLS=$(KILLS) SOAK_SEED=$(SEED) bash -euc '\
		go test -count=1 -race -tags ceph -timeout 0 -run "^TestPausedAtEveryMessage$$" -v ./rbdutil/librbd; \
		go test -count=1 -tags e2e -timeout 0 -run "^(TestPausedAtEveryRequest|TestSoak)$$" -v ./e2e/controller'

.PHONY: test-faults
test-faults: prepare $(LAB) $(PROVISIONER) ## What a Ceph that fails does to the provisioner, and to the claims of another Ceph.
	@$(call say,compiling the tests)
	@$(compile) -tags e2e ./e2e/faults
	@$(LAB) run test-faults --nodes 0 --durable-ceph --second-ceph -- \
		go test -count=1 -tags e2e -timeout 20m ./e2e/faults

.PHONY: bench
bench: prepare $(LAB) $(PROVISIONER) ## Deletion by size, ours beside the in-tree provisioner's, on one Ceph. Prints ratios, judges nothing.
	@$(call say,compiling the benchmark)
	@$(compile) -tags e2e ./e2e/bench
	@$(LAB) run bench --nodes 0 --rbd-in-controller-manager -- \
		go test -count=1 -tags e2e -timeout 30m -v ./e2e/bench

.PHONY: e2e
e2e: prepare $(LAB) $(IMAGES) ## The specs: pods on real nodes that mount what was provisioned.
	@$(call say,compiling the tests)
	@$(compile) -tags e2e ./e2e/specs
	@archives=$$($(IMAGES) build | paste -sd,) && \
	$(LAB) run e2e --nodes 2 --images "$$archives" -- \
		go test -count=1 -tags e2e -timeout 30m ./e2e/specs

##@ Development

.PHONY: build
build: $(PROVISIONER) ## The provisioner's binary, in _output/bin (takes librbd-dev).

.PHONY: image
image: ## The container image, with docker. In a lab without a registry: _output/bin/images build.
	docker build --build-arg VERSION=$(VERSION) --tag docker.io/rbd-provisioner/rbd-provisioner:$(VERSION) .

.PHONY: verify
verify: prepare lint ## All that is checked without running: format, lint, dependencies, generated files, the model.
	@$(call say,checking that go.mod and go.sum are tidy)
	@go mod tidy -diff
	@cd e2e/kubernetes && go mod tidy -diff
	@$(call say,checking that only the Ceph client knows Ceph)
	@! go list -deps $(UNIT) | grep -e '^github.com/ceph/go-ceph'
	@$(call say,checking the manifests)
	@go test ./deploy
	@$(MAKE) model

.PHONY: model
model: ## Check the protocol model in docs/model with spin: all states, and that each mutation is found.
	@$(call say,checking the protocol model)
	@docs/model/check.sh

.PHONY: lint
lint: $(BIN)/golangci-lint-v2.5.0 $(BIN)/logcheck-v0.10.1 ## golangci-lint and logcheck.
	@$(call say,golangci-lint)
	@$(BIN)/golangci-lint-v2.5.0 run --allow-serial-runners --build-tags ceph,e2e ./...
	@$(call say,logcheck)
	@$(BIN)/logcheck-v0.10.1 -config .logcheck.conf -check-with-helpers ./cmd/... ./provisioner/... ./rbdutil/...

.PHONY: update
update: ## Rewrite what is made from the code: format, go.sum, the lists of flags and metrics in docs.
	gofmt -w cmd provisioner rbdutil e2e deploy
	go mod tidy
	cd e2e/kubernetes && go mod tidy
	UPDATE_GOLDEN=1 go test ./cmd/rbd-provisioner/app ./provisioner

.PHONY: prepare
prepare: $(LAB) ## Install Debian packages that are missing and build Kubernetes, unless they are there.
	@$(LAB) prepare --packages $(DEV_PACKAGES)

.PHONY: clean
clean: ## Take down all labs and remove what was built here. Caches in ~/.cache stay.
	@[ ! -x $(LAB) ] || $(LAB) down --all
	rm -rf _output

.PHONY: help
help: ## This.
	@awk 'BEGIN {FS = ":.*## "} \
		/^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# say prints what is being done; long silences make people press control-C.
say = printf '%s make: %s …\n' "$$(date +%H:%M:%S)" '$1'

# These need no C compiler, so that they can be built before anything is installed.
$(LAB): FORCE
	@CGO_ENABLED=0 go build -o $@ ./e2e/cmd/lab
$(IMAGES): FORCE
	@CGO_ENABLED=0 go build -o $@ ./e2e/cmd/images
$(PROVISIONER): prepare FORCE
	@$(call say,building the provisioner)
	@go build -ldflags '$(LDFLAGS)' -o $@ ./cmd/rbd-provisioner

$(BIN)/golangci-lint-v2.5.0:
	@$(call say,building golangci-lint v2.5.0)
	@GOBIN=$(BIN)/tmp go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.5.0
	@mv $(BIN)/tmp/golangci-lint $@
$(BIN)/logcheck-v0.10.1:
	@$(call say,building logcheck v0.10.1)
	@GOBIN=$(BIN)/tmp go install sigs.k8s.io/logtools/logcheck@v0.10.1
	@mv $(BIN)/tmp/logcheck $@

.PHONY: FORCE
FORCE:
