# Everything a new user needs: Python 3.11 or newer and make. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.installed-demo
# Tests and the stack start hundreds of processes; without cached bytecode each one compiles its imports.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo dev check format test test-all test-codec faults bench lock clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP)  ## Install all locked packages into .venv (once)

# $(call install,NAME): the packages of requirements/NAME.txt, with their number as progress, and Onebox itself.
define install
	@echo "Installing the packages of requirements/$(1).txt into $(VENV) …"
	@if command -v uv >/dev/null; then \
	  uv pip install --compile-bytecode --python $(BIN)/python --require-hashes -r requirements/$(1).txt; \
	else \
	  total=$$(grep -c '^[a-z0-9].*==' requirements/$(1).txt); \
	  $(BIN)/python -m pip install $(PIP_FLAGS) --require-hashes -r requirements/$(1).txt \
	    2> >(grep -v '^WARNING' >&2) | awk -v total="$$total" '/^(Collecting|Processing|Requirement already|Ignoring)/ { printf "\r  %d of %d", ++n, total; fflush() } \
	        /^Installing collected/ { printf "\r  unpacking …      "; fflush() } END { print "\r  done             " }'; \
	fi
	@if command -v uv >/dev/null; then \
	  uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .; \
	else \
	  $(BIN)/python -m pip install --quiet --quiet $(PIP_FLAGS) --no-deps --no-build-isolation --editable .; \
	fi
endef
PIP_FLAGS := --disable-pip-version-check --no-input --progress-bar off --root-user-action ignore

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Onebox needs Python 3.11 or newer; set PYTHON=/path/to/python3.11 (found: $$($(PYTHON) --version))"; exit 1; }
	@if command -v uv >/dev/null; then uv venv --quiet --seed --python $(PYTHON) $(VENV); else \
	  $(PYTHON) -m venv $(VENV) || \
	  { echo "The venv module of $(PYTHON) is incomplete (Debian and Ubuntu: apt install python3-venv)"; exit 1; }; fi

$(DEMO_STAMP): requirements/demo.txt pyproject.toml | $(BIN)/python
	$(call install,demo)
	@touch $(DEMO_STAMP)

$(STAMP): requirements/development.txt pyproject.toml | $(BIN)/python
	$(call install,development)
	@touch $(DEMO_STAMP) $(STAMP)

demo: $(DEMO_STAMP)  ## Replay the incident on a real stack, and check the invariants (under a minute)
	@$(BIN)/onebox demo --page incident.html

dev: $(DEMO_STAMP)  ## Start the whole stack on this machine, and run it until Ctrl-C
	@$(BIN)/onebox dev

check: $(STAMP)  ## Format, lint, types, import rules, declared packages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .

format: $(STAMP)  ## Format the code, and apply the linter's fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

PYTEST := $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

test: $(STAMP)  ## Run the daily tests on real parts (5 minutes on 2 cores)
	$(PYTEST) --daily

test-all: $(STAMP)  ## Run all tests with full Hypothesis counts, then the storms one by one (30 minutes)
	HYPOTHESIS_PROFILE=full $(PYTEST) -m "not storm"
	HYPOTHESIS_PROFILE=full $(BIN)/pytest -m storm

test-codec: $(STAMP)  ## Run the integration tests with encrypted payloads
	PAYLOAD_KEYS="test:$$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')" $(PYTEST) -m "not storm" tests/integration

SEED ?= 1
MINUTES ?= 20

faults: $(STAMP)  ## Inject faults for MINUTES=20 with SEED=1, and check the invariants
	$(BIN)/python -m faults --seed $(SEED) --minutes $(MINUTES)

SIZE ?= full

bench: $(STAMP)  ## Run the benchmarks (15 minutes on 2 cores); SIZE=small is a smoke test
	$(BIN)/python -m bench --size $(SIZE)

COMPILE := uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11

lock: $(STAMP)  ## Pin the newest packages that pyproject.toml allows (needs uv)
	$(COMPILE) --upgrade pyproject.toml -o requirements/production.txt
	$(COMPILE) -c requirements/production.txt --extra devstack --extra development pyproject.toml \
	  -o requirements/development.txt
	printf 'editables\nhatchling\n' | $(COMPILE) -c requirements/development.txt --extra devstack pyproject.toml - \
	  -o requirements/demo.txt
	echo hatchling | $(COMPILE) -c requirements/development.txt - -o requirements/build.txt

clean:  ## Remove what setup and the tools created
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
