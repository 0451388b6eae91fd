# Everything a clone needs but cargo, Python 3.11+ and make is installed into .venv (or .venv-peers) by the targets themselves.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
PEERS := .venv-peers/bin
SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find src python -name '*.rs' -o -name '*.py' -o -name '*.pyi')

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/tools: pyproject.toml
	$(PYTHON) -m venv --upgrade-deps .venv
	$(BIN)/pip install --quiet --group dev
	@touch $@

# With WHEEL, a file, everything is tested and measured with that one, as its users will have it, and nothing is compiled
# for it: so CI compiles the package once.
ifdef WHEEL
.venv/built: .venv/tools $(WHEEL)
	$(BIN)/pip install --quiet --no-deps --force-reinstall $(WHEEL)
	$(BIN)/pip install --quiet 'softxent[demo]'
	@touch $@
else
.venv/built: .venv/tools $(SOURCES)
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/maturin develop --release --quiet --extras demo
	@touch $@
endif

.PHONY: run
run: .venv/built ## Train a small language model on the standard library's sources: the main job, on screen
	$(BIN)/softxent demo

.PHONY: compile
compile: ## Compile the crate's tests
	cargo test --quiet --locked --no-run

.PHONY: test
test: .venv/built ## Run all tests (Rust and Python)
	cargo test --quiet --locked
	$(BIN)/python -m pytest -q -n auto --dist loadfile

.PHONY: lint
lint: .venv/built ## Check format, lints, types and the stub
	cargo fmt --check
	cargo clippy --quiet --locked --all-targets -- -D warnings
	cargo clippy --quiet --locked --lib --features python -- -D warnings
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest softxent._core

.venv/docs: .venv/built
	$(BIN)/pip install --quiet --group docs
	@touch $@

.PHONY: docs
docs: .venv/docs ## Build the documentation into target/docs; a warning is an error
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs target/docs

.PHONY: dist
dist: .venv/tools ## Build sdist and wheel in a clean environment, and use the wheel as its users will
	$(BIN)/python tests/distribution.py

.PHONY: dist-record
dist-record: .venv/tools ## The same, and record wheel size and import time in docs/installation_cost.md
	$(BIN)/python tests/distribution.py --record

.PHONY: check
check: lint test ## Lint, then all tests

.venv-peers/tools: benches/requirements.txt pyproject.toml
	$(PYTHON) -m venv --upgrade-deps .venv-peers
	$(PEERS)/pip install --quiet --group test -r benches/requirements.txt
	@touch $@

# The wheel of what .venv has built: to cargo another environment is another Python, for which all is compiled again.
.venv-peers/built: .venv-peers/tools .venv/built
ifndef WHEEL
	rm -rf target/wheels
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/maturin build --release --quiet --out target/wheels
endif
	$(PEERS)/pip install --quiet --no-deps --force-reinstall $(or $(WHEEL),target/wheels/*.whl)
	@touch $@

.PHONY: test-peers
test-peers: .venv-peers/built ## Compare values and gradients with torch and JAX (installs 5 GB into .venv-peers)
	$(PEERS)/python -m pytest -q tests/peers

.PHONY: bench
bench: .venv-peers/built ## Measure against targets, limits and peers: a record, and the README's table (17 GB, a quiet machine)
	$(PEERS)/python -m benches.ratios --record
	$(PEERS)/python -m benches.readme
	$(PEERS)/python -m benches.growth --record
	$(PEERS)/python -m benches.linear --peers numpy torch "torch chunked" --record
	$(PEERS)/python -m pytest -q benches/bench_functions.py --benchmark-group-by=group

.PHONY: test-aarch64
test-aarch64: ## Run the crate's tests under an emulated aarch64 (needs root on Debian)
	tests/aarch64.sh

.PHONY: clean
clean: ## Remove everything that was built
	rm -rf target .venv .venv-peers
