# make demo       environment, then a kinetic functional learned from small cells of aluminium
# make test       environment, then style, types and the whole test suite: minutes
# make test-fast  the same without the slow tests: two minutes
# make bench      environments (DFTpy and MACE have their own), then the benchmarks: about two hours
# make mutants    mutmut and what it finds that no test notices: hours; for a part of it
#                 make mutants ONLY='fedens.analysis.uncertainty*'

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
DFTPY := benchmarks/.venv/.ready
MACE := benchmarks/.venv-mace/.ready
RUN := runs/aluminium/report.html
MUTMUT := $(VENV)/bin/mutmut
# one worker a core, each of one thread; a worker builds the fixtures that its tests share
PYTEST := $(VENV)/bin/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

.PHONY: demo test test-fast style bench mutants clean

demo: $(READY)
	$(VENV)/bin/fedens run examples/aluminium_small.yaml

test: style
	$(PYTEST)

test-fast: style
	$(PYTEST) -m "not slow"

style: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(READY) $(DFTPY) $(MACE) $(RUN)
	$(VENV)/bin/python benchmarks/trained_thresholds.py
	$(VENV)/bin/python benchmarks/descriptors.py
	$(VENV)/bin/python benchmarks/molecule_fields.py
	$(VENV)/bin/python benchmarks/orbital_free_vs_dftpy.py
	$(VENV)/bin/python benchmarks/kohn_sham.py
	$(VENV)/bin/python benchmarks/gpu.py --kohn-sham
	$(VENV)/bin/python benchmarks/prediction.py
	$(VENV)/bin/python benchmarks/egg_box.py
	$(VENV)/bin/python benchmarks/transfer.py
	$(VENV)/bin/python benchmarks/loss_terms.py
	$(VENV)/bin/python benchmarks/learning_vs_mace.py
	cd examples && for script in vacancy equation_of_state dynamics; do \
	    ../$(VENV)/bin/python $$script.py --model ../runs/aluminium/model || exit 1; done

mutants: $(MUTMUT)
	$(MUTMUT) run $(ONLY)
	$(MUTMUT) results

$(RUN): $(READY)
	$(VENV)/bin/fedens run examples/aluminium.yaml

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --upgrade --quiet pip
	$(VENV)/bin/python -m pip install --constraint constraints.txt --editable ".[test]"
	touch $(READY)

$(MUTMUT): $(READY)
	$(VENV)/bin/python -m pip install mutmut==3.8.1

$(DFTPY): benchmarks/requirements.txt
	$(PYTHON) -m venv benchmarks/.venv
	benchmarks/.venv/bin/python -m pip install --requirement benchmarks/requirements.txt
	touch $(DFTPY)

$(MACE): benchmarks/requirements-mace.txt
	$(PYTHON) -m venv benchmarks/.venv-mace
	benchmarks/.venv-mace/bin/python -m pip install --requirement benchmarks/requirements-mace.txt
	touch $(MACE)

clean:
	rm -rf $(VENV) benchmarks/.venv benchmarks/.venv-mace mutants runs
