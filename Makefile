# make demo   the whole job on rendered scenes: generate, pack, train, evaluate, report
# make test   every test            make check  what CI runs: lint, types, imports, tests
# make quick  the tests without those marked slow (clusters, processes, ranks, benchmarks)
# make test-slurm   the jobs of slurm/, on a cluster of two virtual nodes (Debian, as root)
# make demo-llava   towers compared in a little LLaVA
# make demo-itm     a small cross-encoder with and without hard negatives; 15 minutes
# make constraints  the versions of .venv, for pip install -c constraints.txt
# make bench  speed beside other projects              make clean  what these leave behind

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# The many processes of the tests load compiled modules.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-llava demo-itm test quick test-slurm check constraints bench clean

demo: .venv/installed
	hnc-ds demo

demo-llava: .venv/installed-dev
	hnc-ds demo-llava

demo-itm: .venv/installed-dev
	python experiments/itm.py

# For two cores; two more processes run while tests wait for clusters and signals.
test: .venv/installed-dev
	pytest -q -n 4 --no-loadscope-reorder

quick: .venv/installed-dev
	pytest -q -n 2 --no-loadscope-reorder -m "not slow and not very_slow"

test-slurm: .venv/installed-dev
	pytest -q -rs tests/slurm

check: .venv/installed-dev
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	$(MAKE) test

# Without the builds of one machine (+cpu).
constraints: .venv/installed-dev
	grep '^#' constraints.txt > constraints.new
	pip freeze --exclude hnc-ds | grep == | sed 's/+.*//' >> constraints.new
	mv constraints.new constraints.txt

bench: .venv/installed-dev
	python speed/run.py

clean:
	rm -rf .venv build dist *.egg-info data runs report.html .pytest_cache .mypy_cache .ruff_cache

.venv/installed: setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[report]'
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet -e '.[dev]'
	touch $@
