# `make help` lists the targets. Each target installs what it needs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

BIN := $(CURDIR)/_output/bin
LAB := $(BIN)/lab
IMAGES := $(BIN)/images
# The paths of the archives of the container images, separated by commas.
ARCHIVES := $(BIN)/archives
PROVISIONER := $(BIN)/rbd-provisioner
export RBD_PROVISIONER := $(PROVISIONER)

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app.version=$(VERSION)

# Debian packages beside those of the lab: the compiler and libraries of the product, and checkers.
DEV_PACKAGES := gcc,libc6-dev,librbd-dev,librados-dev,spin,shellcheck

# The versions of all tools that are built from source.
GOLANGCI_LINT_VERSION := v2.5.0
LOGCHECK_VERSION := v0.10.1
ACTIONLINT_VERSION := v1.7.7
GOVULNCHECK_VERSION := v1.1.4
KIND_VERSION := v0.27.0

GOLANGCI_LINT := $(BIN)/golangci-lint-$(GOLANGCI_LINT_VERSION)
LOGCHECK := $(BIN)/logcheck-$(LOGCHECK_VERSION)
ACTIONLINT := $(BIN)/actionlint-$(ACTIONLINT_VERSION)
GOVULNCHECK := $(BIN)/govulncheck-$(GOVULNCHECK_VERSION)
KIND := $(BIN)/kind-$(KIND_VERSION)

# All shell scripts, by their first line.
SCRIPTS = $(shell grep -rlIm1 '^\#!/bin/\(ba\)\?sh' --exclude='*.go' --exclude-dir=.git --exclude-dir=_output .)
# Packages that compile without Ceph's headers: all except the Ceph client and main.
UNIT = $(shell go list ./... | grep -v -e '/rbdutil/librbd$$' -e '/rbdutil/librbd/cephconn$$' -e '/cmd/rbd-provisioner$$')

##@ Demo

.PHONY: demo
export KEEP
demo: nodes ## Install on a new cluster, then run a StatefulSet on RBD volumes. KEEP=1 keeps it running.
	@$(LAB) run demo --nodes 2 --images "$$(cat $(ARCHIVES))" $(if $(KEEP),--keep) -- e2e/demo/demo.sh

##@ Tests

.PHONY: test
test: ## All tests: unit, fuzz, Ceph and control plane, faults, nodes.
	@$(MAKE) test-unit
	@$(MAKE) test-fuzz
	@$(MAKE) test-ceph
	@$(MAKE) test-faults
	@$(MAKE) e2e

.PHONY: test-unit
test-unit: ## Unit tests. They need no Ceph and no Kubernetes, and root only to install gcc.
	@command -v gcc >/dev/null || $(MAKE) prepare
	go test -race -shuffle=on $(UNIT)
	cd e2e/upstream && go test -shuffle=on ./skiplist

FUZZTIME ?= 5s

.PHONY: test-fuzz
test-fuzz: ## Fuzz the parsers of classes, claims and Secrets: each target for FUZZTIME (default 5s).
	@for package in $$(grep -rl --include='*_test.go' '^func Fuzz' ./cmd ./provisioner ./rbdutil | xargs -n1 dirname | sort -u); do \
		targets=$$(go test -list '^Fuzz' $$package | grep '^Fuzz'); \
		for target in $$targets; do \
			printf '%s make: fuzzing %s in %s for $(FUZZTIME) …\n' "$$(date +%H:%M:%S)" $$target $$package; \
			go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

# The following tests run in the network of a lab, which reaches no module proxy. Therefore they
# are compiled outside first, and `go test` in the lab finds everything in its cache.
compile = go test -c -o /dev/null

# The versions of the Ceph cluster and of the client library: 16 of Debian 12, or 18 of Debian 13.
CEPH ?= 16
LIBRBD ?= 16
# A regular expression for test-ceph: run only the tests whose names match.
RUN ?=
with_librbd = $(LAB) exec test-ceph --librbd $(LIBRBD) --
run_tests = go test -exec "$(with_librbd)" -count=1 -timeout 20m $(if $(RUN),-run "$(RUN)")

.PHONY: test-ceph
test-ceph: prepare $(LAB) $(PROVISIONER) ## The Ceph client and the provisioner itself, on a real Ceph and control plane. CEPH=18 LIBRBD=18
	@$(call say,compiling the tests)
	@for package in ./rbdutil/librbd ./rbdutil/librbd/cephconn; do $(compile) -race -tags ceph $$package; done
	@$(compile) -tags e2e ./e2e/controller
	@$(LAB) prepare --ceph $(LIBRBD)
	@$(LAB) run test-ceph --nodes 0 --ceph $(CEPH) -- env WANT_LIBRBD=$(LIBRBD) bash -euc '\
		echo "The client is $$($(with_librbd) rbd --version)"; \
		$(run_tests) -race -tags ceph -p 1 ./rbdutil/librbd ./rbdutil/librbd/cephconn; \
		$(run_tests) -tags e2e ./e2e/controller'
ifndef RUN
	@$(LAB) run test-ceph --nodes 0 --ceph $(CEPH) --rbd-in-controller-manager -- env WANT_LIBRBD=$(LIBRBD) \
		$(run_tests) -tags e2e -run '^TestExpansion' -skip 'IsLargerAlready$$' ./e2e/controller
endif

# The tests of what differs most between versions of Ceph: the Store, and its use for claims.
ACROSS_VERSIONS := ^Test(Contract|ConnectErrors|AnEarlierLeaderIsFenced|TheLayoutIsNotTaken|ImagesOfFormat1|AFullPool|ParametersReachTheImage|CloneAwaitsItsSource|ExpansionWhileThePoolIsFull|RightsInCeph)

.PHONY: test-versions
test-versions: ## A selection of test-ceph for each pair of cluster and client library with a 18.
	@$(MAKE) test-ceph RUN='$(ACROSS_VERSIONS)' CEPH=18 LIBRBD=18
	@$(MAKE) test-ceph RUN='$(ACROSS_VERSIONS)' CEPH=18 LIBRBD=16
	@$(MAKE) test-ceph RUN='$(ACROSS_VERSIONS)' CEPH=16 LIBRBD=18

.PHONY: test-kubernetes
test-kubernetes: KUBERNETES = 1.20
test-kubernetes: prepare $(LAB) $(PROVISIONER) ## The provisioner itself on the control plane of another release: KUBERNETES=1.20
	@$(call say,compiling the tests)
	@$(compile) -tags e2e ./e2e/controller
	@$(LAB) run test-kubernetes --nodes 0 --kubernetes $(KUBERNETES) -- \
		go test -count=1 -tags e2e -timeout 20m ./e2e/controller

CLAIMS ?= 300
KILLS ?= 20
.PHONY: soak
soak: prepare $(LAB) $(PROVISIONER) ## Pause at each message and request, then kill and pause during many claims. CLAIMS=1000 KILLS=100 SEED=1
	@$(call say,compiling the tests)
	@$(compile) -race -tags ceph ./rbdutil/librbd && $(compile) -tags e2e ./e2e/controller
	@$(LAB) run soak --nodes 0 -- env PAUSES=0 SOAK_CLAIMS=$(CLAIMS) SOAK_KILLS=$(KILLS) SOAK_SEED=$(SEED) bash -euc '\
		go test -count=1 -race -tags ceph -timeout 0 -run "^TestPausedAtEveryMessage$$" -v ./rbdutil/librbd; \
		go test -count=1 -tags e2e -timeout 0 -run "^(TestPausedAtEveryRequest|TestSoak)$$" -v ./e2e/controller'

.PHONY: test-faults
test-faults: prepare $(LAB) $(PROVISIONER) ## Failures of one Ceph: their effect on the provisioner, and on the claims of another Ceph.
	@$(call say,compiling the tests)
	@$(compile) -tags e2e ./e2e/faults
	@$(LAB) run test-faults --nodes 0 --durable-ceph --second-ceph -- \
		go test -count=1 -tags e2e -timeout 20m ./e2e/faults

.PHONY: bench
bench: prepare $(LAB) $(PROVISIONER) ## Compare deletion by size with the in-tree provisioner on one Ceph. Prints ratios, has no limits.
	@$(call say,compiling the benchmark)
	@$(compile) -tags e2e ./e2e/bench
	@$(LAB) run bench --nodes 0 --rbd-in-controller-manager -- \
		go test -count=1 -tags e2e -timeout 30m -v ./e2e/bench

.PHONY: e2e
e2e: nodes ## The specs: pods on real nodes mount the volumes.
	@$(call say,compiling the tests)
	@$(compile) -tags e2e ./e2e/specs
	@$(LAB) run e2e --nodes 2 --images "$$(cat $(ARCHIVES))" -- \
		go test -count=1 -tags e2e -timeout 30m ./e2e/specs

# The node image of Kubernetes 1.30 that was published with KIND_VERSION. If it cannot be pulled, an image is built.
KIND_NODE_IMAGE ?= docker.io/kindest/node:v1.30.10@sha256:4de75d0e82481ea846c0ed1de86328d821c1e6a6a91ac37bf804e5313670e507

.PHONY: e2e-kind
e2e-kind: $(KIND) $(LAB) $(IMAGES) ## The specs on kind, with Ceph in a container. It needs Docker, or root on Debian. KERNEL_CLIENT=required
	@KIND=$(KIND) KIND_VERSION=$(KIND_VERSION) KIND_NODE_IMAGE=$(KIND_NODE_IMAGE) IMAGES=$(IMAGES) LAB=$(LAB) e2e/kind/run

# The suite, and the program that runs its specs in parallel.
UPSTREAM := $(BIN)/upstream.test $(BIN)/ginkgo
export FOCUS PROCS
# On a new lab, or on the cluster of `make KUBECONFIG=…`. A variable of the environment is not used, because the specs
# would run on a cluster that nobody named.
ifeq ($(origin KUBECONFIG),command line)
upstream-needs := upstream-build
run-upstream = e2e/upstream/run.sh $(UPSTREAM)
else
upstream-needs := nodes upstream-build
run-upstream = $(LAB) run upstream --nodes 2 --images "$$(cat $(ARCHIVES))" -- e2e/upstream/run.sh $(UPSTREAM)
e2e-upstream e2e-upstream-ci: export LAB_IMAGES := provisioner,pause,agnhost,e2e-busybox,e2e-nginx,dnsutils
endif

.PHONY: e2e-upstream
e2e-upstream: $(upstream-needs) ## Kubernetes' own storage suite: all of it, or FOCUS=volume-expand. On another cluster: KUBECONFIG=FILE
	@$(run-upstream)

.PHONY: e2e-upstream-ci
e2e-upstream-ci: $(upstream-needs) ## A selection of Kubernetes' own storage suite, for breadth: e2e/upstream/ci.txt
	@SELECTION=e2e/upstream/ci.txt $(run-upstream)

.PHONY: upstream-build
upstream-build:
	@$(call say,compiling the storage suite of Kubernetes (takes minutes the first time))
	@cd e2e/upstream && CGO_ENABLED=0 go test -c -ldflags '-s -w' -o $(BIN)/upstream.test .
	@cd e2e/upstream && CGO_ENABLED=0 go build -o $(BIN)/ginkgo github.com/onsi/ginkgo/v2/ginkgo

##@ Development

.PHONY: build
build: $(PROVISIONER) ## Build _output/bin/rbd-provisioner. It needs librbd-dev.

.PHONY: image
image: ## Build the container image with docker. For a lab: _output/bin/images build.
	docker build --build-arg VERSION=$(VERSION) --tag docker.io/rbd-provisioner/rbd-provisioner:$(VERSION) .

.PHONY: verify
verify: prepare lint scripts workflows vulnerabilities ## All checks that run no product code: format, lint, dependencies, generated files, documents, the model.
	@$(call say,checking that go.mod and go.sum are tidy)
	@go mod tidy -diff
	@for module in e2e/kubernetes e2e/kubernetes/*/ e2e/upstream; do (cd $$module && go mod tidy -diff); done
	@$(call say,checking that only the Ceph client imports go-ceph)
	@! go list -deps $(UNIT) | grep -e '^github.com/ceph/go-ceph'
	@$(call say,checking the manifests and the documents)
	@go test ./deploy ./docs
	@$(MAKE) model

.PHONY: model
model: ## Check the protocol model in docs/model with spin: all states, and that each mutation is found.
	@$(call say,checking the protocol model)
	@docs/model/check.sh

.PHONY: lint
lint: $(GOLANGCI_LINT) $(LOGCHECK) ## golangci-lint and logcheck.
	@$(call say,golangci-lint)
	@$(GOLANGCI_LINT) run --allow-serial-runners --build-tags ceph,e2e ./...
	@# Not the package itself: the linter would analyse all of Kubernetes' end-to-end tests.
	@cd e2e/upstream && $(GOLANGCI_LINT) run --allow-serial-runners ./skiplist
	@$(call say,logcheck)
	@$(LOGCHECK) -config .logcheck.conf -check-with-helpers ./cmd/... ./provisioner/... ./rbdutil/...

.PHONY: scripts
scripts: ## shellcheck on all shell scripts.
	@$(call say,shellcheck)
	@command -v shellcheck >/dev/null || $(MAKE) prepare
	@shellcheck $(SCRIPTS)

.PHONY: workflows
workflows: $(ACTIONLINT) ## actionlint on the GitHub workflows.
	@$(call say,actionlint)
	@$(ACTIONLINT) .github/workflows/*.yaml

GOVULNDB ?= https://vuln.go.dev

.PHONY: vulnerabilities
vulnerabilities: $(GOVULNCHECK) ## govulncheck. Skipped with a message if its database cannot be reached.
	@$(call say,govulncheck)
	@output=$$($(GOVULNCHECK) -db $(GOVULNDB) -tags ceph,e2e ./... 2>&1) || case $$output in \
		*'fetching vulnerabilities:'*) echo "make: SKIPPED govulncheck: its database $(GOVULNDB) cannot be reached" ;; \
		*) printf '%s\n' "$$output"; exit 1 ;; \
	esac

.PHONY: release-check
release-check: ## Check that this commit can be released: VERSION=v0.1.0. See RELEASE.md.
	@.ci/release-check $(VERSION)
	@$(MAKE) verify

.PHONY: update
update: ## Rewrite what is generated from the code: format, go.sum, the lists of flags and metrics in docs.
	gofmt -w cmd provisioner rbdutil e2e deploy docs
	go mod tidy
	for module in e2e/kubernetes e2e/kubernetes/*/ e2e/upstream; do (cd $$module && go mod tidy); done
	UPDATE_GOLDEN=1 go test ./cmd/rbd-provisioner/app ./provisioner

.PHONY: prepare
prepare: $(LAB) ## Install missing Debian packages, and build Kubernetes unless it is in the cache.
	@$(LAB) prepare --packages $(DEV_PACKAGES) $(if $(KUBERNETES),--kubernetes $(KUBERNETES))

# What a lab with nodes needs. Kubernetes keeps the processors busy, the images mostly the network
# and the disk, so they are built at the same time.
.PHONY: nodes kubernetes
nodes: $(LAB) $(IMAGES)
	@$(MAKE) -j2 kubernetes $(ARCHIVES)

kubernetes: $(LAB)
	@$(LAB) prepare

$(ARCHIVES): $(IMAGES) FORCE
	@$(IMAGES) build $(if $(LAB_IMAGES),--only $(LAB_IMAGES)) >$@.part
	@paste -sd, $@.part >$@

.PHONY: clean
clean: ## Stop all labs and remove _output. The caches in ~/.cache stay.
	@[ ! -x $(LAB) ] || $(LAB) down --all
	rm -rf _output

.PHONY: help
help: ## Show this list.
	@awk 'BEGIN {FS = ":.*## "} \
		/^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# say prints the current step, so that long steps are not taken for a hang.
say = printf '%s make: %s …\n' "$$(date +%H:%M:%S)" '$1'

# These need no C compiler, so that they can be built before packages are installed.
$(LAB): FORCE
	@CGO_ENABLED=0 go build -o $@ ./e2e/cmd/lab
$(IMAGES): FORCE
	@CGO_ENABLED=0 go build -o $@ ./e2e/cmd/images
$(PROVISIONER): prepare FORCE
	@$(call say,building the provisioner)
	@go build -ldflags '$(LDFLAGS)' -o $@ ./cmd/rbd-provisioner

# $(call tool,COMMAND,PACKAGE,VERSION) is the rule that builds a tool.
define tool
$(BIN)/$(1)-$(3):
	@$$(call say,building $(1) $(3))
	@GOBIN=$(BIN)/tmp go install $(2)@$(3)
	@mv $(BIN)/tmp/$(1) $$@
endef
$(eval $(call tool,golangci-lint,github.com/golangci/golangci-lint/v2/cmd/golangci-lint,$(GOLANGCI_LINT_VERSION)))
$(eval $(call tool,logcheck,sigs.k8s.io/logtools/logcheck,$(LOGCHECK_VERSION)))
$(eval $(call tool,actionlint,github.com/rhysd/actionlint/cmd/actionlint,$(ACTIONLINT_VERSION)))
$(eval $(call tool,govulncheck,golang.org/x/vuln/cmd/govulncheck,$(GOVULNCHECK_VERSION)))
$(eval $(call tool,kind,sigs.k8s.io/kind,$(KIND_VERSION)))

.PHONY: FORCE
FORCE:
