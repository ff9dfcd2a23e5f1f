# Everything a new user needs: Python 3.11 or newer and make. `make help` lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo dev check format test test-all test-codec faults bench lock clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP)  ## Install the locked packages into .venv (once)

$(STAMP): requirements/development.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Onebox needs Python 3.11 or newer; set PYTHON=/path/to/python3.11 (found: $$($(PYTHON) --version))"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "The venv module of $(PYTHON) is incomplete (Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	@echo "Installing packages into $(VENV) (about a minute) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/development.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

demo: $(STAMP)  ## Play the incident on real parts, and check the invariants (under a minute)
	@$(BIN)/onebox demo --page incident.html

dev: $(STAMP)  ## Start the whole stack on this machine and leave it up until Ctrl-C
	@$(BIN)/onebox dev

check: $(STAMP)  ## Format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## Format the code, and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: $(STAMP)  ## The tests, against real parts (about 10 minutes on 2 cores)
	$(BIN)/pytest -n 3 --dist loadfile -m "not storm"

test-all: test  ## The tests, then the storms, one after the other: beside each other they would measure each other
	$(BIN)/pytest -m storm

test-codec: $(STAMP)  ## The tests of the whole stack, with payloads encrypted
	PAYLOAD_KEYS="test:$$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')" $(BIN)/pytest -n 3 --dist loadfile -m "not storm" tests/integration

SEED ?= 1
MINUTES ?= 20

faults: $(STAMP)  ## Break everything for MINUTES=20 by SEED=1, and judge by what really happened
	$(BIN)/python -m faults --seed $(SEED) --minutes $(MINUTES)

SIZE ?= full

bench: $(STAMP)  ## Measure against ceilings and rivals (under 15 minutes on 2 cores); SIZE=small: does it work
	$(BIN)/python -m bench --size $(SIZE)

lock: $(STAMP)  ## Pin the newest packages that pyproject.toml allows (needs uv)
	uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 --upgrade pyproject.toml -o requirements/production.txt
	uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 -c requirements/production.txt \
	  --extra devstack --extra development pyproject.toml -o requirements/development.txt
	echo hatchling | uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 \
	  -c requirements/development.txt - -o requirements/build.txt

clean:  ## Remove what setup and the tools made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
