# make demo    environment, then the main job on aluminium
# make test    environment, then style, types and the whole test suite
# make bench   environments (DFTpy and MACE have their own), then the benchmarks: about two hours

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
DFTPY := benchmarks/.venv/.ready
MACE := benchmarks/.venv-mace/.ready
RUN := runs/aluminium/report.html

.PHONY: demo test bench clean

demo: $(READY)
	$(VENV)/bin/fedens run examples/aluminium.yaml

test: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest

bench: $(READY) $(DFTPY) $(MACE) $(RUN)
	$(VENV)/bin/python benchmarks/descriptors.py
	$(VENV)/bin/python benchmarks/molecule_fields.py
	$(VENV)/bin/python benchmarks/orbital_free_vs_dftpy.py
	$(VENV)/bin/python benchmarks/prediction.py
	$(VENV)/bin/python benchmarks/egg_box.py
	$(VENV)/bin/python benchmarks/transfer.py
	$(VENV)/bin/python benchmarks/loss_terms.py
	$(VENV)/bin/python benchmarks/learning_vs_mace.py
	cd examples && for script in vacancy equation_of_state dynamics; do \
	    ../$(VENV)/bin/python $$script.py --model ../runs/aluminium/model || exit 1; done

$(RUN): $(READY)
	$(VENV)/bin/fedens run examples/aluminium.yaml

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --upgrade --quiet pip
	$(VENV)/bin/python -m pip install --constraint constraints.txt --editable ".[test]"
	touch $(READY)

$(DFTPY): benchmarks/requirements.txt
	$(PYTHON) -m venv benchmarks/.venv
	benchmarks/.venv/bin/python -m pip install --requirement benchmarks/requirements.txt
	touch $(DFTPY)

$(MACE): benchmarks/requirements-mace.txt
	$(PYTHON) -m venv benchmarks/.venv-mace
	benchmarks/.venv-mace/bin/python -m pip install --requirement benchmarks/requirements-mace.txt
	touch $(MACE)

clean:
	rm -rf $(VENV) benchmarks/.venv benchmarks/.venv-mace runs
