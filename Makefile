# Everything a person or a machine does with this checkout. `make` alone lists it.
# Needs make and Python 3.11 or newer; fetches the rest into .tools/ and .venv/ of this folder.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test coverage torture torture-long check wheel bench bench-report demo-eval demo-train system-deps env clean
# A foreign environment must not decide which code is tested.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

# A uv that answers (a version manager's shim may be there and not work), otherwise one of our own.
UV := $(shell if uv --version >/dev/null 2>&1; then command -v uv; else echo .tools/uv/bin/uv; fi)
PYTHON ?= $(shell for each in python3.13 python3.12 python3.11 python3; do \
	if $$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo $$each; break; fi; done)
BIN := .venv/bin
ENV := .venv/.ready
ROOT := $(CURDIR)
# On Linux MLX compiles kernels with g++ at run time, which a plain machine has not.
TESTING := $(shell if [ "$$(uname -s)" = Linux ]; then echo MLX_DISABLE_COMPILE=1; fi)
# Where there is a g++, evaluation and training use it: they are faster with it.
PLAIN := $(if $(shell command -v g++),,$(TESTING))
MINIMUM := 90
MEASURED = $(TESTING) COVERAGE_FILE=$(ROOT)/.coverage $(BIN)/coverage run -m pytest
# Handed on to the tool of the target: make test ARGS="-k ledger"
ARGS ?=

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

demo: $(ENV) ## see the daemon do its job on the embedded models, in about a minute
	@echo "==> Running the demo: a daemon in a folder of its own, with the two embedded models."
	$(BIN)/mlxd demo $(ARGS)

test: $(ENV) system-deps ## run all tests and print the coverage (fails under 90 %)
	@echo "==> Running all tests, two at a time; last the few that judge times, alone. Coverage: of the unit tests' children too."
	@rm -f .coverage .coverage.*
ifeq ($(ARGS),)
	$(MEASURED) -n 2 tests/unit tests/test_contract_*.py
	COVERAGE_OF_CHILDREN=_exit $(MEASURED) -n 2 --dist loadfile -m "not alone" tests/acceptance tests/integration
	COVERAGE_OF_CHILDREN=_exit $(MEASURED) -m alone tests/acceptance tests/integration
else
	$(MEASURED) $(ARGS)
endif
	@$(MAKE) --no-print-directory coverage

coverage: $(ENV) ## print the coverage of the last test run
	@echo "==> Coverage of daemon, jobs, plugins and launchd; at least $(MINIMUM) % of lines."
	@if ls .coverage.* >/dev/null 2>&1; then $(BIN)/coverage combine --quiet; fi
	$(BIN)/coverage report --fail-under=$(MINIMUM)

torture: $(ENV) system-deps ## attack every promise; each attack has a control that must be caught (4 to 9 minutes)
	@echo "==> Torturing mlxd, every fault a few times. One row alone: make torture ARGS='--rows kill'"
	$(TESTING) PYTHONPATH=tests $(BIN)/python -m torture --tier short --jobs 2 $(ARGS)

torture-long: $(ENV) system-deps ## the same with the numbers that the promises are stated by (about two hours)
	@echo "==> Torturing mlxd for about two hours. Close what else is busy: the times are part of the promises."
	$(TESTING) PYTHONPATH=tests $(BIN)/python -m torture --tier long --jobs 2 $(ARGS)

check: $(ENV) ## lint, format, types, and the direction of the imports
	@echo "==> Checking style (ruff), types (mypy) and the layers (import-linter)."
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

wheel: $(ENV) ## build the wheel, install it elsewhere, and run the fast tests against it
	@echo "==> Building the wheel and the source distribution."
	@rm -rf dist build/wheel && mkdir -p build/wheel/elsewhere
	$(UV) build --quiet --out-dir dist
	$(BIN)/check-wheel-contents dist/*.whl
	@echo "==> Installing it into a clean environment, without torch, in the versions of uv.lock."
	@echo "torch; sys_platform == 'never'" > build/wheel/overrides.txt
	@$(UV) export --quiet --locked --no-hashes --no-emit-project --output-file build/wheel/constraints.txt
	@$(UV) venv --quiet --python $(BIN)/python build/wheel/venv
	$(UV) pip install --quiet --python build/wheel/venv/bin/python \
		--overrides build/wheel/overrides.txt --constraints build/wheel/constraints.txt \
		dist/*.whl pytest pytest-timeout pytest-xdist hypothesis httpx coverage
	@echo "==> Running the fast tests against what was installed, from another folder."
	@cd build/wheel/elsewhere && ../venv/bin/python -I -c 'import daemon, sys; \
		sys.exit(None if "site-packages" in daemon.__file__ else f"not the wheel: {daemon.__file__}")'
	cd build/wheel/elsewhere && $(TESTING) ../venv/bin/python -Im pytest -c $(ROOT)/pyproject.toml --rootdir $(ROOT) \
		-p no:cacheprovider -n 2 -m "not models and not slow" $(ARGS) --ignore $(ROOT)/tests/unit/torture \
		$(ROOT)/tests/unit $(ROOT)/tests/test_contract_*.py

bench: $(ENV) ## measure mlxd against what it is built on, area by area (about 40 minutes)
	@echo "==> Measuring. Close what else is busy: the figures are ratios of runs taken in turn, but still."
	$(BIN)/python bench/run.py $(ARGS)

bench-report: $(ENV) ## print the tables of what was measured last, as Markdown
	@$(BIN)/python bench/report.py $(ARGS)

demo-eval: $(ENV) system-deps ## measure the embedded models on held-out data
	@echo "==> Evaluating the demo models on sentences and slots that they were never trained on."
	$(PLAIN) $(BIN)/python demo/eval_whisper.py $(ARGS)
	$(PLAIN) $(BIN)/python demo/eval_lm.py $(ARGS)

demo-train: $(ENV) system-deps ## make the embedded models anew (hours on a CPU)
	@echo "==> Training the demo models from data that the scripts make themselves."
	$(PLAIN) $(BIN)/python demo/train_whisper.py $(ARGS)
	$(PLAIN) $(BIN)/python demo/train_lm.py $(ARGS)
	$(BIN)/python demo/make_samples.py

env: $(ENV) ## set up .venv as uv.lock says

$(ENV): pyproject.toml uv.lock | $(UV)
	@echo "==> Setting up .venv with exactly the packages of uv.lock (a few minutes the first time)."
	$(UV) sync --locked
	@touch $@

.tools/uv/bin/uv:
	@echo "==> uv is not installed; getting it into .tools/ of this folder (delete the folder to be rid of it)."
	@if [ -z "$(PYTHON)" ]; then echo "mlxd needs Python 3.11 or newer, and there is none in the PATH." >&2; exit 1; fi
	@$(PYTHON) -m venv .tools/uv || { rm -rf .tools/uv; \
		echo "Python cannot make environments here. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	.tools/uv/bin/pip install --quiet --disable-pip-version-check uv

# Only tests and the training use these programs, so their absence is a note, never a failure.
system-deps: ## get espeak-ng, plistutil and strace for the tests where apt-get may do so
	@missing=""; \
	command -v espeak-ng >/dev/null || missing="$$missing espeak-ng"; \
	command -v plistutil >/dev/null || command -v plutil >/dev/null || missing="$$missing libplist-utils"; \
	[ "$$(uname -s)" != Linux ] || command -v strace >/dev/null || missing="$$missing strace"; \
	[ -n "$$missing" ] || exit 0; \
	as_root=none; \
	if command -v apt-get >/dev/null; then \
		if [ "$$(id -u)" = 0 ]; then as_root=""; elif sudo -n true 2>/dev/null; then as_root="sudo -n"; fi; \
	fi; \
	if [ "$$as_root" != none ]; then \
		echo "==> Installing test helpers with apt-get:$$missing"; \
		export DEBIAN_FRONTEND=noninteractive; \
		$$as_root apt-get install -y -qq $$missing >/dev/null 2>&1 || { $$as_root apt-get update -qq && \
			$$as_root apt-get install -y -qq $$missing >/dev/null; } && exit 0; \
	fi; \
	echo "==> NOTE: not installed here:$$missing. The tests that need them are skipped; install them to run these too."

clean: ## remove what was built and measured, keep .venv and .tools
	@echo "==> Removing build products and caches."
	@rm -rf dist build .coverage .coverage.* htmlcov .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find daemon jobs plugins launchd tests bench demo -name __pycache__ -type d -prune -exec rm -rf {} +
