# Everything here works on a fresh Debian or Ubuntu machine: missing system packages are installed first.
#
#   make run    a local three-node cluster, ready for redis-cli
#   make test   everything CI runs
#
# The target directory may be kept outside the checkout: set CARGO_TARGET_DIR.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
GYRE := $(TARGET)/dist/gyre
PURE := -p gyre-protocol -p gyre-storage -p gyre-cluster -p gyre-simulation
# A simulation draws the number of nodes from its seed unless it is given one.
SIMULATED_NODES := $(NODES)
NODES ?= 3
PORT ?= 6379
SEEDS ?= 1000

# RocksDB is compiled in a package graph of its own (see scripts/rocksdb/Cargo.toml); everything else links it.
WITH_ROCKSDB = ROCKSDB_LIB_DIR="$$(scripts/rocksdb.sh)"; export ROCKSDB_LIB_DIR ROCKSDB_STATIC=1;

.PHONY: help deps build run test check lint unit simulate blackbox faults compat bench clean

help: ## what there is to make
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

deps: ## install missing system packages
	@scripts/install-deps.sh

build: deps ## build the server (RocksDB takes about 15 minutes the first time)
	$(WITH_ROCKSDB) cargo build --profile dist

run: build ## start a local three-node cluster (NODES=3 PORT=6379); Ctrl-C stops it
	$(GYRE) dev --nodes $(NODES) --port $(PORT)

test: check blackbox compat ## everything CI runs

check: deps lint unit ## what every commit must pass: format, lints, unit and property tests, benchmarks that run

lint:
	cargo fmt --all --check
	cargo clippy $(PURE) --all-targets -- -D warnings
	$(WITH_ROCKSDB) cargo clippy --release --workspace --all-targets -- -D warnings

unit:
	cargo test $(PURE)
	cargo test -p gyre-protocol --bench parse
	$(WITH_ROCKSDB) cargo test --release -p gyre-storage --features rocksdb
	$(WITH_ROCKSDB) cargo test --release -p gyre --lib --bins --test tidy --test commands_page

simulate: ## a whole cluster under virtual time, seed after seed (SEEDS=1000 FROM=0 NODES=5 HOURS=4; see docs/simulation.md)
	cargo run -p gyre-simulation --bin simulate -- --seeds $(SEEDS) $(if $(FROM),--from $(FROM)) \
		$(if $(SIMULATED_NODES),--nodes $(SIMULATED_NODES)) $(if $(HOURS),--hours $(HOURS))

blackbox: build ## real processes: outages, crashes, faults, hostile bytes; the tour; does the benchmark run
	$(WITH_ROCKSDB) cargo test --release -p gyre --test blackbox
	$(WITH_ROCKSDB) cargo test --release -p gyre --test faults -- --test-threads 1
	python3 compat/tour.py --binary $(GYRE)
	python3 benches/side_by_side.py --binary $(GYRE) --quick --only set,get --pipelines 16 --out $(TARGET)/bench-quick

faults: build ## every fault scenario, the long ones too, with its table (network faults need root)
	$(WITH_ROCKSDB) cargo test --release -p gyre --test faults -- --include-ignored --test-threads 1

compat: build ## existing Redis clients against a three-node cluster: a table client x case
	python3 compat/run.py --binary $(GYRE)

bench: build ## side by side with redis-server: a table, JSON and a plot
	python3 benches/side_by_side.py --binary $(GYRE)

clean:
	cargo clean
