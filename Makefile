# `make demo` and `make test` need only Python >= 3.11 and make: both do their own set-up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(wildcard runtime/native/*)
# An editable install knows only the package folders that were there when it was made.
PACKAGES := $(shell find scalenas export runtime -name __init__.py)
STAMP := $(VENV)/.ready

.PHONY: setup demo test format lint types imports tests ci-services wheels bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt CMakeLists.txt tools/setup_venv.py $(NATIVE) $(PACKAGES)
	$(PYTHON) tools/setup_venv.py $(VENV)
	@touch $(STAMP)

demo: setup
	$(BIN)/scalenas-export demo

test: lint types imports tests

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

tests: setup
	$(BIN)/pytest

# Servers that some tests need; without them those tests are skipped.
ci-services: setup
	$(BIN)/python tools/ci_services.py

wheels: setup
	$(BIN)/python tools/build_wheels.py

clean:
	rm -rf build dist $(VENV)
