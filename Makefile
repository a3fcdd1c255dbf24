# A newcomer's two commands: `make demo` and `make test`. Both set up .venv by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint format types layers unit docs mutants wheel clean

demo: $(VENV)/demo.stamp  ## train on the sample scans, label unseen ones, draw them to out/
	$(BIN)/python examples/segment_lidar.py

test: lint types layers unit wheel  ## everything that CI runs

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or later is needed" if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[examples]'
	@touch $@

$(VENV)/test.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

lint: $(VENV)/test.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(VENV)/test.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(VENV)/test.stamp
	$(BIN)/mypy

layers: $(VENV)/test.stamp
	$(BIN)/lint-imports

unit: $(VENV)/test.stamp  ## tests, doctests, README blocks, examples on small settings
	HYPOTHESIS_PROFILE=ci $(BIN)/python -m pytest -n 2

mutants: $(VENV)/test.stamp  ## break the library in known ways and see that the tests notice
	$(BIN)/python tools/mutants.py

wheel: $(VENV)/test.stamp  ## build the wheel, install it into an empty environment, run the README
	$(BIN)/python tools/check_wheel.py

clean:
	rm -rf $(VENV) build dist out *.egg-info
