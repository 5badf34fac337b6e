# Everything runs in a virtual environment of its own: .venv, made on first use.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check lint bench scale torture clean

# Real DICOM objects for the demo and the tests: the files that this package carries, without its dependencies.
DATA := heudiconv==1.5.1

.venv/.installed: pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(DATA)
	touch $@

demo: .venv/.installed  ## the main job, in front of you
	$(BIN)/xdsi demo

test: .venv/.installed  ## the whole test suite
	$(BIN)/python -m pytest

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test  ## what continuous integration runs

bench: .venv/.installed  ## speed and memory, each beside its physical limit
	$(BIN)/python -m benchmarks

scale: .venv/.installed  ## the registry at many sizes, on both databases
	$(BIN)/python -m benchmarks.scale --documents 10000,100000

torture: .venv/.installed  ## kill real servers under load (Debian: gcc libc6-dev etcd-server etcd-client patroni postgresql)
	$(BIN)/python -m pytest torture

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis demo-out benchmarks/results
