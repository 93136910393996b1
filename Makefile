# make demo: environment and the whole graph on the demo data.  make test: environment and tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export DAGSTER_DISABLE_TELEMETRY := 1
.DEFAULT_GOAL := help
.PHONY: help setup demo test slow long ui serve check lock clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup: $(VENV)/.ready ## the environment from the hash-checked lock

$(VENV)/.ready: requirements-dev.lock pyproject.toml
	@echo "Setting up the environment in $(VENV) (once; one to three minutes) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## the whole graph on the demo data, then what to look at
	@$(BIN)/profile-pipeline demo

ui: setup ## the Dagster UI on loopback, port 3000
	@$(BIN)/profile-pipeline ui

serve: setup ## profile pages on loopback; prints the address
	@$(BIN)/profile-pipeline serve

test: setup ## the tests, but for those that take minutes each
	@$(BIN)/python -m pytest -m "not slow and not long" -n 2 --dist loadfile

slow: setup ## the tests that take minutes: kills at random moments, the sensor of a running instance
	@$(BIN)/python -m pytest -m slow -n 2 --dist loadfile

long: setup ## the properties over hundreds of examples each; ends at the first failure
	@$(BIN)/python -m pytest -m long -n 2 --dist worksteal -x

check: setup ## formatting, lint, types, Dagster definitions
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/ty check profile_pipeline
	@$(BIN)/dg check defs

lock: setup ## new lock files from pyproject.toml (needs uv: pip install uv)
	uv pip compile pyproject.toml --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --quiet -o requirements.lock
	uv pip compile pyproject.toml --group dev --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --quiet -o requirements-dev.lock

clean: ## removes what runs have made, keeps the demo deliveries
	@rm -rf data/state data/published data/dagster data/shared
