# Two commands do everything: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PHOTO ?=
BIN := .venv/bin

.PHONY: demo docs site index test everyday notebooks extras fuzz lint build clean

demo: .venv/ready
	$(BIN)/python examples/demo.py $(PHOTO)

# When every neuron of the built-in model fires, over your photos: make index DATA=folder
DATA ?=
index: .venv/ready
	$(BIN)/neuronwise index --data "$(DATA)" --out index

# The documentation, built into build/site and served at http://127.0.0.1:8000 until Ctrl-C; `make site` only builds.
docs: site
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site 8000

site: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Two processes of one thread each: torch's own threads would fight.
test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m ""

# The tests without the long ones and the notebooks.
everyday: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# The example notebooks, with what they show stored in them.
notebooks: .venv/ready
	$(BIN)/python tools/notebooks.py

# Each extra in an empty environment, with pip and with uv: a table of what came.
extras: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python tools/extras.py

# Inputs of every kind, new ones each time: make fuzz N=10000
N ?= 10000
fuzz: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/long.py $(N)

lint: .venv/ready
	$(BIN)/ruff check src tests benchmarks training examples tools
	$(BIN)/ruff format --check src tests benchmarks training examples tools
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache

# A wheel and a source distribution in dist/, checked.
build: .venv/ready
	rm -rf dist
	$(BIN)/python -m pip install --quiet --disable-pip-version-check build twine
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

# torch first and alone, in the pinned version: a build without CUDA is taken where pip has one at hand.
.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv demo
