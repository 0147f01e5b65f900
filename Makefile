# Every target makes what it needs; the environment lives in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Machines that forbid it have each of the tests' hundreds of processes compile all of this code.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-release test test-fast drills check-install check docs bench experiments lock image-locks sbom audit clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: $(INSTALLED) ## Install everything into .venv (about 3 GB; a few minutes)

$(INSTALLED): requirements.lock pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "embedlake needs Python 3.11 or newer; say which with: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

demo: $(INSTALLED) ## Run the main job for real on text that Python ships
	$(BIN)/python examples/demo.py

demo-release: $(INSTALLED) ## Change the model for real: ask, click, fine-tune, judge, switch, roll back
	$(BIN)/python -m examples.demo_release

test: $(INSTALLED) ## Unit, contract and end-to-end tests with real servers, in two processes
	$(BIN)/python -m pytest -n 2

test-fast: $(INSTALLED) ## Two minutes of tests for while you work: no servers, no training (CONTRIBUTING.md)
	$(BIN)/python -m pytest -n 2 --hypothesis-profile fast -m "not e2e and not server and not slow"

drills: $(INSTALLED) ## Kill and restart every part of a topology under runs: minutes; before a release
	$(BIN)/python -m pytest -m drill

check-install: $(INSTALLED) ## Install the wheel as users do, from the registry: the core alone, then with `run` (3 GB)
	WHEEL_DEPENDENCIES=registry $(BIN)/python -m pytest -o timeout=1800 tests/e2e/test_wheel.py

check: $(INSTALLED) ## Lint, format, types, import rules, names, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.house
	$(BIN)/python -m tools.pages --check
	@$(MAKE) --no-print-directory docs

docs: $(INSTALLED) ## Write the tables that follow the code, build the documentation's site into build/site
	$(BIN)/python -m tools.pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

bench: $(INSTALLED) ## Measure the encoder, the pipeline and the lake; results in benchmarks/results
	$(BIN)/python -m benchmarks.encode
	$(BIN)/python -m benchmarks.stream
	$(BIN)/python -m benchmarks.chunking
	$(BIN)/python -m benchmarks.chunking --strategies sentences markdown code characters --megabytes 100
	$(BIN)/python -m benchmarks.resolve
	$(BIN)/python -m benchmarks.engines
	$(BIN)/python -m benchmarks.inputs --part speed
	$(BIN)/python -m benchmarks.inputs --part memory --mib 256 2048
	$(BIN)/python -m benchmarks.length_filter
	$(BIN)/python -m benchmarks.hub_plan
	$(BIN)/python -m benchmarks.export
	$(BIN)/python -m benchmarks.lake
	$(BIN)/python -m benchmarks.release --only switch --only bytes --only beside
	$(BIN)/python -m benchmarks.serve
	@if [ -z "$(BEIR)" ]; then echo "left out, for want of labelled data: make bench BEIR=folder"; exit; fi; set -ex; \
	  $(BIN)/python -m benchmarks.retrieval --data $(BEIR); $(BIN)/python -m benchmarks.gate --data $(BEIR); \
	  $(BIN)/python -m benchmarks.bridge --data $(BEIR); \
	  BEIR=$(BEIR) $(BIN)/python -m benchmarks.release --only finetune --only ruined
	@if [ -z "$(PEERS)" ]; then echo "left out, for want of a folder for their environments: make bench PEERS=folder"; \
	  else $(BIN)/python -m benchmarks.peers --environments $(PEERS); fi

experiments: $(INSTALLED) drills ## Long fault experiments; results in experiments/results
	$(BIN)/python -m experiments.faults --jobs 2
	$(BIN)/python -m experiments.fuzz
	$(BIN)/python -m experiments.machine
	$(BIN)/python -m benchmarks.faults
	$(BIN)/python -m benchmarks.release --only kills
	@if [ -z "$(PEERS)" ]; then echo "left out, for want of a folder for their environments: make experiments PEERS=folder"; \
	  else $(BIN)/python -m experiments.peers --environments $(PEERS); fi
	$(BIN)/python -m experiments.page

# The published torch requires this very triton on Linux; its CPU build requires none and would hide that.
TORCH := torch==2.13.0
TRITON := triton==3.7.1; sys_platform == "linux"

lock: ## Write requirements.lock from what .venv holds
	@{ echo '# Everything the two README commands install, at versions that were tested together.'; \
	   echo '# Made by `make lock`.'; \
	   $(BIN)/python -m pip freeze --exclude-editable | sed -e 's/^torch==.*/$(TORCH)/' -e 's/^triton==.*/$(TRITON)/'; } > requirements.lock

image-locks: $(INSTALLED) ## Write the hashed locks of infra/Dockerfile from requirements.lock
	$(BIN)/python -m tools.image_locks

# In an environment of their own: they are no part of what they look at.
AUDITORS := pip-audit==2.10.1 cyclonedx-bom==7.5.0

build/audit:
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet $(AUDITORS)

sbom: build/audit ## Write the list of all that is installed, as CycloneDX, into build/sbom.json
	build/audit/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
	  --output-format JSON --output-file build/sbom.json requirements.lock

audit: sbom ## Look for known vulnerabilities in what is installed; asks PyPI
	build/audit/bin/pip-audit --strict --disable-pip --no-deps --requirement requirements.lock

clean: ## Remove what the targets made, .venv included
	rm -rf $(VENV) .demo .embedlake .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build *.egg-info
