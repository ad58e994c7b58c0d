# make lab   open the notebooks in JupyterLab      make run   playlists to named predictions, in the terminal
# make test  run every test                        make setup what the others do first, by themselves
# make notebooks  execute all notebooks and write them back in one form
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# For every target, so that kernels have it too, which may load torch before sasrec_utils: see sasrec_utils/__init__.py.
ifeq ($(origin OMP_WAIT_POLICY),undefined)
GOMP_SPINCOUNT ?= 10000
export GOMP_SPINCOUNT
endif

.PHONY: setup lab run test notebooks lint clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("This project needs Python 3.11 or newer, this is %d.%d: name another one with make PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

lab: setup
	$(BIN)/jupyter lab notebooks --LabApp.default_url=/lab/tree/00_start_here.ipynb

run: setup
	$(BIN)/python -m sasrec_utils run

test: setup
	$(BIN)/python -m ruff check .
	$(BIN)/python tests/notebooks/build.py --check
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

notebooks: setup
	$(BIN)/python tests/notebooks/build.py

lint: setup
	$(BIN)/python -m ruff check .

clean:
	rm -rf $(VENV) data/raw/* data/prepared/* data/models/* data/release
