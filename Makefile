# Every developer command. `make help` lists them; CI calls the same ones.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3 || command -v python)
VENV ?= .venv
BIN := $(VENV)/bin
FLIGHTS ?= 336776
FUZZ_SECONDS ?= 60
PYTEST_ARGS ?=
WORKERS ?= 2
RUST := $(shell find rust/src -name '*.rs' 2>/dev/null) Cargo.toml Cargo.lock pyproject.toml

.PHONY: help setup build services test soak rust-test safety-debug safety-on safety-suite \
	safety-asan fuzz demo bench bench-own bench-instructions lint format docs clean

help: ## List the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(VENV)/.tools: requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(VENV)/.installed: $(VENV)/.tools $(RUST)
	VIRTUAL_ENV="$(abspath $(VENV))" PATH="$(abspath $(BIN)):$$PATH" $(BIN)/maturin develop --release --quiet
	touch $@

setup: $(VENV)/.installed ## Create .venv with the tools and the package, Rust core compiled

build: $(VENV)/.tools ## Build the wheel into dist/
	rm -rf dist
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/maturin build --release --quiet --out dist -i $(BIN)/python

rust-test: $(VENV)/.tools ## Run the unit tests of the Rust core
	source tools/rust-env.sh "$(abspath $(BIN))/python" && cargo test --quiet --lib

services: $(VENV)/.tools ## Install the real servers that the tests start (on Linux; elsewhere those tests are skipped)
	test "$$(uname -s)" != Linux || $(BIN)/python tools/services.py install

test: setup rust-test build services ## Run all tests (the long versions are `make soak`); WORKERS=0 in one process
	$(BIN)/python -m pytest -m "not soak" -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

soak: setup services ## Run the long crash, fuzz and soak tests
	$(BIN)/python -m pytest -m soak --timeout 7200 $(PYTEST_ARGS)

safety-debug: setup ## Run the core's tests under a debug CPython (needs python3-dbg)
	$(BIN)/python -m tools.safety debug

safety-on: setup ## Run the core's tests under another CPython: make safety-on ON=python3.14
	$(BIN)/python -m tools.safety on $(ON)

safety-suite: setup services ## Run all tests under another CPython: make safety-suite ON=python3.11-dbg
	$(BIN)/python -m tools.safety suite $(ON)

safety-asan: setup ## Run the core's tests with the core under AddressSanitizer (needs gcc)
	$(BIN)/python -m tools.safety asan

fuzz: setup ## Fuzz the core with coverage, in Rust and through Python (FUZZ_SECONDS=60 for each target)
	$(BIN)/python -m tools.safety fuzz $(FUZZ_SECONDS)
	$(BIN)/python -m tools.safety fuzz-python $(FUZZ_SECONDS)

demo: setup ## Run the flights demo on real data (FLIGHTS=20000 for a short one)
	$(BIN)/python -m examples.flights --flights $(FLIGHTS)

bench: setup ## Measure against other libraries and write docs/performance.md
	$(BIN)/python -m benches

bench-own: setup ## Time our own operations with pytest-benchmark; one 40 % slower than in the last run of this fails
	$(BIN)/python -m pytest benches --benchmark-only --benchmark-autosave --benchmark-storage=file://.cache/benchmarks \
		--benchmark-columns=min,median,rounds --benchmark-sort=fullname \
		$(if $(wildcard .cache/benchmarks/*/*.json),--benchmark-compare --benchmark-compare-fail=min:40%)

bench-instructions: setup ## Count the core's instructions under callgrind and compare with the baseline (needs valgrind)
	$(BIN)/python -m benches.instructions

lint: setup ## Format check, ruff, mypy, stubtest, clippy (pyright runs in tests/typing)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/stubtest lexigram.events._core --concise --mypy-config-file pyproject.toml --allowlist tools/stubtest-allowlist.txt
	cargo fmt --check
	cargo fmt --check --manifest-path rust/fuzz/Cargo.toml
	source tools/rust-env.sh "$(abspath $(BIN))/python" && cargo clippy --quiet --all-targets -- -D warnings

format: $(VENV)/.tools ## Format Python and Rust
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	cargo fmt
	cargo fmt --manifest-path rust/fuzz/Cargo.toml

docs: setup ## Regenerate the generated pages (docs/errors.md)
	$(BIN)/python tools/generate_docs.py

clean: ## Remove what the commands made
	rm -rf $(VENV) target dist .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
