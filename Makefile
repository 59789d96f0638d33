# Every target sets up what it needs, on a machine that has nothing but Debian's python3 and make.
# `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Half the tests wait for a process or a socket: more workers than cores keep the cores busy.
WORKERS ?= 4
PYTEST_ARGS ?=

.PHONY: help demo test bench soak conformance check format lock serve emulator clean picture image image-test compose-test pod-test deploy-test dist-test test-313 test-314 test-debian prometheusrule faults fuzz load torture simulation
.DEFAULT_GOAL := help

help: ## show this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "compass-sidecar needs Python 3.11 or newer; set PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { deploy/debian python3-venv && $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## do the main job against the emulator; ONCE=1 ends after one verified renewal
	@deploy/debian openssl curl
	$(BIN)/python deploy/demo.py $(if $(ONCE),--once) $(ARGS)

test: $(READY) ## run the test suite
	@deploy/debian openssl curl nginx node keytool promtool chromium chromedriver faketime strace
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

bench: $(READY) ## measure against the least that could do the same; ARGS="api --quick"
	@deploy/debian wrk nginx openssl curl
	$(BIN)/python -m bench $(ARGS)

soak: $(READY) ## an hour of one-minute certificates, random faults and outages; ARGS="--seed 1"
	$(BIN)/python -m tests.soak --minutes 60 --lifetime 60s --chaos 0.3 --outages 3 --outage 15 $(ARGS)

faults: $(READY) ## every fault of the Connector's repertoire at every operation
	$(BIN)/python -m pytest -n $(WORKERS) tests/faults -m "exhaustive or not exhaustive" $(PYTEST_ARGS)

fuzz: $(READY) ## 20,000 examples for each property of the parsers and of the API's headers
	$(BIN)/python -m pytest -n $(WORKERS) --hypothesis-profile fuzz tests/fuzz $(PYTEST_ARGS)

load: $(READY) ## 1,000 callers, 1,900 idle and slow clients, 1,000 waiters through 100 renewals, and two attacks on memory
	$(BIN)/python -m tests.load renew --callers 1000
	$(BIN)/python -m tests.load crowd --idle 1700 --slow 200 --seconds 60
	$(BIN)/python -m tests.load waiters --waiters 1000 --renewals 100
	for listener in api health; do for attack in fields ahead; do \
		$(BIN)/python -m tests.load $$attack --listener $$listener || exit 1; \
	done; done

conformance: $(READY) ## thousands of random requests against the API's own description
	$(BIN)/python -m tests.conformance --cases 10000

picture: $(READY) ## make the README's picture of the page anew
	@deploy/debian chromium chromedriver faketime pngquant
	$(BIN)/python -m tests.picture

torture: $(READY) ## kill it, and cut the power, at every step of what it does; ARGS="--count 1200 --minutes 25 --seed 1"
	$(BIN)/python -m tests.torture $(ARGS)

simulation: $(READY) ## the engine in virtual time: 3,000 seeds of faults, crashes and clocks; ARGS="--seed 7"
	$(BIN)/python -m tests.proofs.simulation $(ARGS)

check: $(READY) ## lint, types and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p .typing && ln -sfn ../app .typing/compass_sidecar && ln -sfn ../emulator .typing/compass_emulator
	$(BIN)/mypy

format: $(READY) ## format and sort imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

serve: $(READY) ## run the sidecar with the COMPASS_ variables of this shell
	$(BIN)/compass-sidecar

emulator: $(READY) ## run the Connector emulator
	$(BIN)/compass-emulator

image: $(READY) ## build both images, with Docker's engine or with buildah
	deploy/image/build

# These run containers without an engine, and so need root.
image-test: image ## build the images and run them: uid, read-only root, renewal, SIGTERM, size
	@deploy/debian buildah crun ip curl
	$(BIN)/python -m pytest -s tests/containers/image.py

compose-test: image ## run the services of docker-compose.yml together, each in its own namespaces
	@deploy/debian buildah crun ip curl
	$(BIN)/python -m pytest tests/containers/compose.py

test-313 test-314: test-3%: $(READY) ## run the suite under Python 3.13 or 3.14, in a container
	@deploy/debian buildah debootstrap
	deploy/image/test-python 3.$* -n $(WORKERS) $(PYTEST_ARGS)

# Debian 12's own Python is 3.11.2, the oldest that is supported.
DEBIAN_PYTHON := /usr/bin/python3
# What needs other programs or hours is left to the Python that comes first on the path.
DEBIAN_TESTS = tests/core tests/adapters tests/api $(wildcard tests/engine) $(wildcard tests/test_*.py)

test-debian: ## run core, adapters, engine, API and the demo under the system's own Python
	@deploy/debian python3-venv
	$(MAKE) test-part demo VENV=.venv-debian PYTHON=$(DEBIAN_PYTHON) ONCE=1 ARGS="--port 0" TESTS="$(DEBIAN_TESTS)"

.PHONY: test-part
test-part: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) $(TESTS) $(PYTEST_ARGS)

dist-test: $(READY) ## build wheel and sdist, install each in a clean environment and run it
	$(BIN)/python -m pytest tests/dist.py

pod-test: image ## run the pod of deploy/kubernetes, from waiting for its token to its next life
	@deploy/debian buildah crun ip curl
	$(BIN)/python -m pytest tests/containers/pod.py

DEPLOY := .venv-deploy

deploy-test: $(DEPLOY)/.ready ## check manifests, compose file and systemd unit with their own tools
	@deploy/debian podman systemd-analyze
	deploy/verify $(DEPLOY)/bin

$(DEPLOY)/.ready: requirements-deploy.lock $(READY)
	@$(PYTHON) -m venv $(DEPLOY)
	$(DEPLOY)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-deploy.lock
	@touch $@

prometheusrule: ## make the PrometheusRule anew from deploy/prometheus/alerts.yaml
	deploy/kubernetes/render-prometheusrule

# Universal: one lock file for Python 3.11 to 3.13. It names no index address.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --custom-compile-command 'make lock' pyproject.toml

lock: $(READY) ## make the lock files anew from pyproject.toml
	$(LOCK) -o requirements.lock
	$(LOCK) --extra emulator -c requirements.lock -o requirements-emulator.lock
	$(LOCK) --all-extras --allow-unsafe -c requirements.lock -o requirements-dev.lock
	printf 'kubernetes-validate\npodman-compose\n' | $(LOCK:pyproject.toml=-) -o requirements-deploy.lock
	echo setuptools | $(LOCK:pyproject.toml=-) --allow-unsafe -c requirements-dev.lock -o requirements-build.lock

clean: ## remove what the other targets made
	rm -rf $(VENV) .venv-debian $(DEPLOY) .typing .demo .emulator .torture.jsonl .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
