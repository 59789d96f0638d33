# Every target sets up what it needs, on a machine that has nothing but Debian's python3 and make.
# `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Half the tests wait for a process or a socket: more workers than cores keep the cores busy.
WORKERS ?= 4
PYTEST_ARGS ?=

.PHONY: help demo test bench soak torture check format lock serve emulator clean
.DEFAULT_GOAL := help

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "compass-sidecar needs Python 3.11 or newer; set PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { deploy/debian python3-venv && $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## do the main job against the emulator; ONCE=1 ends after one verified renewal
	$(BIN)/python deploy/demo.py $(if $(ONCE),--once)

test: $(READY) ## run the test suite
	@deploy/debian openssl curl nginx node keytool strace
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

bench: $(READY) ## measure against the least that could do the same; ARGS="api --quick"
	@deploy/debian wrk nginx openssl curl
	$(BIN)/python -m bench $(ARGS)

soak: $(READY) ## half an hour of one-minute certificates and Connector outages
	$(BIN)/python -m tests.soak --minutes 30 --outages 3 --outage 15 --lifetime 60s

torture: $(READY) ## kill it, and cut the power, at every step of what it does; ARGS="--count 1200 --minutes 25 --seed 1"
	$(BIN)/python -m tests.torture $(ARGS)

check: $(READY) ## lint, types and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## format and sort imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

serve: $(READY) ## run the sidecar with the COMPASS_ variables of this shell
	$(BIN)/compass-sidecar

emulator: $(READY) ## run the Connector emulator
	$(BIN)/compass-emulator

# Universal: one lock file for Python 3.11 to 3.13. It names no index address.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --custom-compile-command 'make lock' pyproject.toml

lock: $(READY) ## make the lock files anew from pyproject.toml
	$(LOCK) -o requirements.lock
	$(LOCK) --extra emulator -c requirements.lock -o requirements-emulator.lock
	$(LOCK) --all-extras --allow-unsafe -c requirements.lock -o requirements-dev.lock

clean: ## remove what the other targets made
	rm -rf $(VENV) .demo .emulator .torture.jsonl .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
