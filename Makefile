# Holdfast's commands. Each says what it does, and installs what it needs, given Rust and Go.
#
#   CLUSTER=local (default)  a control plane on this machine, without Docker (e2e/cluster)
#   CLUSTER=kind             a kind cluster, where Docker runs
#   CLUSTER=current          the current kubeconfig context; asks first

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export CLUSTER ?= local

.PHONY: help demo test unit transitions soak e2e bench check crds build cluster-up cluster-down

help: ## Print the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: ## Watch an operation survive the death of its operator, on a real control plane
	@e2e/demo

test: unit e2e ## Run all tests: unit, simulation and end to end

unit: ## Run the unit and simulation tests, which need no cluster
	cargo test --workspace --exclude holdfast-e2e

transitions: ## Print each transition of each state machine, and how often the tests took it
	cargo test --lib --test simulation transitions -- --nocapture

soak: ## Run ten thousand workflows, drawn with their people and faults from seeds, through the simulation
	HOLDFAST_SEEDS=10000 cargo test --profile soak --test simulation generated:: -- --nocapture

e2e: ## Run the end-to-end tests on a real control plane
	@e2e/test

bench: ## Measure against what the API server itself can write; the table is in docs/performance.md
	@e2e/bench

check: ## Check formatting, lints, the local cluster's own code, licences of dependencies, and that generated files are current
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cd e2e/cluster && go vet ./local ./nodeinit && go test ./local ./nodeinit
	@.ci/deny
	@.ci/drift

crds: ## Generate what is generated from src/api: crds/, docs/reference.md, the chart's copies
	@.ci/generate

build: ## Build the operator for release
	cargo build --release

cluster-up: ## Start the cluster that the demo and tests use; prints its kubeconfig
	@e2e/cluster.sh up

cluster-down: ## Stop it and remove its state
	@e2e/cluster.sh down
