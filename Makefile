# make demo    the main job on data that ships with scikit-learn, from nothing but Python and pip
# make test    the whole test suite but for the slow marks
# make notebooks  runs every notebook and writes it, with its plots, to build/notebooks
# make docs    builds the documentation, strictly, to build/site
# make check   lint, format, types and the import contract
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
STAMP := $(VENV)/.installed
SUITE := quick

.PHONY: demo install test test-slow test-peers notebooks docs check format clean

demo: $(STAMP)
	$(BIN)/dpnorm bench run $(SUITE)

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "dpnorm needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[vision,mnist,ray,mlflow,notebooks,docs,dev]'
	@touch $(STAMP)

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder -m "not slow and not peers" --durations=10

test-slow: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadscope -m slow --durations=10

# jax-privacy without JAX: its auditing module needs only what the requirements name
$(PEERS)/.installed: tests/peers/requirements.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --requirement tests/peers/requirements.txt
	$(PEERS)/bin/python -m pip install --quiet --no-deps jax-privacy==2.0.0
	@touch $@

test-peers: $(STAMP) $(PEERS)/.installed
	$(BIN)/python -m pytest tests/peers -m peers --durations=5

notebooks: $(STAMP)
	$(BIN)/python -m notebooks

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir build/site

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
