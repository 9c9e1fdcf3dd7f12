# Two commands matter: `make book` and `make test`. `make help` explains the rest.
# Windows, or no make: CONTRIBUTING.md gives the same steps as plain commands.

PYTHON ?= python3
PROFILE ?= laptop
CHAPTERS ?=
VENV ?= .venv

ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif

# The environment is made anew when a pin or the Python changes.
PINS := $(shell cksum requirements.txt pyproject.toml 2>/dev/null | cksum | cut -d' ' -f1)
VERSION := $(shell $(PYTHON) -c "import sys; print('%d.%d' % sys.version_info[:2])" 2>/dev/null)
STAMP := $(VENV)/stamp-$(VERSION)-$(PINS)
PYTEST := $(BIN)/python -m pytest -q

# Nothing but the package index is ever asked for anything.
export HF_HUB_OFFLINE ?= 1
export HF_DATASETS_OFFLINE ?= 1
export TQDM_DISABLE ?= 1
export TOKENIZERS_PARALLELISM ?= false
export PYDEVD_DISABLE_FILE_VALIDATION ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1
export MPLBACKEND ?= agg
export JUPYTER_PREFER_ENV_PATH ?= 1

# Stored outputs are compared in the Python that made them; elsewhere the ci profile speaks.
NBVAL := $(if $(filter 3.11,$(VERSION)),--nbval --nbval-current-env --nbval-cell-timeout=600)
COMPARED := $(if $(NBVAL),_build/nbval)

.DEFAULT_GOAL := help
.PHONY: help venv book site refresh test test-package test-slow test-notebooks test-nbval \
	test-site test-colab lint format gates repository clean nbval-copies nbval-note

help:  ## this list
	@echo "make book         make .venv, run every notebook, render the site   (PROFILE=ci: quickly)"
	@echo "make test         everything below that begins with test-, and lint"
	@echo
	@echo "make venv         .venv with exactly the packages of requirements.txt"
	@echo "make site         render the site from the notebooks as they are committed"
	@echo "make refresh      run notebooks and store their outputs         (CHAPTERS=\"04 05_2\")"
	@echo "make lint         ruff and mypy"
	@echo "make format       let ruff format the code"
	@echo "make gates        what every committed notebook must be"
	@echo "make test-package   the package's fast tests"
	@echo "make test-slow      the package's slow tests"
	@echo "make test-notebooks every notebook in the ci profile, and the checks of the committed ones"
	@echo "make test-nbval     every notebook again, its outputs compared (Python 3.11 only)"
	@echo "make test-site      the site, built strictly, and its pages"
	@echo "make test-colab     install on top of this Python's packages, run the ci profile"
	@echo "make repository SLUG=OWNER/NAME   change the repository's address wherever it stands"
	@echo "make clean        remove .venv and _build"
	@echo
	@echo "PYTHON=python3.12 chooses another Python."

venv: $(STAMP)  ## .venv with exactly the packages of requirements.txt

$(STAMP):
	@$(PYTHON) tools/check_python.py
	@rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

book: $(STAMP)  ## run every notebook, render the site
ifeq ($(PROFILE),laptop)
	$(BIN)/electra-tutorial run --profile laptop --output _build/notebooks --timeout 600
	$(BIN)/python tools/build_site.py --notebooks _build/notebooks
else
	$(BIN)/electra-tutorial run --profile $(PROFILE) --output _build/notebooks-$(PROFILE)
	@echo "The site shows the committed outputs: those of the $(PROFILE) profile are not the book's."
	$(BIN)/python tools/build_site.py
endif

site: $(STAMP)  ## render the site from the notebooks as they are committed
	$(BIN)/python tools/build_site.py

refresh: $(STAMP)  ## run notebooks, store outputs in notebooks/ and times in run_times.json
	$(BIN)/python tools/refresh.py $(CHAPTERS)

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: $(STAMP)  ## let ruff format the code
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

gates: $(STAMP)  ## what every committed notebook must be
	$(BIN)/python tools/gates.py

# The pinned environment says so, and a test sees whether it is true.
test test-package test-slow test-notebooks test-nbval test-site: export ELECTRA_TUTORIAL_PINNED = 1

test: lint nbval-copies nbval-note  ## everything; the last line is pytest's
	$(PYTEST) $(NBVAL) tests/package tests/notebooks $(COMPARED) tests/site

test-package: $(STAMP)  ## the package's fast tests
	$(PYTEST) tests/package -m "not slow"

test-slow: $(STAMP)  ## the package's slow tests
	$(PYTEST) tests/package -m slow

test-notebooks: $(STAMP)  ## the ci profile and the checks of the committed notebooks
	$(PYTEST) tests/notebooks

test-nbval: nbval-copies nbval-note  ## every notebook, its outputs compared
ifneq ($(NBVAL),)
	$(PYTEST) $(NBVAL) $(COMPARED)
endif

test-site: $(STAMP)  ## the site, built strictly, and its pages
	$(PYTEST) tests/site

# What a notebook writes while it is compared lands beside the copy, not in the checkout.
nbval-copies: $(STAMP)
	@rm -rf _build/nbval && mkdir -p _build/nbval
	@cp notebooks/*.ipynb _build/nbval/

nbval-note:
ifeq ($(NBVAL),)
	@echo "Stored outputs are compared on Python 3.11 only; this is Python $(VERSION)."
endif

# As in Colab: the package on top of what this Python already has, which must stay as it is.
test-colab:
	@$(PYTHON) tools/check_python.py
	$(PYTHON) tools/colab.py

repository:  ## change the repository's address wherever it stands
	@$(PYTHON) tools/set_repository.py "$(SLUG)"

clean:  ## remove .venv and _build
	rm -rf $(VENV) _build build electra_tutorial.egg-info .pytest_cache .ruff_cache .mypy_cache
