# Two commands are all a fresh machine needs: `make demo` and `make test`. Each makes .venv and fills it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
export OMP_WAIT_POLICY ?= passive

.PHONY: demo test lint bench bench-peers docs clean

$(VENV)/.core: constraints.txt pyproject.toml
	@echo "setting up $(VENV): downloading and installing PyTorch and ONNX Runtime may take some minutes"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch==2.13.0
	$(PIP) install -q -c constraints.txt -e ".[onnxruntime]"
	touch $@

$(VENV)/.test: $(VENV)/.core
	$(PIP) install -q -c constraints.txt -e ".[test,docs,bench]"
	touch $@

demo: $(VENV)/.core
	$(BIN)/kompakt demo -o kompakt-demo
	@echo "to type these commands, activate the environment first: . $(BIN)/activate"

test: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow"

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks.run

bench-peers: $(VENV)/.test
	$(BIN)/python -m benchmarks.run_peers

docs: $(VENV)/.test
	$(BIN)/sphinx-build -W -q -b html docs docs/_build/html

clean:
	rm -rf $(VENV) kompakt-demo docs/_build
