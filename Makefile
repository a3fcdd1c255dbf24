# A newcomer's two commands: `make demo` and `make test`. Both set up .venv by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

LOWEST := .venv-lowest
PYTEST := -m pytest -n 2 --dist loadgroup

.PHONY: demo test quick lint format types layers unit lowest fuzz-files mutants wheel docs release clean

demo: $(VENV)/demo.stamp  ## train on the sample scans, label unseen ones, draw them to out/
	$(BIN)/python examples/segment_lidar.py

test: lint types layers unit wheel  ## everything that CI runs

quick: $(VENV)/test.stamp  ## the tests that are not marked slow, with fewer random examples
	HYPOTHESIS_PROFILE=quick $(BIN)/python $(PYTEST) -m "not slow"

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
	HYPOTHESIS_PROFILE=ci $(BIN)/python $(PYTEST)

lowest: pyproject.toml constraints-lowest.txt  ## the same with the lowest versions that are declared
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable '.[test]'
	HYPOTHESIS_PROFILE=quick $(LOWEST)/bin/python $(PYTEST)

fuzz-files: $(VENV)/test.stamp  ## read 10,000 changed files of every format, with little memory
	$(BIN)/python tests/io/mutations.py --count 10000

mutants: $(VENV)/test.stamp  ## break the library in known ways and see that the tests notice
	$(BIN)/python tools/mutants.py

wheel: $(VENV)/test.stamp  ## build the wheel, install it into an empty environment, run the README
	$(BIN)/python tools/check_dist.py

docs: $(VENV)/test.stamp  ## the site, out/site; `python -m http.server -d out/site` shows it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

release: $(VENV)/test.stamp  ## wheel and source archive, both checked, then the tag (DRY_RUN=1: no tag)
	$(BIN)/python tools/release.py $(if $(DRY_RUN),--dry-run)

clean:
	rm -rf $(VENV) $(LOWEST) build dist out *.egg-info
