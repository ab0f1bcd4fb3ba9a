# make demo           data, mined negatives, training with NeMo, evaluation, report page
# make demo-weak      the same without masks: all stages of TRIS, learned from expressions alone
# make compare        the demo's baselines, outside its minutes
# make test           the whole test suite              (test-fast: without the slow tests)
# make lint           ruff                              (format: let ruff fix what it can)
# make test-upstream  the whole test suite on the OpenMMLab originals; builds mmcv once
# make docs           the documentation as a site, build/site (warnings are errors)
# make metafiles      metafile.yml, model-index.yml and the model zoo, from the configs
# make clean          remove environments, caches and results
#
# Everything runs in a virtual environment that make sets up once, with the versions of
# requirements/constraints.txt. When those change, it is updated. VENV= says where it is, PYTHON=
# which Python makes it. TEST_PROCESSES= (default 2) is the number of processes that share the tests.

SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
VENV_UPSTREAM ?= .venv-upstream
TEST_PROCESSES ?= 2
PYTEST_ARGS ?=

# The environment carries a stamp: a hash of its pins and of the Python it was made with.
PINS := $(shell { cat requirements/*.txt; $(PYTHON) -VV; } | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.installed-$(PINS)
PY := $(VENV)/bin/python
# One thread per process: several processes with a thread per core each would slow each other down.
PYTEST := -m pytest -n $(TEST_PROCESSES) --dist worksteal

# This checkout comes first on the path, so that several checkouts can share one environment.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-weak compare test test-fast lint format docs test-upstream metafiles pins clean

help:
	@sed -n '/^# make/s/^# //p' Makefile

setup: $(STAMP)

$(STAMP):
	@VENV='$(VENV)' PYTHON='$(PYTHON)' bash requirements/install.sh dev
	@rm -f '$(VENV)'/.installed-* && touch '$@'

demo: $(STAMP)
	$(PY) projects/demo/demo.py

demo-weak: $(STAMP)
	$(PY) projects/demo/demo_weak.py

compare: $(STAMP)
	$(PY) projects/demo/demo.py --compare

test: $(STAMP)
	OMP_NUM_THREADS=1 $(PY) $(PYTEST) $(PYTEST_ARGS)

test-fast: $(STAMP)
	OMP_NUM_THREADS=1 $(PY) $(PYTEST) -m 'not slow' $(PYTEST_ARGS)

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(STAMP)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: $(STAMP)
	$(PY) -m sphinx -W --keep-going -q -c docs . build/site

metafiles: $(STAMP)
	$(PY) maintenance/make_metafiles.py

test-upstream: $(VENV_UPSTREAM)/.installed-$(PINS)
	OMP_NUM_THREADS=1 $(VENV_UPSTREAM)/bin/python $(PYTEST) $(PYTEST_ARGS)

$(VENV_UPSTREAM)/.installed-$(PINS):
	@VENV='$(VENV_UPSTREAM)' PYTHON='$(PYTHON)' bash requirements/install.sh upstream
	@rm -f '$(VENV_UPSTREAM)'/.installed-* && touch '$@'

pins:
	@echo $(PINS)

clean:
	rm -rf .venv .venv-upstream build dist *.egg-info .pytest_cache .ruff_cache work_dirs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
