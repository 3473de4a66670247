# The few commands a person needs. `make` lists them. Each installs what it lacks through the system's package manager,
# or says precisely what to install.

STRATEGY ?= kafka-keyed
NODES    ?=
PORT     ?= 8000
FUZZ_SECONDS ?= 60
SOAK_MINUTES ?= 20
SOAK_SEED    ?= 1
CARGO    ?= cargo
NEED     := .ci/need

.DEFAULT_GOAL := help
.PHONY: help compare faults soak test unit e2e chat bench microbench counts lint fuzz doctor deps clean

help: ## this list
	@echo "Manifold: one chat server, many backplanes, and the evidence which fits which job."
	@echo
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  make chat takes STRATEGY=$(STRATEGY) (or memory, kafka-broadcast, redis-pubsub, hybrid), NODES=3, PORT=$(PORT)"

compare: ## drive every strategy through the same short load, audit every delivery, write a report
	@$(NEED) rust cc java maven
	$(CARGO) build --release --workspace --bins
	@# 2 = inconclusive on this machine just now: the report is written and says why, so the target is not an error.
	target/release/loadgen compare --quick || [ $$? -eq 2 ]

faults: ## every strategy under every fault that concerns it, clients recovering: what is lost, told and regained
	@$(NEED) rust cc java maven
	$(CARGO) build --release --workspace --bins
	target/release/loadgen compare --faults || [ $$? -eq 2 ]

soak: ## every strategy at once for SOAK_MINUTES=20 under random faults (SOAK_SEED=1): no silent loss, memory flat
	@$(NEED) rust cc java maven
	$(CARGO) build --release --workspace --bins
	target/release/loadgen soak --minutes $(SOAK_MINUTES) --seed $(SOAK_SEED)

test: unit e2e ## every test, on real Kafka and Redis, with the official SDKs and two browsers

unit: ## the Rust tests, on real Kafka and Redis
	@$(NEED) rust cc java maven
	$(CARGO) test --workspace

e2e: e2e/node_modules/.package-lock.json e2e/.venv/.installed ## the official SDKs on every strategy, and two browsers that chat
	@$(NEED) rust cc java maven
	@$(NEED) chromium || echo "!!! NO BROWSER: the page test will be skipped" >&2
	$(CARGO) build --workspace --bins
	cd e2e && npm test

e2e/node_modules/.package-lock.json: e2e/package.json e2e/package-lock.json
	@$(NEED) node
	cd e2e && npm ci --no-audit --no-fund

e2e/.venv/.installed: e2e/python/requirements.txt
	@$(NEED) python
	python3 -m venv --clear e2e/.venv
	e2e/.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	touch $@

chat: ## brokers and three nodes of one strategy, with the addresses to open
	@$(NEED) rust cc $(if $(filter memory,$(STRATEGY)),,java maven)
	$(CARGO) build --release -p manifold-server -p manifold-compose --bins
	@target/release/compose chat $(STRATEGY) $(if $(NODES),--nodes $(NODES)) --listen-base-port $(PORT)

bench: ## what a delivery, a publish and a connection cost beside a floor that only copies: three quarters of an hour, on a machine left alone
	@$(NEED) rust cc java maven
	@$(NEED) valgrind || echo "!!! NO VALGRIND: instructions are counted only where the processor does it" >&2
	$(CARGO) build --release --workspace --bins
	$(CARGO) build --release -p manifold-strategies --example raw_clients
	target/release/loadgen bench $(if $(ONLY),--only $(ONLY)) || [ $$? -eq 2 ]

counts: ## instructions per delivery against results/bench/counts.json: over 10 % more fails (RECORD=1 writes it)
	@$(NEED) rust cc valgrind
	$(CARGO) build --profile counts -p manifold-server --no-default-features --bins
	@# The clients may be slow: they only have to be the same. After the tests this builds nothing.
	$(CARGO) build --workspace --bins
	target/debug/loadgen bench --counts --server target/counts/chat-server $(if $(RECORD),--record)

microbench: ## the microbenchmarks: what runs per message, in isolation
	@$(NEED) rust cc
	$(CARGO) bench --workspace

lint: e2e/node_modules/.package-lock.json ## format, clippy and docs with warnings as errors; scripts, page and container files
	@$(NEED) rust cc
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps
	for script in .ci/need .ci/run fuzz/run; do bash -n $$script || exit 1; done
	for script in server/web/app.js e2e/lib/*.js e2e/test/*.js; do node --check $$script || exit 1; done
	cd server/web/vendor && $(if $(shell command -v sha256sum),sha256sum,shasum -a 256) -c centrifuge.js.sha256
	cd e2e && node lib/containers.js

fuzz: ## each fuzz target for FUZZ_SECONDS=60
	@$(NEED) rust cc
	for target in client_frames replies websocket_reader; do fuzz/run $$target $(FUZZ_SECONDS) || exit 1; done

doctor: ## what is installed and what is missing
	@$(NEED) --check rust cc java maven node python chromium
	@$(NEED) --check valgrind || true

deps: ## install all that any target needs
	@$(NEED) rust cc java maven node python chromium
	@$(NEED) valgrind || echo "!!! NO VALGRIND: instructions cannot be counted here" >&2

clean: ## remove all that was built
	$(CARGO) clean
	rm -rf e2e/node_modules e2e/.venv fuzz/target
