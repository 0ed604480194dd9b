# make demo    the main job on data that ships with scikit-learn, from nothing but Python and pip
# make test    the whole test suite but for the slow marks
# make check   lint, format, types and the import contract
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SUITE := benchmarks/quick.toml

.PHONY: demo install test test-slow check format clean

demo: $(STAMP)
	$(BIN)/dpnorm bench run $(SUITE)

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "dpnorm needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[vision,mnist,dev]'
	@touch $(STAMP)

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadscope -m "not slow" --durations=10

test-slow: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadscope -m slow --durations=10

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs build *.egg-info
