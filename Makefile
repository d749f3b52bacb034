# Every target says what it does: `make help`.

CARGO ?= cargo
CONFIG ?= config/proxy.toml
# Options for the program, as: make run ARGS="--port 11433"
ARGS ?=
# How long `make differential` and `make faults` run, and where they begin
REQUESTS ?= 1000000
RUNS ?= 50
SEED ?= 1

.DEFAULT_GOAL := help
.PHONY: help run build test lint format unit drivers deployment differential fuzz bench instructions load scenarios faults check-config docs deps audit image \
	docker-up docker-down docker-destroy docker-logs health redis-ping clean

# The plugin where it is there, else the program.
COMPOSE = $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose) -f compose/docker-compose.yml

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

deployment: ## Check Compose, HAProxy, Kubernetes, image, dashboards, alerts, and a rolling restart
	tests/run manifests observability rolling image

differential: ## Compare direct and proxied answers to random scripts (REQUESTS=1000000 SEED=7)
	REQUESTS=$(REQUESTS) SEED=$(SEED) $(CARGO) test --locked --package tdsbouncer-actors --test differential -- --nocapture

fuzz: ## Feed every decoder a million inputs
	fuzz/run

bench: ## Measure the proxy beside HAProxy (ARGS="--only login"), and how fast responses are scanned
	bench/run $(ARGS)
	$(CARGO) bench --locked -p tds --bench scan

instructions: ## Count the instructions of small pieces of work and compare them with the stored baseline
	bench/instructions/run

load: ## Let programs work against the running demo (ARGS="--programs 500 --html report.html" and the like)
	$(CARGO) run --locked --bin tdsbouncer -- loadgen run $(ARGS)

scenarios: ## Play all scenarios on servers and proxies of their own; pages in target/scenarios
	$(CARGO) build --locked --release --bin tdsbouncer
	target/release/tdsbouncer loadgen scenario all --reports target/scenarios $(ARGS)

faults: ## Measure what faults cost three proxies that share a limit through Redis, and play 50 mixes (RUNS=50 SEED=1)
	RUNS=$(RUNS) SEED=$(SEED) $(CARGO) test --locked --test coordination -- --ignored --nocapture --test-threads 1

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

docker-up: ## Start SQL Server x3, proxy x3, HAProxy, Redis, Prometheus, Grafana, Tempo; ready when it returns
	$(COMPOSE) build proxy-1
	$(COMPOSE) up --detach
	@for port in 18081 18082 18083; do \
	    until curl --silent --fail --output /dev/null http://127.0.0.1:$$port/health/ready; do sleep 1; done; done
	@echo "clients: localhost:1433   Grafana: http://localhost:3000   Prometheus: http://localhost:9090   HAProxy: http://localhost:8404"

docker-down: ## Stop them; data stays
	$(COMPOSE) down

docker-destroy: ## Stop them and forget all data
	$(COMPOSE) down --volumes --remove-orphans

docker-logs: ## Follow their logs (ARGS="proxy-1 haproxy": only these)
	$(COMPOSE) logs --follow --tail 100 $(ARGS)

health: ## Ask each proxy of Compose how it and its servers are
	@for port in 18081 18082 18083; do echo "localhost:$$port"; \
	    curl --silent --show-error --max-time 5 http://127.0.0.1:$$port/health || exit 1; echo; done

redis-ping: ## Ask Compose's Redis whether it is there
	$(COMPOSE) exec -T redis redis-cli ping

clean: ## Remove what was built
	$(CARGO) clean
