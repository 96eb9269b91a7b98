# Every target makes .venv itself when it is missing or when the dependencies changed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready

.PHONY: demo test lint bench bench-kernels docs clean

demo: $(STAMP)
	$(BIN)/interconn demo --out build/demo

# Workers share the two cores: the tests wait on sockets and processes more than they compute.
test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python -m bench.spike --quick

bench-kernels: $(STAMP)
	$(BIN)/python -m bench.kernels

docs: $(STAMP)
	$(BIN)/python -m tests.requirements --write

clean:
	rm -f accel/*.so
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache $(VENV)

$(STAMP): pyproject.toml constraints.txt setup.py $(wildcard accel/csrc/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@
