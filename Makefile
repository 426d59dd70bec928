# Everything runs from .venv, which the stamp files below keep in step with pyproject.toml and constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# demo: further `section.key=value` settings of the recipe.   pytest: further options, such as PYTEST_ARGS="-k layer_maps".
OVERRIDES ?=
PYTEST_ARGS ?=

# docker-build: the image's name, the program that builds, and its further options (--build-arg, -v; see docs/docker.md).
IMAGE ?= distilbert-kd
DOCKER_BUILD ?= docker build
BUILD_ARGS ?=
VOLUMES ?=

# Waiting threads sleep: with as many busy neighbours as cores, spinning ones make a step up to nine times slower.
export OMP_WAIT_POLICY := passive
# One thread for each test process, and no network.
BENCH_ENV := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
TEST_ENV := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

AUDIT := $(BIN)/pip-audit --strict --no-deps --disable-pip --progress-spinner off

FAULT_TESTS := tests/reliability $(addprefix tests/test_,$(addsuffix .py,\
	checkpoints resumable_trainer resuming interrupts processes run_lock storage))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help bench demo test test-slow test-faults reliability quality style audit docker-lint docker-build clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/' | expand -t 20

demo: .venv/demo.stamp  ## distil a real teacher on real film reviews; OVERRIDES="section.key=value ..." changes the recipe
	$(BIN)/python recipes/demo/get_movie_reviews.py build/movie_reviews
	$(BIN)/distilbert-kd run recipes/demo/movie_reviews.yaml $(OVERRIDES)

test: .venv/dev.stamp  ## the tests, without the slow ones
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

test-slow: .venv/dev.stamp  ## the slow tests only
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 -m slow $(PYTEST_ARGS)

test-faults: .venv/dev.stamp  ## runs that are killed, signalled, poisoned or damaged, and started again
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 -m "slow or not slow" $(FAULT_TESTS) --deselect \
		"tests/reliability/test_faults.py::test_what_a_stock_trainer_does" $(PYTEST_ARGS)

reliability: .venv/dev.stamp  ## the faults, tried on a stock Trainer too; writes the table of docs/reliability.md
	$(TEST_ENV) RELIABILITY_PAGE=docs/reliability.md $(BIN)/python -m pytest -n 2 -m "slow or not slow" \
		tests/reliability $(PYTEST_ARGS)

quality: .venv/dev.stamp  ## lint, format, types and docstrings, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pydoclint --quiet distilbert_kd

style: .venv/dev.stamp  ## format, and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# An index that knows nothing, such as a mirror, would pass everything: first it must know of one that is known to all.
audit: .venv/dev.stamp  ## known vulnerabilities of the pinned versions; asks PyPI, so it needs the network
	@echo "PyYAML==5.3" | $(AUDIT) -r /dev/stdin 2>&1 | grep -q "^Found [0-9]" || { echo "audit: expected PyPI to name the" \
		"vulnerabilities of PyYAML 5.3, got none. Nothing was checked: can https://pypi.org be reached?" >&2; exit 1; }
	$(AUDIT) -r constraints.txt

bench: .venv/dev.stamp  ## how fast, against the copied pattern and others; needs GLUE_DIR
	$(BENCH_ENV) $(BIN)/python benchmarks/speed.py --out build/bench
	$(BENCH_ENV) $(BIN)/python benchmarks/scaling.py --out build/bench

docker-lint: .venv/dev.stamp  ## lint the Dockerfile
	$(BIN)/hadolint Dockerfile

docker-build:  ## build the image; DOCKER_BUILD, BUILD_ARGS, VOLUMES and IMAGE: see docs/docker.md
	$(DOCKER_BUILD) $(BUILD_ARGS) $(VOLUMES) -t $(IMAGE) -f Dockerfile .

clean:  ## remove the environment and everything built; runs/ stays
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP_INSTALL) -e '.[demo]'
	touch $@

# Brings what the demo needs too, so `make demo` after it has nothing to install.
.venv/dev.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP_INSTALL) -e '.[dev]'
	touch .venv/demo.stamp $@
