# `make help` lists the targets. Everything lands in .venv and in the user's cache; nothing is installed elsewhere.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/barograph
export CARGO_TARGET_DIR ?= $(CACHE)/target
RUST_SOURCES := $(shell find rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock pyproject.toml
# Cargo tells sources apart by age alone, so one cache for two checkouts would hand one the other's build: on a change
# of checkout ours are made new.
OWNER := $(shell owner=$(CARGO_TARGET_DIR)/checkout; [ "$$(cat $$owner 2>/dev/null)" = "$(CURDIR)" ] || \
  { find rust -name '*.rs' -exec touch {} +; mkdir -p $(CARGO_TARGET_DIR) && echo "$(CURDIR)" > $$owner; })
WHEEL := $(CACHE)/wheel/bin
ACTIONLINT := $(CACHE)/tools/bin/actionlint
DENY := $(CACHE)/tools/bin/cargo-deny
# The page is built where there is Node; without it the sidecar says how to build it.
PAGE := $(if $(shell command -v npm 2>/dev/null),web/dist/index.html)
PAGE_SOURCES := $(shell find web/src -type f) web/build.mjs web/tsconfig.json

.PHONY: help check-tools develop develop-lint demo test test-rust test-python lint typing deny docs test-openapi soak test-adapters test-brokers bench bench-brokers bench-peers bench-once fuzz clean page test-browser wheel test-wheel actionlint test-engines

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

check-tools: ## what has to be on the machine
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "barograph needs Python 3.11 or newer: install it or say PYTHON=/path/to/python3"; exit 2; }
	@command -v cargo >/dev/null || { echo "barograph needs Rust: install it from https://rustup.rs and open a new shell"; exit 2; }

$(VENV)/uv.stamp:
	@$(MAKE) --no-print-directory check-tools
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check uv==0.13.9
	@touch $@

$(VENV)/test.stamp: $(VENV)/uv.stamp requirements/test.txt
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q -r requirements/test.txt
	@touch $@

$(VENV)/lint.stamp: $(VENV)/test.stamp requirements/lint.txt
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q -r requirements/lint.txt
	@touch $@

web/node_modules/.package-lock.json: web/package-lock.json
	cd web && npm ci --ignore-scripts --no-audit --no-fund --silent
	@touch $@

web/dist/index.html: web/node_modules/.package-lock.json $(PAGE_SOURCES)
	cd web && npm run --silent check && npm run --silent build

page: ## build the page that the sidecar serves, into web/dist
	@node -e 'process.exit(Number(process.versions.node.split(".")[0]) < 20 ? 1 : 0)' 2>/dev/null && command -v npm >/dev/null || \
	  { echo "the page needs Node 20 or newer, and npm: install them from https://nodejs.org and open a new shell"; exit 2; }
	@$(MAKE) --no-print-directory web/dist/index.html

$(VENV)/built.stamp: $(VENV)/test.stamp $(RUST_SOURCES) $(PAGE)
	@$(MAKE) --no-print-directory check-tools
	@[ -n "$(PAGE)" ] || echo "no Node here: the sidecar is built without its page"
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --locked -q >/dev/null
	@touch $@

develop: $(VENV)/built.stamp ## set up .venv and build the extension
develop-lint: develop $(VENV)/lint.stamp ## develop, and the tools of lint

demo: develop ## replay a year of flights through a monitored model
	$(BIN)/barograph demo

test: test-rust test-python ## set up everything and pass the tests

# The border has no tests of its own: named here, its dependencies are built with the same features as for it, and so once.
test-rust: check-tools ## the Rust tests
	cargo test --release --locked -q -p barograph-core -p barograph-engine -p barograph-server -p barograph-python

# Most of them wait for processes: four at a time, a file in one of them, the long ones of `e2e` first.
test-python: develop ## the Python tests
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

lint: develop-lint ## format, clippy, ruff
	cargo fmt --all --check
	cd rust/fuzz && cargo metadata --locked --format-version 1 >/dev/null
	cargo clippy --release --locked --workspace --all-targets -q -- -D warnings -A clippy::unwrap_used -A clippy::expect_used -A clippy::panic
	cargo clippy --release --locked --workspace -q -- -D warnings
	$(BIN)/ruff format --check
	$(BIN)/ruff check

typing: develop-lint ## mypy and stubtest
	$(BIN)/mypy
	$(BIN)/stubtest barograph._barograph --mypy-config-file pyproject.toml

$(DENY):
	CARGO_TARGET_DIR=$(CACHE)/tools-target cargo install -q cargo-deny@0.20.2 --locked --root $(CACHE)/tools

deny: check-tools $(DENY) ## licences, sources and duplicates of the Rust dependencies
	$(DENY) --log-level error check bans licenses sources

$(ACTIONLINT):
	GOBIN=$(dir $@) go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

actionlint: $(ACTIONLINT) ## the workflows of GitHub; needs Go
	$(ACTIONLINT) .github/workflows/*.yml

$(CACHE)/wheel/done.stamp: requirements/wheel.txt $(VENV)/uv.stamp
	$(PYTHON) -m venv --clear $(CACHE)/wheel
	VIRTUAL_ENV=$(CACHE)/wheel $(BIN)/uv pip install -q -r requirements/wheel.txt
	@touch $@

# Zig links against glibc 2.28, whatever the machine has; elsewhere the system's own tools do.
WHEEL_FLAGS ?= $(if $(filter Linux,$(shell uname)),--zig --compatibility manylinux_2_28)
wheel: check-tools $(CACHE)/wheel/done.stamp ## a wheel for every CPython from 3.11 on, an sdist, bill of materials and notices, in dist/
	@[ -f web/dist/index.html ] || echo "the page was not built: the wheel will carry a placeholder that says so"
	mkdir -p dist
	$(PYTHON) release/bill.py dist/barograph.cdx.json LICENSE-THIRD-PARTY.txt
	PATH="$(WHEEL):$$PATH" maturin build --profile wheel --compression-level 9 --locked $(WHEEL_FLAGS) --sdist -o dist
	$(PYTHON) release/weigh.py dist/*.whl

# As `make develop` builds it, which takes no second build; `make wheel` makes it smaller, and for an older glibc.
test-wheel: develop ## a wheel in empty environments: the three start pages, each to its picture; needs a package index
	rm -rf dist/try
	mkdir -p dist && $(PYTHON) release/bill.py dist/barograph.cdx.json LICENSE-THIRD-PARTY.txt
	$(BIN)/maturin build --release --locked --compatibility linux -q -o dist/try
	$(PYTHON) release/try_wheel.py dist/try/*.whl

test-openapi: develop-lint ## random requests against the sidecar, by its own description
	$(BIN)/python -m pytest tests/openapi -o testpaths=tests/openapi

KILLS ?= 200
IDLE ?= 10000
soak: develop ## kill -9, idle connections and load for half an hour
	BAROGRAPH_KILLS=$(KILLS) BAROGRAPH_IDLE=$(IDLE) $(BIN)/python -m pytest -s tests/e2e/test_kills.py tests/e2e/test_sidecar.py
	$(BIN)/python tests/e2e/soak.py
	$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=600

docs: develop-lint ## build the site, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q

$(CACHE)/peers/%/done.stamp: requirements/%.txt $(VENV)/uv.stamp
	$(PYTHON) -m venv --clear $(CACHE)/peers/$*
	VIRTUAL_ENV=$(CACHE)/peers/$* $(BIN)/uv pip install -q -r requirements/$*.txt
	@touch $@

bench-peers: $(CACHE)/peers/nannyml/done.stamp $(CACHE)/peers/evidently/done.stamp ## the peers' own environments, about 3 GB

bench: develop-lint bench-peers ## full benchmarks, and one table beside the pinned peers
	cargo bench -p barograph-core
	$(BIN)/python -m pytest benches/python -o testpaths=benches/python
	$(BIN)/python benches/peers.py

$(CACHE)/adapters/done.stamp: requirements/adapters.txt $(VENV)/uv.stamp
	$(PYTHON) -m venv --clear $(CACHE)/adapters
	VIRTUAL_ENV=$(CACHE)/adapters $(BIN)/uv pip install -q -r requirements/adapters.txt
	@touch $@

$(CACHE)/engines/done.stamp: requirements/engines.txt $(VENV)/uv.stamp
	$(PYTHON) -m venv --clear $(CACHE)/engines
	VIRTUAL_ENV=$(CACHE)/engines $(BIN)/uv pip install -q -r requirements/engines.txt
	@touch $@

ENGINE_ROWS ?= 1000000
test-engines: develop $(CACHE)/engines/done.stamp ## Spark, Ray and Dask with workers killed, and all of them side by side, about 1.3 GB; needs Java 17
	PYTHONPATH=$(CURDIR)/python $(CACHE)/engines/bin/python -m pytest -c tests/engines/pytest.ini tests/engines
	PYTHONPATH=$(CURDIR)/python $(CACHE)/engines/bin/python -m barograph bench engines --rows $(ENGINE_ROWS)

test-adapters: develop $(CACHE)/adapters/done.stamp ## adapters of frameworks too large for the core environment, about 2 GB
	PYTHONPATH=$(CURDIR)/python $(CACHE)/adapters/bin/python -m pytest -c tests/adapters/pytest.ini tests/adapters

$(CACHE)/brokers/done.stamp: requirements/brokers.txt $(VENV)/uv.stamp
	$(PYTHON) -m venv --clear $(CACHE)/brokers
	VIRTUAL_ENV=$(CACHE)/brokers $(BIN)/uv pip install -q -r requirements/brokers.txt
	@touch $@

# Kafka comes as jars, 43 MB; without Maven its tests are skipped, and say so.
KAFKA := $(CACHE)/kafka/lib
$(CACHE)/kafka/done.stamp: tests/brokers/pom.xml
	@mkdir -p $(KAFKA)
	! command -v mvn >/dev/null || { mvn -q -B -f tests/brokers/pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(KAFKA) && touch $@; }

test-brokers: develop $(CACHE)/brokers/done.stamp $(CACHE)/kafka/done.stamp ## Kafka, Redis, NATS and RabbitMQ themselves, as far as they are installed, S3 as moto serves it, PostgreSQL
	BAROGRAPH_KAFKA=$(KAFKA) PYTHONPATH=$(CURDIR)/python $(CACHE)/brokers/bin/python -m pytest -c tests/brokers/pytest.ini tests/brokers

bench-brokers: develop $(CACHE)/brokers/done.stamp $(CACHE)/kafka/done.stamp ## what a consumer of each broker costs
	BAROGRAPH_KAFKA=$(KAFKA) PYTHONPATH=$(CURDIR)/python $(CACHE)/brokers/bin/python benches/brokers.py

$(CACHE)/browser/done.stamp: requirements/browser.txt $(VENV)/uv.stamp
	$(PYTHON) -m venv --clear $(CACHE)/browser
	VIRTUAL_ENV=$(CACHE)/browser $(BIN)/uv pip install -q -r requirements/browser.txt
	@touch $@

PICTURES ?=
test-browser: page develop $(CACHE)/browser/done.stamp ## the page in Debian's Chromium; PICTURES=docs/images keeps pictures
	PYTHONPATH=$(CURDIR)/python BAROGRAPH_PICTURES=$(abspath $(PICTURES)) $(CACHE)/browser/bin/python -m pytest -c tests/browser/pytest.ini tests/browser

FUZZ_SECONDS ?= 30
FUZZ := $(CACHE)/fuzz
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Cdebug-assertions \
	-Ccodegen-units=1 -Zsanitizer=address
FUZZ_BUILT := $(abspath $(CARGO_TARGET_DIR))/fuzz
fuzz: develop ## hostile bytes into every decoder, under the address sanitizer, for FUZZ_SECONDS each target
	$(BIN)/python rust/fuzz/seeds.py $(FUZZ)/corpus
	cd rust/fuzz && RUSTC_BOOTSTRAP=1 RUSTFLAGS="$(FUZZ_FLAGS)" CARGO_TARGET_DIR=$(FUZZ_BUILT) \
		cargo build --locked -q --release --target x86_64-unknown-linux-gnu --bins
	for target in from_bytes bodies files; do $(FUZZ_BUILT)/x86_64-unknown-linux-gnu/release/$$target \
		-max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1024 -max_len=20000 -timeout=5 -verbosity=0 -print_final_stats=1 \
		-dict=rust/fuzz/words.dict -artifact_prefix=$(FUZZ)/$$target- $(FUZZ)/corpus/$$target; done

bench-once: develop-lint ## compile every benchmark and run it once
	cargo bench --locked -q -p barograph-core -- --test
	$(BIN)/python -m pytest benches/python --benchmark-disable

clean: ## forget .venv and what was built
	rm -rf $(VENV) site target
