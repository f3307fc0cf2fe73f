# Everything one does with the course. Each target sets up what it needs; `make help` lists them.

PYTHON ?= python3
BIN := .venv/bin
# Every file of the site and every folder, so that a file that is deleted is noticed too.
SOURCES := $(shell find book/ notebooks/ gptlib/ tools/build.py _config.yml _toc.yml \
	-not -path '*/__pycache__*' -not -path '*/.ipynb_checkpoints*')

.PHONY: book help check test test-unit test-notebooks test-browser nightly judge notebooks lab \
	serve lint format clean repository release lock vocabulary mini scaling \
	lowest colab

book: _build/html/.complete  ## build the site
	@echo "The site is in _build/html: open _build/html/index.html, or run 'make serve'."

help:  ## list what make can do
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | \
		while IFS='|' read -r name does; do printf 'make %-16s%s\n' "$$name" "$$does"; done

# PyTorch's idle threads spin while they wait, and would take the cores from the other process.
PYTEST = OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2

check: .venv/.complete lint  ## before a commit: style, types, and what is tested in two minutes
	@$(PYTEST) -m quick tests --ignore=tests/browser

test: .venv/.complete lint book  ## everything that CI runs
	@$(PYTEST)

# The same in three parts, which CI runs side by side.
test-unit: .venv/.complete lint  ## a part of make test: style, types, unit tests
	@$(PYTEST) tests --ignore=tests/browser

test-notebooks: .venv/.complete  ## a part of make test: every notebook
	@$(PYTEST) notebooks

test-browser: .venv/.complete book  ## a part of make test: the widgets and the site in Chromium
	@$(PYTEST) tests/browser

nightly: .venv/.complete book  ## the tests that take minutes, and every committed asset judged anew
	@$(PYTEST) -m slow

judge: .venv/.complete  ## judge the committed assets in full, and record that they held
	@$(BIN)/python -m tests.judged

lowest: PYTHON = python3.10
lowest: BIN = _build/lowest/bin
lowest: _build/lowest/.complete  ## the unit tests with the lowest versions that pyproject.toml allows
	@$(PYTEST) tests --ignore=tests/browser

colab: PYTHON = python3.13
colab: BIN = _build/colab/bin
colab: _build/colab/.complete  ## the unit tests and the chapters with the versions that Colab runs
	@$(PYTEST) tests notebooks/*.ipynb --ignore=tests/browser

notebooks: .venv/.complete  ## re-execute every notebook in place, or one: NOTEBOOK=notebooks/….ipynb
	@$(BIN)/python tools/execute.py $(NOTEBOOK)

lab: .venv/.complete  ## open the notebooks in JupyterLab
	@$(BIN)/jupyter-lab notebooks/01_what_a_gpt_is.ipynb

serve: book  ## look at the site on this machine
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html 8000

lint: export DENO_NO_UPDATE_CHECK = 1
lint: .venv/.complete  ## style and types, of Python and of JavaScript
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/deno fmt --quiet --check
	@$(BIN)/deno lint --quiet
	@$(BIN)/deno check --quiet gptlib/widgets book/_static/*.js

format: .venv/.complete  ## put the code into the house format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/deno fmt --quiet

vocabulary: .venv/.complete  ## train the stories' vocabulary again
	@$(BIN)/python tools/train_stories_vocabulary.py

mini: .venv/.complete  ## train the mini model again: about two hours on two cores, resumable
	@$(BIN)/python -m tools.train_mini

scaling: .venv/.complete  ## train the models of the scaling law again: over an hour on two cores, resumable
	@$(BIN)/python -m tools.train_scaling

repository:  ## point every link at a fork: make repository URL=https://github.com/you/your-fork
	@$(PYTHON) tools/repository.py "$(URL)"

release:  ## version, changelog, commit and tag, on this machine: make release VERSION=1.2.0
	@$(PYTHON) -m tools.release "$(VERSION)"

lock:  ## write requirements.txt from pyproject.toml; newer versions with UPGRADE=all or UPGRADE=ruff
	@$(PYTHON) -m tools.lock "$(UPGRADE)"

clean:  ## remove everything that a command can make again
	rm -rf _build .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis gptlib.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.complete: requirements.txt pyproject.toml tools/bootstrap.py
	@command -v $(PYTHON) >/dev/null || { echo "There is no '$(PYTHON)' here: install Python 3.10 to 3.13, or name one with 'make book PYTHON=...'." >&2; exit 1; }
	@$(PYTHON) tools/bootstrap.py

_build/html/.complete: .venv/.complete $(SOURCES)
	@$(BIN)/python tools/build.py

_build/lowest/.complete _build/colab/.complete: _build/%/.complete: tests/constraints/%.txt \
		pyproject.toml tools/versions.py
	@command -v $(PYTHON) >/dev/null || { echo "There is no '$(PYTHON)' here: install it, or name it with 'make $* PYTHON=...'." >&2; exit 1; }
	@$(PYTHON) -m tools.versions $*
