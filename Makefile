.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
# A machine may keep wheels (a CPU build of torch, say) in a folder that pip knows; uv must be told.
export UV_FIND_LINKS := $(shell pip config get global.find-links 2>/dev/null)
PACKAGES := protos services/common services/restoration services/segmentation services/quantification services/training orchestrator

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(VENV)/.ready: locks/dev.txt $(foreach p,$(PACKAGES),$(p)/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==0.9.30"
	# Torch alone brings dependencies that differ between its CPU and CUDA builds; the lock has none of
	# them. UV_TORCH_BACKEND=cpu chooses the small build from PyTorch's own index.
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode -c locks/dev.txt "$$(grep ^torch== locks/dev.txt)"
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --no-deps -r locks/dev.txt
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps $(foreach p,$(PACKAGES),-e $(p))
	touch $@

setup: $(VENV)/.ready  ## install every package into .venv from the committed locks

demo: setup      ## make an experiment of phantoms and analyze it, on the CPU
	$(BIN)/respan demo

FAST := -m "not slow and not gpu and not containers and not manifests"

# Units compute, the others mostly wait for processes that they start: side by side, they take half
# the time on two cores.
test: setup      ## fast tests: no GPU, no network, no download
	$(MAKE) --no-print-directory -j2 --output-sync=target test-units test-processes

test-units: setup
	$(BIN)/pytest $(FAST) tests/unit

test-processes: setup
	$(BIN)/pytest $(FAST) tests --ignore tests/unit

test-slow: setup ## slow tests: trainings, the local stack
	$(BIN)/pytest -m "slow and not gpu and not containers and not manifests"

images:          ## build all container images, labelled with the commit
	RESPAN_REVISION=$$(git rev-parse HEAD) RESPAN_SOURCE=$$(git remote get-url origin 2>/dev/null) docker compose build

test-containers: setup  ## build all images, run the system in containers (CPU) and check it
	deploy/test_containers.sh

# The schemas of every version of Kubernetes are 100 MB, so nobody else installs them.
$(VENV)/.manifests: $(VENV)/.ready locks/manifests.txt
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps -r locks/manifests.txt
	touch $@

test-manifests: $(VENV)/.manifests  ## render the Kubernetes manifests and check them
	$(BIN)/pytest -m manifests tests/manifests

# In an environment of its own: what audits packages must not be among them.
$(VENV)/.audit/.ready: $(VENV)/.ready locks/audit.txt
	$(PYTHON) -m venv --clear $(VENV)/.audit
	VIRTUAL_ENV=$(VENV)/.audit $(BIN)/uv pip install --quiet --no-deps -r locks/audit.txt
	touch $@

audit: $(VENV)/.audit/.ready  ## report known holes in the locked packages; asks pypi.org, never fails
	$(BIN)/python .ci/audit.py $(VENV)/.audit/bin/pip-audit

test-all: setup  ## also slow and GPU tests
	$(BIN)/pytest -m "not containers and not manifests"

protos: setup    ## regenerate protos/src from protos/respan
	$(BIN)/python protos/generate.py protos/src

check: setup     ## lint, types, import contracts, proto drift
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy services/common/src services/restoration/src services/segmentation/src services/quantification/src services/training/src orchestrator/src
	$(BIN)/lint-imports
	$(BIN)/python protos/generate.py --check protos/src

bench: setup     ## score the analysis on unseen phantoms, and its measurements against drawn truth
	$(BIN)/python -m bench.phantoms
	$(BIN)/python -m bench.truth
	$(BIN)/python -m bench.quantification goal

up: setup        ## services, Prefect's page and a worker, kept running on this machine
	$(BIN)/respan up

down: setup      ## stop them
	$(BIN)/respan down

.PHONY: audit help setup demo images test test-units test-processes test-slow test-containers test-manifests test-all protos check bench up down
