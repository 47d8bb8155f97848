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
