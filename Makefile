# make demo    set everything up and run the main job, visibly
# make test-long  what takes minutes each: many boots, a slow KVM
# make test    set everything up and run all tests
# make build   only the environment and the compiled modules
# make bench   the benchmarks beside QEMU, as ratios
# make lint    ruff and mypy

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# The modules are compiled in place by then; pip would compile all of them once more.
INSTALL := VMRUN_EXT=none $(PY) -m pip install --quiet --no-build-isolation --config-settings editable_mode=compat
SOURCES := $(shell find accel vmrun -name '*.pyx' -o -name '*.pxd' -o -name '*.pyx.in') setup.py pyproject.toml

.PHONY: demo test test-fast test-long build bench lint clean distclean

demo: build
	@sh tools/need-packages.sh firmware
	@$(PY) tools/demo.py

test: build
	@sh tools/need-packages.sh firmware guests
	@sh tools/fetch-i386.sh
	@sh tools/fetch-yaml-server.sh
	@$(INSTALL) -e '.[test,dev]'
	$(PY) -m pytest -n 2 --dist loadfile

test-long: build
	$(PY) -m pytest -m long

build: $(VENV)/.built

$(VENV)/.created:
	@sh tools/need-packages.sh compiler
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet 'setuptools>=77' wheel 'Cython>=3.0'
	@touch $@

$(VENV)/.built: $(VENV)/.created $(SOURCES) $(wildcard bin/*)
	@echo "compiling the C-level modules (a few minutes the first time)"
	@$(PY) tools/compile.py
	@$(PY) -m compileall -q accel vmrun
	@$(INSTALL) -e .
	@$(PY) tools/prepare.py
	@touch $@

bench: build
	@for script in benchmarks/*.py; do echo "== $$script"; $(PY) $$script || exit 1; done

lint: build
	@$(INSTALL) -e '.[dev]'
	$(PY) -m ruff check .
	$(PY) tools/stubs.py

clean:
	rm -rf build dist *.egg-info vmrun/ready
	find accel vmrun -name '*.so' -delete -o -name '*.c' -delete -o -name together.txt -delete

distclean: clean
	rm -rf $(VENV)
