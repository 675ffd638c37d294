# memory-circuits: `make app` opens the workbench, `make test` runs all checks. Needs Python 3.11 or newer, pip, make.
#
# Both make the environment on their first run. It is installed again only when the contents of pyproject.toml or
# constraints.txt change: the stamp's name holds their checksum.

PYTHON ?= python3
PORT ?= 8501
ADDRESS ?= 127.0.0.1
# Test workers; each browser test has a server of its own.
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
SUM := $(shell cat pyproject.toml constraints.txt | cksum | cut -d ' ' -f 1)
APP := $(VENV)/app-$(SUM)
TEST := $(VENV)/test-$(SUM)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: app test test-all check format docs screenshots site sbom viewers mutants fuzz-bytes clean help

help: ## list these targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

app: $(APP) ## open the workbench at $(ADDRESS):$(PORT)
	$(BIN)/memory-circuits app --port $(PORT) --address $(ADDRESS)

check: $(TEST) ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: check ## everything but what runs for minutes
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile

test-all: check ## everything
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile -m ""

format: $(TEST) ## write what the formatter wants
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(TEST) ## write docs/commands.md and the README's list of files from the source
	$(BIN)/python -m workbench.commands.reference

screenshots: $(TEST) ## write the documentation's screenshots from the running app (needs Chromium)
	PYTHONPATH=. $(BIN)/python -m tests.browser.screenshots

site: $(TEST) ## build the documentation site into docs/_build; every warning is an error
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs docs/_build

viewers: $(TEST) ## fetch other projects' viewers from PyPI and npm into cache/viewers, for the tests that open exports in them
	PYTHONPATH=. $(BIN)/python -m tests.browser.viewers

sbom: ## write the bill of materials of the pinned environment, dist/sbom.json (CycloneDX); audit it where there is a network
	@$(BIN)/cyclonedx-py --version >/dev/null 2>&1 || $(INSTALL) '.[audit]'
	@mkdir -p dist
	$(BIN)/cyclonedx-py requirements constraints.txt --output-format JSON --output-reproducible --output-file dist/sbom.json
	@$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --progress-spinner off --timeout 10 \
	  || echo "pip-audit found something, or could not reach its data: read what stands above"

mutants: $(TEST) ## change the source here and there and see whether the tests notice (cosmic-ray; about an hour)
	@$(BIN)/cosmic-ray --version >/dev/null 2>&1 || $(INSTALL) '.[mutants]'
	$(BIN)/python -m benchmarks.mutants --rows dist/mutants.jsonl --into docs/reliability-mutants.md

fuzz-bytes: $(TEST) ## bytes guided by coverage into what reads uploads (atheris; a minute for each parser)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(INSTALL) '.[fuzz]'
	$(BIN)/python -m benchmarks.fuzz_bytes --seconds 60

clean: ## remove the environment and caches; runs stay
	rm -rf $(VENV) build dist docs/_build docs/reference *.egg-info .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "memory-circuits needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(APP): | $(BIN)/python
	@echo "installing: a few minutes, once"
	$(INSTALL) '.[encoder,retrieval]'
	@rm -f $(VENV)/app-* && touch $@

$(TEST): | $(BIN)/python
	@echo "installing with what the tests need: a few minutes, once"
	$(INSTALL) '.[docs,encoder,retrieval,test]'
	@rm -f $(VENV)/app-* $(VENV)/test-* && touch $(APP) $@
