# What can be done here: make setup | demo | test | thorough | check | bench | lock
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: help setup demo test thorough check format docs bench lock clean

help:
	@echo "make demo    the whole loop on the embedded model: demo/report.html and demo/results.json"
	@echo "make test    the test suite (minutes)"
	@echo "make thorough    tests of many processes, and notebooks (minutes); CI runs both"
	@echo "make check   style and types"
	@echo "make bench   the benchmarks"
	@echo "make docs    write the help text into the README anew"
	@echo "make setup   only install what is needed into $(VENV)"
	@echo "make lock    choose new versions of everything: writes requirements.lock"

# The stamp is newer than the lock file once everything in it is installed.
setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--config-settings editable_mode=compat --editable .
	@touch $(STAMP)

demo: setup
	$(BIN)/hfi demo --out demo

# One worker a core; the tests of a file stay together, since they share what is costly to set up.
test: setup
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

# What starts and kills many processes, and whole notebooks: longer than anybody waits for, so CI does.
thorough: setup
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile -m thorough

check: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	$(BIN)/python -m tests.test_readme

bench: setup
	set -e; for script in tests/benchmarks/bench_*.py; do $(BIN)/python $$script; done

# New versions: everything pyproject.toml asks for, chosen anew in an empty environment, with the torch named here.
# The "+cpu" of a CPU build of torch is cut off, so that the same file serves on every machine.
TORCH ?= torch==2.13.0
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check "$(TORCH)" "setuptools>=77"
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check ".[test,mini]"
	{ echo "# Every version, tests included. Made by: make lock"; \
	  build/lock/bin/python -m pip freeze --all --exclude hfi --exclude pip --exclude wheel | sed -E 's/\+cpu$$//'; \
	} > build/requirements.lock
	mv build/requirements.lock requirements.lock
	rm -rf build/lock

clean:
	rm -rf build .pytest_cache .mypy_cache .ruff_cache
