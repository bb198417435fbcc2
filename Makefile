# The one entry point: people and CI run the same targets. `make` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VENV := $(CURDIR)/target/tools/venv
export CARBONWAY_TOOLS := $(VENV)
export PATH := $(PATH):/usr/sbin:/sbin

# $(call need,COMMAND,PACKAGE) installs Debian's PACKAGE unless COMMAND works, or says what to install.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo -n)
need = $(1) >/dev/null 2>&1 || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -qy --no-install-recommends $(2); } \
	|| { echo "please install $(2) (Debian's name for it), then run this again" >&2; exit 1; }

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 20

.PHONY: run
run: ## Build the relay and run the quickstart, without a cluster
	@cargo build --release --package carbonway
	@exec target/release/carbonway run deploy/quickstart

.PHONY: test
test: tools ## Run every test; installs what they need
	cargo build --workspace --bins
	cargo test --workspace

.PHONY: soak
soak: ## Try delivery under faults, for some minutes; prints what it measured
	cargo build --release --workspace --bins
	cargo test --release --package tests --test soak -- --nocapture --test-threads 1

.PHONY: tools
tools: $(VENV)/.made $(VENV)/bin/prometheus rabbitmq ## Install what the tests run beside us (into target/tools)

# GRAPHITE_NO_PREFIX keeps carbon in the environment; it goes to /opt/graphite otherwise.
$(VENV)/.made: tests/requirements.txt
	@$(call need,python3 -c "import venv$(comma) ensurepip",python3-venv)
	python3 -m venv $(VENV)
	GRAPHITE_NO_PREFIX=True $(VENV)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@
comma := ,

.PHONY: rabbitmq
rabbitmq:
	@$(call need,test -x /usr/lib/rabbitmq/bin/rabbitmq-server,rabbitmq-server)

# Unpacked and not installed: the package would start a Prometheus.
$(VENV)/bin/prometheus: | $(VENV)/.made
	@cd $$(mktemp -d) && { apt-get download --quiet prometheus || { $(SUDO) apt-get update -q && apt-get download prometheus; }; } \
		&& dpkg-deb --extract prometheus_*.deb . && mv usr/bin/promtool usr/bin/prometheus $(VENV)/bin \
		|| echo "no prometheus and promtool: tests that need them say SKIPPED"

.PHONY: lint
lint: ## Check formatting, lints, packages alone, dependencies, shell scripts
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
	@for package in $$(cargo tree --workspace --depth 0 --prefix none | awk 'NF { print $$1 }'); do \
		echo "cargo check --package $$package"; cargo check --quiet --locked --package $$package; \
	done
	@if cargo deny --version >/dev/null 2>&1; then \
		cargo deny check bans licenses sources; \
		cargo deny check advisories || echo "advisories are reported; they do not fail this"; \
	else echo "SKIPPED: cargo deny (to run it: cargo install --locked cargo-deny)"; fi
	@git grep -lE '^#!.*\b(ba)?sh$$' | xargs -n1 bash -n

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: fresh
fresh: ## Prove that generated files are what their sources give
	cargo test --package crds --package relay-proto --test fresh

.PHONY: crds
crds: ## Make the CRD manifests from the Rust types
	CARBONWAY_WRITE=1 cargo test --quiet --package crds --test fresh

.PHONY: proto
proto: ## Make the protobuf bindings from snapshot.proto
	CARBONWAY_WRITE=1 cargo test --quiet --package relay-proto --test fresh

.PHONY: chart
chart: crds ## Bring the Helm chart's copy of the CRDs up to date
	cp crds/yaml/*.yaml charts/carbonway/files/crds/

.PHONY: kustomize
kustomize: tools ## Make the kustomize base from the Helm chart
	CARBONWAY_WRITE=1 cargo test --quiet --package tests --test cluster the_kustomize_base_is_what

.PHONY: image
image: ## Build the container images into target/image, without a Docker engine
	@$(call need,command -v buildah,buildah)
	@$(call need,test -e /etc/ssl/certs/ca-certificates.crt,ca-certificates)
	cargo build --release --package operator --package relay
	deploy/image/build

.PHONY: bench
bench: tools ## Measure beside HAProxy, carbon-c-relay and carbon-relay.py; ARGS="--cases A,pickle-in --rounds N --only RELAY"
	cargo build --release --package carbonway --package bench
	target/release/bench $(ARGS)

.PHONY: bench-operator
bench-operator: ## Measure the operator with 10,000 Routes and up to 1,000 relays
	cargo build --release --package operator
	cargo bench --package tests --bench operator

RUNNER := target/tools/bin/gungraun-runner

.PHONY: bench-instructions
bench-instructions: ## Count the engine's instructions per line; ARGS="--save-baseline=NAME" or "--baseline=NAME"
	@$(call need,valgrind --version,valgrind)
	@version=$$(cargo pkgid gungraun | sed 's/.*@//'); \
	[[ "$$($(RUNNER) --version 2>/dev/null)" == *" $$version" ]] \
		|| cargo install --locked --root target/tools gungraun-runner@$$version
	@GUNGRAUN_RUNNER=$(CURDIR)/$(RUNNER) cargo bench --package relay-engine --bench instructions -- $(ARGS) | awk ' \
		/^instructions::/ { split($$1, path, "::"); sub(":.*", "", $$2); bench = path[3] " " $$2 } \
		/^ *Instructions:/ { split($$2, counts, "|"); change = match($$0, /\(.*%\)/) ? substr($$0, RSTART, RLENGTH) : ""; \
			printf "%-40s %8.1f  %s\n", bench, counts[1] / 8000, change } \
		/^Gungraun/'

.PHONY: clean
clean: ## Remove everything that was built
	rm -rf target
