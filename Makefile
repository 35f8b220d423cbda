# `make demo` and `make test` set up everything they need in $(VENV), on a machine with python3 and a package index.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: demo test check bench results clean

demo: $(READY)  ## the shipped photographs, with and without the forward start
	$(BIN)/unsample demo --model tiny-imagenet-64 --out runs/demo

test: check  ## everything that CI runs
	$(BIN)/python -m pytest -q -n 2

check: $(READY)  ## style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## speed and memory, as ratios in one run
	$(BIN)/python benchmarks/invert_overhead.py
	$(BIN)/python benchmarks/diagnostics.py
	$(BIN)/python benchmarks/dataset.py

results: $(READY)  ## docs/results/paper: make results DATA=validation.parquet CHECKPOINTS=training/out/snapshots
	$(BIN)/unsample experiment all --model tiny-imagenet-32 --data $(DATA) $(if $(CHECKPOINTS),--checkpoints $(CHECKPOINTS)) --hide-data --out runs/paper/report --cache runs/paper
	cp -R runs/paper/report/. docs/results/paper

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q "$(TORCH)"
	$(BIN)/python -m pip install -q -e ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) runs build dist .pytest_cache .mypy_cache .ruff_cache
