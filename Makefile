# make demo · make test · make test-core · make parity · make check-more · make lint · make docs · make notebooks · make bench · make plan-all   (each makes .venv first if it is missing)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# pip compiles bytecode on one core: all cores do it after it.
INSTALL := $(BIN)/python -m pip install -q --disable-pip-version-check --no-compile -c constraints.txt
COMPILE := $(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true

.PHONY: venv demo test test-core parity check-more lint docs notebooks bench plan-all clean
venv: $(VENV)/.core $(VENV)/.test

$(VENV)/.core: setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	$(COMPILE)
	touch $@

$(VENV)/.test: $(VENV)/.core
	$(INSTALL) -e .[test]
	$(COMPILE)
	touch $@

$(VENV)/.demo: $(VENV)/.core
	$(INSTALL) -e .[demo]
	$(COMPILE)
	touch $@

# Elsewhere than on Linux with a local CPU build, `pip install torch` may bring several GB: set TORCH to change what is installed.
TORCH ?= torch==2.13.0
$(VENV)/.parity: $(VENV)/.test
	$(INSTALL) "$(TORCH)"
	$(INSTALL) -e .[parity]
	$(COMPILE)
	touch $@

demo: $(VENV)/.demo
	$(BIN)/kanana run --config configs/tiny.py --workdir runs/tiny

# Bytecode is kept whatever the environment says: every worker rewrites the tests, every process imports the package.
test: $(VENV)/.test
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -m "not parity and not more" -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0

# Models, training data and configs alone, for Pythons that TensorFlow and the harness do not know yet.
test-core: $(VENV)/.core
	$(INSTALL) -e .[filters,extract] pytest pytest-xdist hypothesis scipy
	$(BIN)/python -m pytest -m "not parity and not more" -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0 \
	    tests/data tests/models tests/losses tests/test_config.py tests/test_files.py

parity: $(VENV)/.parity
	$(BIN)/python -m pytest -m parity -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0

# Against tools that need an environment of their own, which each file of tests/more makes in .venv/more; and what
# compiles long and `make test` tries on other families of models or other chips.
check-more: $(VENV)/.test
	$(BIN)/python -m pytest -m more -rs tests

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ty check --python $(VENV)

# The API reference, from docstrings, as pages in build/api; fails on a warning.
docs: $(VENV)/.test
	$(INSTALL) -e .[docs]
	$(BIN)/python docs/api.py build/api

# Runs the notebooks again and keeps what they show, which `make test` compares with.
notebooks: $(VENV)/.test
	$(BIN)/python tests/notebook_outputs.py

bench: $(VENV)/.parity
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/decode.py
	$(BIN)/python benchmarks/data_pipeline.py

# Every full-size config on a v5p and a v6e slice: minutes of compiling each, kept by content; then the table of docs/results/plans.md.
plan-all: $(VENV)/.test
	$(BIN)/python benchmarks/plan_all.py

clean:
	rm -rf $(VENV) runs build *.egg-info
