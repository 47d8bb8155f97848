# `make demo` runs the chat, `make test` runs every test; both install what they need beyond the toolchains.
# `make bench` measures, `make lint` is part of `make test`, `make fmt` formats.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
CARGO := cargo
# Lock files are as they are committed.
LOCKED := --locked
export CARGO_TERM_COLOR ?= auto
# The extension module is linked against the interpreter that loads it, never at build time.
export PYO3_BUILD_EXTENSION_MODULE := 1
export PYO3_PYTHON := $(CURDIR)/.venv/bin/python

help:
	@sed -n 's/^# //p' Makefile | head -2

demo:
	$(CARGO) run $(LOCKED) -p etp-ws --example chat

test: lint test-rust test-wasm test-peers test-autobahn

# --- Rust: unit, integration, doctests -------------------------------------------------------------------------------

test-rust:
	$(CARGO) test $(LOCKED) --workspace --all-features

# The protocol without std, as the browser client uses it.
test-wasm: wasm-target
	$(CARGO) build $(LOCKED) -p etp-ws --no-default-features --target wasm32-unknown-unknown

wasm-target:
	@rustup target list --installed | grep -qx wasm32-unknown-unknown || rustup target add wasm32-unknown-unknown

# --- Against peers: conformance, pairs of languages, Autobahn --------------------------------------------------------

test-peers: $(VENV)/ready peers
	ETP_PEERS_BUILT=1 $(VENV)/bin/pytest tests/conformance --long -n 8 --dist worksteal
	ETP_PEERS_BUILT=1 $(VENV)/bin/pytest tests/pairs

test-autobahn: $(VENV)/ready
	$(CARGO) build $(LOCKED) --release -p etp-autobahn
	$(VENV)/bin/pytest tests/autobahn

peers:
	tests/peers/run --build rust
	tests/peers/run --build go

# --- Python: one wheel for all versions, a virtual environment for each ----------------------------------------------

# The wheel, built when a source of it is newer.
WHEEL := .build/wheels/stamp
WHEEL_SOURCES := Cargo.toml Cargo.lock bindings-python/Cargo.toml bindings-python/pyproject.toml bindings-python/README.md \
	$(shell find core/src bindings-python/src bindings-python/python -type f -not -name '*.pyc' 2>/dev/null)

$(WHEEL): $(WHEEL_SOURCES) | $(VENV)/ready
	rm -rf .build/wheels && mkdir -p .build/wheels
	cd bindings-python && ../$(VENV)/bin/maturin build --release --locked --interpreter ../$(VENV)/bin/python --out ../.build/wheels
	touch $@

# `make python-3.13`: a virtual environment of that version with the wheel and what its tests need.
python-%: .venv-%/installed
	@:

.PRECIOUS: .venv-%/ready .venv-%/installed
.venv-%/installed: .venv-%/ready $(WHEEL)
	.venv-$*/bin/pip install --quiet --disable-pip-version-check --no-deps --force-reinstall .build/wheels/*.whl
	touch $@

.venv-%/ready: bindings-python/tests/requirements.txt
	tests/python/venv $* .venv-$*
	.venv-$*/bin/pip install --quiet --disable-pip-version-check -r bindings-python/tests/requirements.txt
	touch $@

$(VENV)/ready: tests/python/requirements.txt
	$(PYTHON) -m venv $(VENV) || (apt-get update -qq && apt-get install -y -qq python3-venv && $(PYTHON) -m venv --clear $(VENV))
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r tests/python/requirements.txt
	touch $@

# --- Lint -------------------------------------------------------------------------------------------------------------

lint: $(VENV)/ready
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(LOCKED) --workspace --all-targets --all-features -- -D warnings
	$(CARGO) clippy $(LOCKED) -p etp-ws --no-default-features -- -D warnings
	$(CARGO) clippy $(LOCKED) -p etp-ws --no-default-features --features net -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(LOCKED) -p etp-ws --all-features --no-deps
	test -z "$$(gofmt -l tests/peers/go)" && go -C tests/peers/go vet ./...
	$(VENV)/bin/ruff check tests && $(VENV)/bin/ruff format --check tests

fmt: $(VENV)/ready
	$(CARGO) fmt --all
	gofmt -w tests/peers/go
	$(VENV)/bin/ruff format tests && $(VENV)/bin/ruff check --fix tests

# --- Speed ------------------------------------------------------------------------------------------------------------

# Server on one core, generator on the other, against the Go reference in the same run. Quarter of an hour.
bench: peers
	$(CARGO) run $(LOCKED) --release -p etp-bench -- $(BENCH)

clean:
	$(CARGO) clean
	rm -rf $(VENV) .build

.PHONY: help demo test test-rust test-wasm wasm-target test-peers test-autobahn peers lint fmt bench clean
