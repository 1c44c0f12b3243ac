# Each target first sets up what it needs in .venv; a second call finds it there and does nothing.
#   make prepare train CONFIG=configs/x.yaml ARGS="train.time_budget=30"
#   PYTHON=python3.12 and EXTRA=cpu|cuda choose what scripts/setup.sh otherwise finds out.
CONFIG ?= configs/default.yaml
SWEEP ?= configs/sweeps/lr.yaml
ARGS ?=
RESEARCH ?= configs/research/overnight.yaml
BIN := .venv/bin
# Where iCloud hides what is in .venv, Python does not see that the package is installed; scripts/setup.sh says more.
ifeq ($(shell uname -s),Darwin)
export PYTHONPATH := $(CURDIR)/src$(if $(PYTHONPATH),:$(PYTHONPATH))
endif
SETUP := pyproject.toml Makefile scripts/setup.sh

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup prepare train research evaluate sweep doctor bench verify-kernels verify-metal test test-numeric lint types check clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

setup: .venv/dev ## Make .venv with the package and the developer's tools

prepare: .venv/ready ## Fetch and tokenize the text of CONFIG
	$(BIN)/mlx-autoresearch prepare $(CONFIG) $(ARGS)

train: .venv/ready ## Train CONFIG for its time budget
	$(BIN)/mlx-autoresearch train $(CONFIG) $(ARGS)

research: .venv/ready ## Search for a better model overnight, as RESEARCH says
	$(BIN)/mlx-autoresearch research start $(RESEARCH) $(ARGS)

evaluate: .venv/ready ## Measure a trained run's bits per byte, ARGS=<run folder>
	$(BIN)/mlx-autoresearch evaluate $(ARGS)

sweep: .venv/ready ## Try the points of SWEEP=configs/sweeps/<name>.yaml
	$(BIN)/mlx-autoresearch sweep $(SWEEP) $(ARGS)

doctor: .venv/ready ## Check this machine's setup: device, memory, BLAS, compiler
	$(BIN)/mlx-autoresearch doctor

bench: .venv/ready ## Measure how fast this machine trains; writes a file to publish
	$(BIN)/mlx-autoresearch bench $(ARGS)

verify-kernels: .venv/ready ## Check the Metal kernels in the simulator, on any machine
	$(BIN)/mlx-autoresearch kernels verify $(ARGS)

verify-metal: .venv/ready ## Run the same cases on this Mac's GPU
	$(BIN)/mlx-autoresearch kernels verify --on metal $(ARGS)

# Tests spend much of their time waiting for processes: three files at once suit two cores, and PARALLEL= runs one.
PARALLEL ?= --numprocesses=3 --dist=loadfile

# Without ARGS what differs on macOS runs a second time, in a simulated Mac (tests/support/mac), and a few numeric tests
# with every BLAS.
test: .venv/dev ## Run the tests, ARGS="-k name" for some of them
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)
ifeq ($(ARGS)$(shell uname -s),Linux)
	$(BIN)/python -m tests.support.mac -m pytest $(PARALLEL) tests/sandbox tests/research tests/sweep tests/trials
	$(BIN)/python scripts/numeric_matrix.py --short
endif

test-numeric: .venv/dev ## Run the numeric tests with every BLAS, instruction set and number of threads
	$(BIN)/python scripts/numeric_matrix.py $(ARGS)

lint: .venv/dev ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/dev ## Check types
	$(BIN)/pyright --pythonpath $(BIN)/python

check: lint types test ## All that CI checks

clean: ## Remove .venv and what tools left behind; data and runs stay
	rm -rf .venv build dist .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/ready: $(SETUP)
	@sh scripts/setup.sh

.venv/dev: $(SETUP)
	@sh scripts/setup.sh dev
