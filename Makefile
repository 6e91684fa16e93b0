# `make demo` and `make test` need nothing but Linux, Python 3.10 - 3.12 with
# headers, a C++ compiler and a package registry.

PYTHON ?=
DISK_GB ?= 10
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-onedl lint clean docs docs-commands

# The set-up builds mmcv's CPU ops only.
export CUDA_VISIBLE_DEVICES :=
# One thread: on a busy machine several threads wait for each other and made a
# training step ten times slower (measured), on an idle one they save little.
export OMP_NUM_THREADS ?= 1
# A user's own packages must not be mixed with those of .venv.
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH PYTHONHOME

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' \
	    $(firstword $(MAKEFILE_LIST))
	@echo 'PYTHON=/path/to/python chooses the interpreter (3.10 - 3.12).'

setup: ## make .venv with everything pinned; builds mmcv once
	@PYTHON='$(PYTHON)' DISK_GB='$(DISK_GB)' tools/setup/setup.sh

demo: setup ## draw data, train a small detector with HetConv, test it
	@PYTHON=.venv/bin/python tools/demo/run.sh

test: setup ## run the tests, JOBS modules at a time
	@.venv/bin/python -m pytest -q -n $(JOBS) --dist loadscope

test-onedl: ## run the tests with the onedl-* forks, in .venv-onedl
	@PYTHON='$(PYTHON)' DISK_GB='$(DISK_GB)' tools/setup/setup.sh onedl
	@.venv-onedl/bin/python -m pytest -q -n $(JOBS) --dist loadscope

docs: setup ## build the documentation site in docs/_build/html
	@.venv/bin/python -m pip --disable-pip-version-check install --quiet \
	    --no-deps --requirement requirements/docs.txt
	.venv/bin/python -m sphinx -W --keep-going -b html docs docs/_build/html

docs-commands: setup ## run the commands of the documentation on tiny data
	@.venv/bin/python -m tests.docs.run_commands

lint: setup ## check the style and the types of the code
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy

clean: ## remove .venv and what the demo made; the wheel of mmcv is kept
	rm -rf .venv .venv-onedl docs/_build data/demo data/demo.unfinished work_dirs/demo \
	    .pytest_cache .ruff_cache .mypy_cache .hypothesis
