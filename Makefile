# make demo    environment, then the main job on aluminium
# make test    environment, then style, types and the whole test suite
# make bench   environment, then the benchmarks (DFTpy in an environment of its own)

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
DFTPY := benchmarks/.venv/.ready

.PHONY: demo test bench clean

demo: $(READY)
	$(VENV)/bin/fedens run examples/aluminium.yaml

test: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest

bench: $(READY) $(DFTPY)
	$(VENV)/bin/python benchmarks/gmp_speed.py
	$(VENV)/bin/python benchmarks/orbital_free_vs_dftpy.py

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --upgrade --quiet pip
	$(VENV)/bin/python -m pip install --constraint constraints.txt --editable ".[test]"
	touch $(READY)

$(DFTPY): benchmarks/requirements.txt
	$(PYTHON) -m venv benchmarks/.venv
	benchmarks/.venv/bin/python -m pip install --requirement benchmarks/requirements.txt
	touch $(DFTPY)

clean:
	rm -rf $(VENV) benchmarks/.venv runs
