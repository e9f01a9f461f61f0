# make demo   two real studies through the node, on this machine      make test   everything that must hold
# make serve  the node on its defaults, on loopback                   make bench  how fast it is, beside peers in the same run
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
PEERS ?= install  # "skip": do not install Debian packages

.PHONY: demo serve test lint bench figures clean

demo: $(VENV)/installed
	$(BIN)/dicom-node demo $(if $(KEEP),--keep)

serve: $(VENV)/installed
	$(BIN)/dicom-node models --fetch
	$(BIN)/dicom-node serve $(if $(CONFIG),--config $(CONFIG))

test: $(VENV)/tested
	$(if $(filter skip,$(PEERS)),,sh deploy/install-peers.sh)
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest $(TESTS)

lint: $(VENV)/tested
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(VENV)/tested
	$(BIN)/python -m tests.benchmarks $(NAME) $(if $(ROUNDS),--rounds $(ROUNDS))

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# torch first and pinned: whatever else asks for it finds it there.
$(VENV)/installed: $(VENV)/created pyproject.toml constraints.txt
	$(PIP) torch
	$(PIP) --editable .
	@touch $@

$(VENV)/tested: $(VENV)/installed
	$(PIP) --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) .benchmarks demo-out build dist
