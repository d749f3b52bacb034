# Every target says what it does: `make help`.

CARGO ?= cargo
CONFIG ?= config/proxy.toml
# Options for the program, as: make run ARGS="--port 11433"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run build test lint format unit drivers fuzz bench check-config docs deps audit image clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Start the demo: three stand-in SQL Servers and the proxy (ARGS="--port 11433" and the like)
	$(CARGO) run --locked --bin tdsbouncer -- demo $(ARGS)

build: ## Build the program, optimized: target/release/tdsbouncer
	$(CARGO) build --locked --release --bin tdsbouncer

test: ## Run everything that must hold; installs what it needs
	tests/run

lint: ## Check format, lints, documentation and licences
	tests/run format clippy docs licences

format: ## Format all Rust code
	$(CARGO) fmt --all

unit: ## Run the Rust tests
	tests/run unit

drivers: ## Run real SQL clients, direct and through the proxy
	tests/run drivers

fuzz: ## Feed every decoder a million inputs
	fuzz/run

bench: ## Measure what the proxy adds, and how fast responses are scanned
	$(CARGO) bench --locked -p tdsbouncer-actors --bench front_door
	$(CARGO) bench --locked -p tds --bench scan

check-config: ## Check a configuration file (CONFIG=config/proxy.toml)
	$(CARGO) run --locked --quiet --bin tdsbouncer -- check-config $(CONFIG)

docs: ## Build the documentation of all crates: target/doc/tdsbouncer/index.html
	$(CARGO) doc --locked --workspace --no-deps --document-private-items

deps: ## List what the program is built from
	$(CARGO) tree --locked --edges normal --depth 1 --workspace

audit: ## Check dependencies for known vulnerabilities, licences, bans and sources with cargo-deny (needs the network)
	command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	cargo-deny check

image: ## Build the container image tdsbouncer:latest
	docker build --tag tdsbouncer:latest .

clean: ## Remove what was built
	$(CARGO) clean
