# make demo           data, mined negatives, training with NeMo, evaluation, report page
# make test           the whole test suite              (make test-fast: without slow tests)
# make lint           ruff                              (make format: fix what ruff can fix)
# make compare        the demo's network on shuffled expressions, and other baselines
# make test-upstream  the whole test suite on the OpenMMLab originals; builds mmcv once
# make clean          remove environments, caches and results
#
# Everything runs in a virtual environment that make sets up by itself, once, with the versions of
# requirements/constraints.txt; when those change it is brought up to date. VENV= says where it is,
# PYTHON= which Python makes it.

SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
VENV_UPSTREAM ?= .venv-upstream
PYTEST_ARGS ?=

# The environment carries a stamp: a hash of its pins and of the Python it was made with.
PINS := $(shell { cat requirements/*.txt; $(PYTHON) -VV; } | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.installed-$(PINS)
PY := $(VENV)/bin/python

# This checkout comes first on the path, so that several checkouts can share one environment.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

.DEFAULT_GOAL := help
.PHONY: help setup demo compare test test-fast lint format test-upstream pins clean

help:
	@sed -n '/^# make/s/^# //p' Makefile

setup: $(STAMP)

$(STAMP):
	@VENV='$(VENV)' PYTHON='$(PYTHON)' bash requirements/install.sh dev
	@rm -f '$(VENV)'/.installed-* && touch '$@'

demo: $(STAMP)
	$(PY) projects/demo/demo.py

compare: $(STAMP)
	$(PY) projects/demo/demo.py --compare

test: $(STAMP)
	$(PY) -m pytest $(PYTEST_ARGS)

test-fast: $(STAMP)
	$(PY) -m pytest -m 'not slow' $(PYTEST_ARGS)

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(STAMP)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

test-upstream: $(VENV_UPSTREAM)/.installed-$(PINS)
	$(VENV_UPSTREAM)/bin/python -m pytest $(PYTEST_ARGS)

$(VENV_UPSTREAM)/.installed-$(PINS):
	@VENV='$(VENV_UPSTREAM)' PYTHON='$(PYTHON)' bash requirements/install.sh upstream
	@rm -f '$(VENV_UPSTREAM)'/.installed-* && touch '$@'

pins:
	@echo $(PINS)

clean:
	rm -rf .venv .venv-upstream build dist *.egg-info .pytest_cache .ruff_cache work_dirs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
