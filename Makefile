# Sametick. `make` lists the targets. Everything here needs Go and make, nothing else.

SHELL   := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

BIN     := $(CURDIR)/bin
MODULES := $(shell sed -n 's|^[[:space:]]*\./|./|p' go.work)
# Checkers run on every module of the workspace: `./...` alone means the current module.
ALL     := $(addsuffix /...,$(MODULES))
RACE    ?= -race
# Flags for `go test`, e.g. make test TESTFLAGS='-run Sequence -v'.
TESTFLAGS ?=

.DEFAULT_GOAL := help
.PHONY: help tools tools-generate tools-lint generate build test fuzz property verify verify-fmt verify-vet \
        verify-lint verify-proto verify-breaking verify-tidy verify-vuln verify-arch up torture bench-relay bench-write bench-api bench-webhooks bench-prompts clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# ---- tools: pinned in modules of their own, built once per change of the pins ----

tools: tools-generate tools-lint ## build the pinned tools into bin/

tools-generate: $(BIN)/.plugins $(BIN)/.buf

tools-lint: $(BIN)/.lint

$(BIN)/.plugins: tools/go.mod tools/go.sum
	@echo "building the protoc plugins"; mkdir -p $(BIN)
	@cd tools && GOWORK=off go build -p 2 -o $(BIN)/ tool && touch $@

$(BIN)/.buf: tools/buf/go.mod tools/buf/go.sum
	@echo "building buf"; mkdir -p $(BIN)
	@cd tools/buf && GOWORK=off go build -p 2 -o $(BIN)/ tool && touch $@

$(BIN)/.lint: tools/lint/go.mod tools/lint/go.sum
	@echo "building golangci-lint and govulncheck"; mkdir -p $(BIN)
	@cd tools/lint && GOWORK=off go build -p 2 -o $(BIN)/ tool && touch $@

# ---- code ----

generate: tools-generate ## regenerate proto/gen/go; needs no network once modules are cached
	@$(BIN)/buf generate

build: ## build the services and tick into bin/
	@mkdir -p $(BIN)
	@for d in services/*/cmd/*/; do [ -d "$$d" ] || continue; echo "go build ./$$d"; go build -o $(BIN)/ "./$$d"; done

clean: ## remove bin/ and test leftovers, not .dev/ with its data
	@rm -rf bin out

# ---- proof ----

test: ## all tests of all modules, -race, against a private Postgres and Redis
	@go run ./deploy/dev/cmd/with-services -- go test $(RACE) -timeout 25m $(TESTFLAGS) $(ALL)

FUZZTIME ?= 60s
fuzz: ## every fuzz target for FUZZTIME each (60s)
	@for d in $$(grep -rl --include='*_test.go' '^func Fuzz' $(MODULES) | xargs -r -n1 dirname | sort -u); do \
	  for f in $$(grep -rhoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' $$d/*_test.go | cut -c6- | sort -u); do \
	    echo "$$d $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) "$$d"; \
	  done; \
	done

# PROPERTY_SEED=N repeats a run; each operation gets PROPERTY_CALLS requests (make test: 60).
property: ## requests made up from the OpenAPI document, valid and broken (PROPERTY_CALLS=2000, a new seed each time)
	@PROPERTY_CALLS=$${PROPERTY_CALLS:-2000} PROPERTY_SEED=$${PROPERTY_SEED:-$$RANDOM} \
	  go run ./deploy/dev/cmd/with-services -- go test -count 1 -v -timeout 1h -run TestDocument ./services/api-gateway/internal/property/

verify: verify-fmt verify-vet verify-proto verify-breaking verify-tidy verify-arch verify-lint verify-vuln ## everything but the tests: format, vet, lint, generated code, go.mod, vulnerabilities

verify-fmt:
	@out=$$(gofmt -l $(MODULES)); [ -z "$$out" ] || { echo "gofmt wants to change:"; echo "$$out"; exit 1; }

verify-vet:
	@go vet $(ALL)

verify-lint: tools-lint
	@for m in $(filter-out ./proto/gen/go,$(MODULES)); do echo "golangci-lint $$m"; (cd $$m && $(BIN)/golangci-lint run --config $(CURDIR)/.golangci.yml ./...); done

# Generates into a copy, so that an uncommitted change is neither touched nor blamed.
verify-proto: tools-generate
	@$(BIN)/buf lint
	@t=$$(mktemp -d); trap 'rm -rf "$$t"' EXIT; \
	$(BIN)/buf generate -o "$$t"; \
	diff -r -x go.mod -x go.sum "$$t/proto/gen/go" proto/gen/go && diff "$$t"/services/api-gateway/internal/openapi/openapi.json services/api-gateway/internal/openapi/openapi.json || { echo "generated code is not what proto/ says: run make generate"; exit 1; }

# Contracts only grow: what a client of the last release sends and reads stays valid.
verify-breaking: tools-generate
	@tag=$$(git describe --tags --abbrev=0 2>/dev/null) || { echo "buf breaking: NOT RUN, there is no tag to compare with"; exit 0; }; \
	$(BIN)/buf breaking --against ".git#tag=$$tag"

verify-tidy:
	@for m in $(MODULES) ./tools ./tools/buf ./tools/lint; do \
	  (cd $$m && GOWORK=off go mod tidy -diff >/dev/null) || { echo "$$m: run GOWORK=off go mod tidy there"; exit 1; }; \
	done

verify-arch:
	@go test ./pkg/archtest/

# An unreachable database is said, not hidden, and is no failure: a checkout must verify offline.
verify-vuln: tools-lint
	@for m in $(filter-out ./proto/gen/go,$(MODULES)); do \
	  out=$$(cd $$m && GOWORK=off $(BIN)/govulncheck ./... 2>&1) && { echo "govulncheck $$m: clean"; continue; }; \
	  if grep -qE 'fetching vulnerabilities|no such host|connection refused|i/o timeout|Forbidden|tls:' <<<"$$out"; then \
	    echo "govulncheck: NOT RUN, its database is out of reach: $$(tail -1 <<<"$$out")"; exit 0; fi; \
	  echo "$$out"; exit 1; \
	done

# ---- running ----

up: ## the whole suite on this machine: prints a URL and a token; Ctrl-C stops it
	@mkdir -p .dev/bin && go build -o .dev/bin/dev ./deploy/dev && exec .dev/bin/dev

torture: ## crash everything and count: lost, twice, out of order, gaps (ARGS=…)
	@go run ./deploy/torture $(ARGS)

bench-relay: ## relay speed beside a bare loop, Watermill-SQL and River (ARGS=…)
	@go run ./deploy/bench/relay $(ARGS)

bench-write: ## write path beside pgbench (ARGS=…)
	@go run ./deploy/bench/write $(ARGS)

bench-api: ## GET /api/events over a million events, --long ten (ARGS=…)
	@go run ./deploy/bench/api $(ARGS)

bench-webhooks: ## webhook deliveries beside a bare POST loop and River (ARGS=…)
	@go run ./deploy/bench/webhooks $(ARGS)

bench-prompts: ## prompt hooks: what writes pay, reviews by rules, async runs, a long queue (ARGS=…)
	@go run ./deploy/bench/prompts $(ARGS)
