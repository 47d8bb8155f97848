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

# `make demo SERVER=python`, `SERVER=node`: the same page, served by the Python or the Node package.
SERVER ?= rust
demo: demo-$(SERVER)

demo-rust: js-client
	$(CARGO) run $(LOCKED) -p etp-ws --example chat

demo-python: .venv-3.11/installed js-client
	.venv-3.11/bin/python bindings-python/examples/chat.py

demo-node: node-26 js-client
	.build/node/26/bin/node .build/node-26/bindings-node/examples/chat.mjs

test: lint test-rust test-wasm test-python test-node test-client test-dist test-peers test-autobahn

# --- Rust: unit, integration, doctests -------------------------------------------------------------------------------

test-rust:
	$(CARGO) test $(LOCKED) --workspace --all-features

# The protocol without std, as the browser client uses it.
test-wasm: wasm-target
	$(CARGO) build $(LOCKED) -p etp-ws --no-default-features --target wasm32-unknown-unknown

wasm-target:
	@rustup target list --installed | grep -qx wasm32-unknown-unknown || rustup target add wasm32-unknown-unknown

# --- Against peers: conformance, pairs of languages, Autobahn --------------------------------------------------------

test-peers: $(VENV)/ready peers chromium
	ETP_PEERS_BUILT=1 $(VENV)/bin/pytest tests/conformance --long -n 8 --dist worksteal
	ETP_PEERS_BUILT=1 $(VENV)/bin/pytest tests/pairs
	for version in $(PYTHONS); do \
	  export ETP_PEERS_BUILT=1 ETP_PYTHON=$$version; \
	  $(VENV)/bin/pytest tests/conformance --server python --server "python --asgi" --client python -n 8 --dist worksteal; \
	  $(VENV)/bin/pytest tests/pairs --pairs "python:go go:python python:rust rust:python python:python" -n 4 --dist worksteal; \
	done
	for version in $(NODES); do \
	  export ETP_PEERS_BUILT=1 ETP_NODE=$$version; \
	  $(VENV)/bin/pytest tests/conformance --server node --server "node --attach" --server "node --attach-tls" --client node \
	    --client node-client --client "node-client --nowasm" -n 8 --dist worksteal; \
	  $(VENV)/bin/pytest tests/pairs --pairs "node:go go:node node:rust rust:node node:node" -n 8 --dist worksteal; \
	done
	ETP_PEERS_BUILT=1 $(VENV)/bin/pytest tests/pairs --pairs "node:python python:node" -n 8 --dist worksteal
	ETP_PEERS_BUILT=1 $(VENV)/bin/pytest tests/conformance --client browser --client "browser --nowasm" -k "test_client_" -n 8 --dist worksteal

test-autobahn: $(VENV)/ready
	$(CARGO) build $(LOCKED) --release -p etp-autobahn
	$(VENV)/bin/pytest tests/autobahn

peers: openssl
	tests/peers/run --build rust
	tests/peers/run --build go
	for version in $(PYTHONS); do ETP_PYTHON=$$version tests/peers/run --build python; done
	for version in $(NODES); do ETP_NODE=$$version tests/peers/run --build node; done
	tests/peers/run --build node-client

# It makes the certificates of the tests of TLS.
openssl:
	@command -v openssl >/dev/null || (apt-get update -qq && apt-get install -y -qq openssl)

# --- Python: one wheel for all versions, a virtual environment for each ----------------------------------------------

# The ends of the range that is tested; the wheel is installed in those between as well (`test-dist`).
PYTHONS := 3.11 3.13

test-python: $(foreach version,$(PYTHONS),.venv-$(version)/installed) openssl
	for version in $(PYTHONS); do .venv-$$version/bin/pytest bindings-python/tests -n 4 --dist worksteal; done

# The wheel, built when a source of it is newer. What is tested is what `make dist` publishes: on Linux zig links it for the glibc of 2012.
WHEEL := .build/wheels/stamp
WHEEL_SOURCES := Cargo.toml Cargo.lock bindings-python/Cargo.toml bindings-python/pyproject.toml bindings-python/README.md LICENSE \
	$(shell find core/src bindings-python/src bindings-python/python -type f -not -name '*.pyc' 2>/dev/null)
# What is built says nothing of the machine that built it.
REMAPPED := --remap-path-prefix=$(CURDIR)=etp-ws --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=cargo
MATURIN := cd bindings-python && PATH="$(CURDIR)/$(VENV)/bin:$$PATH" RUSTFLAGS="$(REMAPPED)" maturin
ZIG := $(if $(filter Linux,$(shell uname -s)),--zig --compatibility manylinux2014)

$(WHEEL): $(WHEEL_SOURCES) | $(VENV)/ready
	rm -rf .build/wheels && mkdir -p .build/wheels
	$(MATURIN) build --release $(LOCKED) $(ZIG) --interpreter ../$(VENV)/bin/python --out ../.build/wheels
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

# --- Node: a binary for all versions, a project for each --------------------------------------------------------------

# The oldest that is supported, and a current one.
NODES := 20 26
BINARY := .build/node-binary$(addprefix -,$(PLATFORM))
NODE_TARBALLS := .build/npm/stamp

test-node: $(foreach version,$(NODES),node-$(version)) openssl
	for version in $(NODES); do \
	  (cd .build/node-$$version/bindings-node/tests && ETP_ROOT=$(CURDIR) \
	    ../../../node/$$version/bin/node --test --test-reporter=spec --test-timeout=600000 --test-concurrency=4 *.test.mjs); \
	done

# The binary beside package.json, for this machine, and the tarballs that `make dist` publishes.
node: $(NODE_TARBALLS)

# In a folder of its own under `target`: maturin brings its own way to zig, and in one folder each would have cargo build all crates anew.
$(BINARY): Cargo.toml Cargo.lock bindings-node/npm/build.mjs bindings-node/npm/platforms.json bindings-node/Cargo.toml bindings-node/build.rs \
		$(shell find core/src bindings-node/src -type f) | $(VENV)/ready
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" RUSTFLAGS="$(REMAPPED)" CARGO_TARGET_DIR=target/node node bindings-node/npm/build.mjs $(PLATFORM)
	touch $@

$(NODE_TARBALLS): $(BINARY) LICENSE bindings-node/npm/pack.mjs bindings-node/README.md bindings-node/package.json \
		$(shell find bindings-node -maxdepth 1 -type f -name '*.*js' -o -maxdepth 1 -name '*.*ts') $(shell find bindings-node/lib -type f)
	rm -rf .build/npm
	node bindings-node/npm/pack.mjs .build/npm
	touch $@

# `make node-26`: a folder with the packages installed from the tarballs, what its tests need, and a copy of all that imports them.
node-%: .build/node-%/installed
	@:

.PRECIOUS: .build/node-%/ready .build/node-%/unpacked .build/node-%/installed
.build/node-%/installed: .build/node-%/unpacked tests/node/project $(shell find bindings-node/tests bindings-node/examples tests/peers/node tests/vectors -type f)
	tests/node/project .build/node-$*
	touch $@

.build/node-%/unpacked: .build/node-%/ready $(NODE_TARBALLS)
	tests/node/unpack .build/node-$*/node_modules .build/npm/*.tgz
	touch $@

.build/node-%/ready: bindings-node/tests/package-lock.json .build/node/ready
	mkdir -p .build/node-$*
	cp bindings-node/tests/package.json bindings-node/tests/package-lock.json .build/node-$*
	npm ci --prefix .build/node-$* --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

.build/node/ready: tests/node/versions tests/node/package-lock.json
	tests/node/versions .build/node $(NODES)
	touch $@

# --- Browser: one package for all, built with Node ---------------------------------------------------------------------

# The package as a folder, and its tarball.
JS_CLIENT := .build/js-client/stamp

js-client: $(JS_CLIENT)

$(JS_CLIENT): Cargo.toml Cargo.lock LICENSE bindings-wasm/Cargo.toml js-client/node_modules/.stamp js-client/README.md js-client/build.mjs \
		$(shell find core/src/protocol bindings-wasm/src js-client/src js-client/types -type f) | wasm-target
	node js-client/build.mjs .build/js-client/package
	rm -f .build/js-client/*.tgz
	npm pack .build/js-client/package --pack-destination .build/js-client --silent
	touch $@

js-client/node_modules/.stamp: js-client/package.json js-client/package-lock.json
	npm ci --prefix js-client --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

# Debian's, where there is none: no browser comes from npm.
chromium:
	@command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq chromium)

# The client's promises in Node and in Chromium, the package in projects, the demo in two windows, the guides.
test-client: js-client chromium peers .build/browser/ready .build/client-project/ready .build/guides/ready .venv-3.11/installed
	$(CARGO) build $(LOCKED) -p etp-ws --example chat
	for version in $(NODES); do .build/node/$$version/bin/node --test --test-reporter=spec --test-timeout=60000 tests/browser/node.test.mjs; done
	.build/node/26/bin/node --test --test-reporter=spec --test-timeout=180000 tests/browser/wire.test.mjs
	.build/node/26/bin/node --expose-gc --test --test-reporter=spec tests/browser/leaks.test.mjs
	node --test --test-reporter=spec tests/browser/lives.test.mjs
	node --test --test-reporter=spec --test-timeout=180000 --test-concurrency=1 tests/browser/chromium.test.mjs tests/browser/packaging.test.mjs
	ETP_DEMO="rust python node" node --test --test-reporter=spec --test-timeout=180000 tests/browser/demo/demo.test.mjs
	node --test --test-reporter=spec --test-timeout=180000 tests/js-client/guides/guides.test.mjs

.build/client-project/ready: $(JS_CLIENT) tests/browser/project.sh $(shell find tests/browser/project -type f)
	tests/browser/project.sh $(CURDIR)/.build/client-project .build/js-client/etp-ws-client-*.tgz
	touch $@

.build/guides/ready: tests/js-client/guides/package.json tests/js-client/guides/package-lock.json
	mkdir -p .build/guides
	cp $^ .build/guides
	npm ci --prefix .build/guides --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

# What drives it.
.build/browser/ready: tests/browser/package.json tests/browser/package-lock.json
	mkdir -p .build/browser
	cp tests/browser/package.json tests/browser/package-lock.json .build/browser
	npm ci --prefix .build/browser --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

# --- What is published ------------------------------------------------------------------------------------------------

# In dist/: the wheel, a source distribution, and npm's tarballs.
dist: dist/stamp
	@$(VENV)/bin/python tests/packaging/distribution.py dist

# Inside, and installed in bare environments.
test-dist: dist/stamp .build/node/ready
	$(VENV)/bin/pytest tests/packaging

dist/stamp: $(WHEEL) $(NODE_TARBALLS) $(JS_CLIENT) $(shell find core bindings-python -type f -not -name '*.pyc' -not -path '*/.*')
	rm -rf dist && mkdir -p dist
	cp .build/wheels/*.whl .build/npm/*.tgz .build/js-client/*.tgz dist
	$(MATURIN) sdist --out ../dist
	touch $@

# --- Lint -------------------------------------------------------------------------------------------------------------

lint: lint-python lint-node lint-client
	$(CARGO) clippy $(LOCKED) -p etp-ws-wasm --target wasm32-unknown-unknown -- -D warnings
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(LOCKED) --workspace --all-targets --all-features -- -D warnings
	$(CARGO) clippy $(LOCKED) -p etp-ws --no-default-features -- -D warnings
	$(CARGO) clippy $(LOCKED) -p etp-ws --no-default-features --features net -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(LOCKED) -p etp-ws --all-features --no-deps
	test -z "$$(gofmt -l tests/peers/go)" && go -C tests/peers/go vet ./...

# Each checker reads the package as each end of the range of Python versions sees it. The stub is held against the wheel, and so is every
# annotation; what it is known to be wrong about has its reason in `stubtest.allow`.
lint-python: .build/lint-python
	@:

PYTHON_FOLDERS := bindings-python tests
TYPED_FOLDERS := python examples ../tests/peers/python

.build/lint-python: $(VENV)/ready .venv-3.11/installed .venv-3.13/installed ruff.toml bindings-python/pyproject.toml bindings-python/stubtest.allow \
		$(shell find bindings-python tests -name '*.py' -o -name '*.pyi')
	$(VENV)/bin/ruff check $(PYTHON_FOLDERS)
	$(VENV)/bin/ruff format --check $(PYTHON_FOLDERS)
	cd bindings-python && for version in 3.11 3.13; do \
	  ../$(VENV)/bin/mypy --cache-dir ../.build/mypy --python-executable ../.venv-$$version/bin/python $(TYPED_FOLDERS); \
	  ../$(VENV)/bin/pyright --warnings --pythonpath ../.venv-$$version/bin/python $(TYPED_FOLDERS); \
	done
	rm -rf .build/package
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-index --no-deps --target .build/package .build/wheels/*.whl
	cd bindings-python && PYTHONPATH=../.build/package ../$(VENV)/bin/stubtest etp_ws --concise --allowlist stubtest.allow --mypy-config-file pyproject.toml
	touch $@

# Formatted and linted; the types as TypeScript sees them in each kind of project; the tarball as tools of the registry see it.
lint-node: .build/lint-node
	@:

JAVASCRIPT_FOLDERS := bindings-node js-client tests/node tests/packaging tests/peers tests/bench tests/browser tests/js-client
BIOME := .build/node/node_modules/.bin/biome

.build/lint-node: .build/node-26/installed biome.jsonc $(shell find $(JAVASCRIPT_FOLDERS) -name '*.*js' -o -name '*.*ts' -o -name '*.json')
	$(BIOME) ci --colors=off --error-on-warnings $(JAVASCRIPT_FOLDERS)
	tests/node/types .build/node-26
	tests/node/published .build/npm/etp-ws-[0-9]*.tgz
	touch $@

# The sources against the types, which are written by hand; these as each kind of project sees them; the package as the registry's tools see it.
lint-client: .build/lint-client wasm-target
	@:

.build/lint-client: $(JS_CLIENT) .build/node/ready js-client/tsconfig.json $(shell find tests/js-client/types -type f)
	js-client/node_modules/.bin/tsc --project js-client
	tests/js-client/types/check .build/client-types .build/js-client/etp-ws-client-*.tgz
	.build/node/26/bin/node --test --test-reporter=spec tests/js-client/types/names.test.mjs
	# The module has no types: it is a file to be served.
	tests/node/published .build/js-client/etp-ws-client-*.tgz --exclude-entrypoints ./etp-ws-client.wasm
	touch $@

fmt: $(VENV)/ready .build/node/ready
	$(CARGO) fmt --all
	gofmt -w tests/peers/go
	$(VENV)/bin/ruff check --fix $(PYTHON_FOLDERS)
	$(VENV)/bin/ruff format $(PYTHON_FOLDERS)
	$(BIOME) check --write $(JAVASCRIPT_FOLDERS)

# --- Speed ------------------------------------------------------------------------------------------------------------

# Server on one core, generator on the other: Rust against the Go reference, Python and Node against what their users would take otherwise,
# each set in one run. An hour; `make bench-python BENCH="--only acked --rounds 3"` for a part.
bench: bench-rust bench-python bench-node bench-node-attach bench-browser

bench-browser: js-client chromium peers .build/browser/ready
	node tests/bench/browser/bench.mjs $(BENCH)

bench-rust bench-python bench-node bench-node-attach: bench-%: peers
	$(CARGO) run $(LOCKED) --release -p etp-bench -- --set $* $(BENCH)

clean:
	$(CARGO) clean
	rm -rf $(VENV) .venv-* .build dist bindings-node/*.node js-client/node_modules

.PHONY: help demo demo-rust demo-python demo-node test test-rust test-wasm wasm-target test-python test-node node js-client chromium bench-rust bench-python bench-node bench-node-attach bench-browser test-client lint-client test-peers test-autobahn peers openssl dist test-dist lint lint-python lint-node fmt bench clean
