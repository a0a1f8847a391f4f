# Skyfold: `make help` lists the targets. Everything is installed into .venv by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := demo
# One worker per core, at most four: some tests hold survey tiles or start processes of their own.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile

.PHONY: help install demo test test-all check format doctor clean
.DEFAULT_GOAL := help

help:  ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY)  ## Create .venv with Skyfold and what it needs (torch first, CPU build)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] < (3, 14) else "Skyfold needs Python 3.11-3.13, this is " + sys.version.split()[0] + "; try make PYTHON=python3.11 install")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	touch $@

demo: $(READY)  ## Simulate, train, predict and score in a few minutes; results in demo/
	$(BIN)/python demo.py $(DEMO)

test: $(READY)  ## Run the default tests (under 6 minutes on two cores)
	$(BIN)/python -m pytest $(PARALLEL)

test-all: $(READY)  ## Run every test, also the slow ones
	$(BIN)/python -m pytest $(PARALLEL) -m ''

check: $(READY)  ## What continuous integration runs: format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

format: $(READY)  ## Format the code and sort imports
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

doctor: $(READY)  ## Say what is installed, what hides what, which devices and data are there
	$(BIN)/python -m conf.doctor

clean:  ## Remove the demo's results and caches (not .venv, not data/, logs/, outputs/)
	rm -rf $(DEMO) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -exec rm -rf {} +
