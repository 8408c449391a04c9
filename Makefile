# Each target also works on a fresh machine: dependencies are installed into .venv first, and reused from then on.
# Settings (METRONOME_…) are read from the environment; see docs/configuration.md.

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# Dependencies are reinstalled if pyproject.toml or the folder changes, but not for a new modification time.
WANTED := $(shell (pwd; cat pyproject.toml) | cksum | cut -d ' ' -f 1)
INSTALLED := $(VENV)/installed-$(WANTED)
INSTALLED_DEV := $(VENV)/installed-dev-$(WANTED)
CLIENTS ?= .cache/clients
# Each file of tests runs in one of two processes; ARGS="-n 0" runs all in one, for a debugger.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: serve
serve: $(INSTALLED) ## run Metronome, with ARGS="--port 9000" as options
	@exec $(BIN)/metronome serve $(ARGS)

.PHONY: test
test: $(INSTALLED_DEV) ## run the quick tests, or some: ARGS="tests/cli -k gzip"
	$(PYTEST) --hypothesis-profile=quick -m 'not slow' --ignore=tests/faults $(ARGS)

.PHONY: test-slow
test-slow: $(INSTALLED_DEV) ## run the tests that make test leaves out because they are slow
	$(PYTEST) -m slow --ignore=tests/faults $(ARGS)

.PHONY: test-all
test-all: $(INSTALLED_DEV) ## run all tests but those of test-clients and test-faults
	$(PYTEST) --ignore=tests/faults $(ARGS)

.PHONY: test-clients
test-clients: $(INSTALLED_DEV) ## install other programs' clients into .cache, and test with them
	$(BIN)/python tests/programs/install.py $(CLIENTS)
	METRONOME_CLIENTS=$(CLIENTS) $(PYTEST) tests/programs $(ARGS)

.PHONY: test-faults
test-faults: $(INSTALLED_DEV) ## inject faults into servers and their stores, and look for lost events
	$(PYTEST) tests/faults $(ARGS)

.PHONY: test-clock
test-clock: $(INSTALLED_DEV) ## run the docs' examples and a test of each protocol at other dates, under libfaketime
	$(BIN)/python tests/clock/run.py tests/docs tests/protocols $(ARGS)

.PHONY: check
check: lint test ## lint, types, generated docs, quick tests

.PHONY: lint
lint: $(INSTALLED_DEV) ## check style, types and that generated docs are up to date
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy docs/generate.py
	$(BIN)/mypy docs/screenshot.py
	@# The examples' modules have the same names, so each is checked by itself.
	for example in examples/*/*.py; do $(BIN)/mypy $$example || exit 1; done
	$(BIN)/python docs/generate.py --check
	$(BIN)/python -m kibana --check

.PHONY: format
format: $(INSTALLED_DEV) ## format the code and fix what ruff can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: docs
docs: $(INSTALLED_DEV) ## write the generated docs, dashboards and the minified beacon
	$(BIN)/python docs/generate.py
	$(BIN)/python -m kibana

.PHONY: screenshot
screenshot: $(INSTALLED_DEV) ## take the README's pictures of the page, with Chromium
	$(BIN)/python -m docs.screenshot

.PHONY: bench
bench: $(INSTALLED_DEV) ## measure, and print the table
	@$(PIP) install --group bench
	$(BIN)/python -m bench.run $(ARGS)

.PHONY: bench-growth
bench-growth: $(INSTALLED_DEV) ## measure the store with ever more events, and draw the plot
	@$(PIP) install --group bench
	$(BIN)/python -m bench.growth --plot docs/images/growth.svg $(ARGS)

.PHONY: clean
clean: ## delete generated files and .venv, but no data
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Metronome needs Python 3.11 or newer: name one, as in make PYTHON=python3.12 serve' >&2; exit 1; }
	@echo 'Installing Metronome into $(VENV). This happens once, and takes about a minute.'
	@echo '1/3  creating the environment with $(PYTHON)'
	@$(PYTHON) -m venv $(VENV)
	@echo '2/3  updating pip'
	@$(PIP) install --upgrade 'pip>=25.1'
	@echo '3/3  downloading and installing Metronome and its dependencies'
	@# Setuptools warns about every editable installation. Of pip's output, names of packages and errors are shown.
	@rm -f $(VENV)/failed
	@{ PYTHONWARNINGS=ignore $(BIN)/python -m pip --disable-pip-version-check install --editable . || \
		touch $(VENV)/failed; } | \
		while read -r word name rest; do [ "$$word" != Collecting ] || echo "     $$name"; done
	@test ! -e $(VENV)/failed
	@echo 'Installed.'
	@rm -f $(VENV)/installed-*
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	@echo 'Installing what tests and checks need into $(VENV).'
	@$(PIP) install --group dev
	@touch $@
