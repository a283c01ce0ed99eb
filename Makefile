# Everything a developer does, one word each: `make help` lists the words.
#
# A machine needs Python 3.11 to 3.14, a C compiler and make. All else goes into .venv (and, to
# compare with Ray, into .venv-ray), build/ and dist/; `make clean` takes it away again.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

DEMO_ARGS ?=
PYTEST_ARGS ?=
CONFORMANCE_ARGS ?=
BENCH_ARGS ?=
RAY_PYTHON ?=
STORM_ARGS ?= --kills 20000
STORM_CONTROL_ARGS ?= --kills 2000 --no-repair

VENV := .venv
PY := $(VENV)/bin/python
RAY_VENV := .venv-ray
RAY_PY := $(RAY_VENV)/bin/python
PIP_FLAGS := --disable-pip-version-check --quiet

ROOMS := $(wildcard ray_lite/*.pyx)
CORE := $(wildcard csrc/*.c csrc/*.h)

.PHONY: help
help: ## list these words
	@echo "make demo and make test need nothing but Python, a C compiler and make."
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | sort | column -t -s '|'


# ---- The environment ---------------------------------------------------------------------------

# `make PYTHON=...` chooses; otherwise the first of these that will do.
PYTHON ?=
CANDIDATES := $(or $(PYTHON),python3.11 python3.12 python3.13 python3.14 python3 python)

define CHECK_PYTHON
import os, sys, sysconfig
name = sys.implementation.name
version = "%d.%d" % sys.version_info[:2]
if name != "cpython" or not (3, 11) <= sys.version_info[:2] <= (3, 14):
    sys.exit("is %s %s; CPython 3.11 to 3.14 is needed" % (name, version))
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    sys.exit("is %s without the GIL; the usual build is needed" % version)
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    sys.exit("is %s without its C headers; install its -dev or -devel package" % version)
try:
    import ensurepip, venv
except ImportError:
    sys.exit("is %s without ensurepip; install its -venv package" % version)
endef
export CHECK_PYTHON

# An environment that is there already and works is kept; one that is broken is made anew.
$(VENV)/.python:
	@if $(PY) -c "$$CHECK_PYTHON" 2>/dev/null && $(PY) -m pip --version >/dev/null 2>&1; then :; \
	else \
	    chosen=; reasons=; \
	    for python in $(CANDIDATES); do \
	        command -v $$python >/dev/null || continue; \
	        if why=$$($$python -c "$$CHECK_PYTHON" 2>&1); then chosen=$$python; break; fi; \
	        reasons="$$reasons\n  $$python $$(printf '%s' "$$why" | head -n 1)"; \
	    done; \
	    if [ -z "$$chosen" ]; then \
	        printf 'No suitable Python found. Looked for: %s' "$(CANDIDATES)" >&2; \
	        printf "$$reasons\n" >&2; \
	        echo 'Install CPython 3.11 to 3.14 with its C headers, or name one: make PYTHON=/path/to/python3' >&2; \
	        exit 1; \
	    fi; \
	    echo "Making $(VENV) with $$($$chosen --version) ($$(command -v $$chosen))"; \
	    $$chosen -m venv --clear $(VENV); \
	fi
	@$(PY) -m pip install $(PIP_FLAGS) --upgrade 'pip>=25.1'
	@touch $@

# One stamp for each dependency group, and one for what setup.py itself imports.
$(VENV)/.group-%: pyproject.toml | $(VENV)/.python
	@echo "Installing the $* tools into $(VENV)"
	@$(PY) -m pip install $(PIP_FLAGS) --group $*
	@touch $@

$(VENV)/.build-requires: pyproject.toml | $(VENV)/.python
	@$(PY) -c "import tomllib; \
	    print(*tomllib.load(open('pyproject.toml', 'rb'))['build-system']['requires'], sep='\n')" >$@
	@$(PY) -m pip install $(PIP_FLAGS) --requirement $@

# What an extra of the package lists, without the package itself.
$(VENV)/.extra-%: pyproject.toml | $(VENV)/.python
	@echo "Installing the extra [$*] into $(VENV)"
	@$(PY) -m pip install $(PIP_FLAGS) $$($(PY) -c "import tomllib; \
	    print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['$*'])")
	@touch $@

$(RAY_VENV)/.python: | $(VENV)/.python
	@$(RAY_PY) -m pip --version >/dev/null 2>&1 || $(PY) -m venv --clear $(RAY_VENV)
	@$(RAY_PY) -m pip install $(PIP_FLAGS) --upgrade 'pip>=25.1'
	@touch $@

$(RAY_VENV)/.installed: pyproject.toml | $(RAY_VENV)/.python
	@echo "Installing Ray into $(RAY_VENV)"
	@$(RAY_PY) -m pip install $(PIP_FLAGS) '.[ray]' --group conformance
	@touch $@


# ---- The package, built in place ---------------------------------------------------------------

LINKED := $(VENV)/.linked
BUILT := build/.built
FLAVOUR := debug=$(RAY_LITE_DEBUG) faults=$(RAY_LITE_FAULTS) sanitize=$(RAY_LITE_SANITIZE)
export RAY_LITE_DEBUG RAY_LITE_FAULTS RAY_LITE_SANITIZE

# Looked at each time, changed only when the flavour does.
.PHONY: FORCE
build/.flavour: FORCE
	@mkdir -p build
	@echo '$(FLAVOUR)' | cmp -s - $@ || echo '$(FLAVOUR)' >$@

# The first time by pip, isolated, exactly as a user's install; from then on only what changed.
# A change of flavour forces, since distutils compares times and not flags.
$(BUILT): $(CORE) $(ROOMS) $(wildcard ray_lite/*.pxd) setup.py pyproject.toml build/.flavour \
          | $(VENV)/.build-requires
	@if [ $(LINKED) -nt pyproject.toml ]; then \
	    echo "Building what changed"; \
	    $(PY) setup.py --quiet build_ext --inplace $(if $(filter build/.flavour,$?),--force); \
	else \
	    echo "Building ray_lite and installing it, editable, into $(VENV)"; \
	    $(PY) -m pip install $(PIP_FLAGS) --quiet --editable . && touch $(LINKED); \
	fi
	@touch $@

.PHONY: build
build: $(BUILT) ## build in place (RAY_LITE_DEBUG=1, RAY_LITE_FAULTS=1, RAY_LITE_SANITIZE=... change how)

.PHONY: demo
demo: $(BUILT) ## sort 1 GiB of records, with generators and with lists (DEMO_ARGS="--size 64MiB")
	$(strip $(PY) -m ray_lite.demo $(DEMO_ARGS))


# ---- The C core by itself ----------------------------------------------------------------------

C_WARNINGS := -Wall -Wextra -Wvla -Wconversion -Wshadow -Wstrict-prototypes -Werror
C_FLAGS := -std=c11 -D_GNU_SOURCE -pthread -Icsrc -Itests/c $(C_WARNINGS)
C_CHECKED := -O1 -g -UNDEBUG -DRL_CHECKS -DRL_FAULTS
C_MODULES := $(patsubst csrc/%.c,%,$(wildcard csrc/rl_*.c))
C_TESTS := $(patsubst tests/c/%.c,%,$(wildcard tests/c/test_*.c))
C_FORMATTED := $(wildcard csrc/*.[ch] tests/c/*.[ch] bench/*.c)

# $(call c_flavour,directory,flags): how a program of tests/c is made in that directory.
define c_flavour
$(1)/%.o: csrc/%.c Makefile
	@mkdir -p $(1)
	$$(CC) $(C_FLAGS) $(2) -MMD -MP -c $$< -o $$@
$(1)/%.o: tests/c/%.c Makefile
	@mkdir -p $(1)
	$$(CC) $(C_FLAGS) $(2) -MMD -MP -c $$< -o $$@
$(addprefix $(1)/,$(C_TESTS) storm): $(1)/%: $(1)/%.o $(C_MODULES:%=$(1)/%.o)
	$$(CC) -pthread $(2) $$^ -o $$@
-include $(wildcard $(1)/*.d)
endef

$(eval $(call c_flavour,build/c,$(C_CHECKED)))
$(eval $(call c_flavour,build/c/asan,$(C_CHECKED) -fsanitize=address -fno-omit-frame-pointer))
$(eval $(call c_flavour,build/c/ubsan,$(C_CHECKED) -fsanitize=undefined -fno-sanitize-recover=all))
$(eval $(call c_flavour,build/c/tsan,$(C_CHECKED) -fsanitize=thread))
$(eval $(call c_flavour,build/c/release,-O2 -DNDEBUG))

# $(call run_each,programs,prefix): run them all, then fail if one failed. 77 says "does not apply".
define run_each
	@test -n "$(strip $(1))" || { echo "There is no tests/c/test_*.c to run." >&2; exit 1; }
	@failed=; for program in $(1); do \
	    code=0; $(2) timeout 300 $$program || code=$$?; \
	    case $$code in \
	    0) echo "passed   $$program" ;; \
	    77) echo "not here $$program" ;; \
	    124) echo "FAILED   $$program: not done after 300 s" >&2; failed=1 ;; \
	    *) echo "FAILED   $$program: exit code $$code" >&2; failed=1 ;; \
	    esac; \
	done; test -z "$$failed"
endef

.PHONY: test-c test-asan test-ubsan test-tsan storm storm-control
test-c: $(C_TESTS:%=build/c/%) ## C unit tests, with checks and kill points
	$(call run_each,$^)

test-asan: $(C_TESTS:%=build/c/asan/%) ## the same under AddressSanitizer
	$(call run_each,$^)

test-ubsan: $(C_TESTS:%=build/c/ubsan/%) ## the same under UndefinedBehaviorSanitizer
	$(call run_each,$^,UBSAN_OPTIONS=print_stacktrace=1)

# ThreadSanitizer's fixed shadow layout and a randomised address space do not always agree.
test-tsan: $(C_TESTS:%=build/c/tsan/%) ## the same under ThreadSanitizer, threads as processes
	$(call run_each,$^,TSAN_OPTIONS=halt_on_error=1 $$(setarch -R true 2>/dev/null && echo setarch -R))

storm: build/c/storm ## SIGKILLs at random moments, a full audit after each (STORM_ARGS="--kills N")
	build/c/storm $(STORM_ARGS)

# A storm that finds nothing proves something only if it finds what is there. 1 = "audit failed".
storm-control: build/c/storm ## the storm with repair switched off, which must fail its audit
	@code=0; build/c/storm $(STORM_CONTROL_ARGS) || code=$$?; \
	if [ $$code -eq 1 ]; then echo "As it should be: without repair the audit fails."; \
	else echo "Exit code $$code; without repair the audit had to fail (1)." >&2; exit 1; fi


# ---- Tests in Python ---------------------------------------------------------------------------

.PHONY: test test-py conformance-ray
test: test-c test-py ## all tests but those that need Ray, a sanitizer or a storm

test-py: $(BUILT) $(VENV)/.group-test ## the Python half of them (PYTEST_ARGS="-k name")
	$(strip $(PY) -m pytest $(PYTEST_ARGS))

conformance-ray: $(BUILT) $(RAY_VENV)/.installed ## tests/conformance on Ray itself: do we mean the same?
	$(RAY_PY) -m pytest tests/conformance --engine ray --reruns 2 $(CONFORMANCE_ARGS)


# ---- Benchmarks --------------------------------------------------------------------------------

build/bench/limits: bench/limits.c Makefile
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -O2 $< -o $@

.PHONY: bench bench-instructions
# The order matters: Ray may be installed while nothing is measured.
bench: $(BUILT) $(VENV)/.extra-bench build/bench/limits \
       $(if $(RAY_PYTHON),,$(RAY_VENV)/.installed) ## us, Ray and others side by side (RAY_PYTHON=... BENCH_ARGS=--quick)
	$(strip $(PY) bench/run.py --ray-python $(or $(RAY_PYTHON),$(RAY_PY)) $(BENCH_ARGS))

build/bench/instructions: bench/instructions.c $(C_MODULES:%=build/c/release/%.o) Makefile
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -O2 -DNDEBUG $(filter %.c %.o,$^) -o $@

bench-instructions: $(BUILT) build/bench/instructions ## instructions of submit, take, seal, put, get (needs valgrind)
	$(PY) bench/instructions.py build/bench/instructions


# ---- What a developer would forget -------------------------------------------------------------

.PHONY: lint format types dist hooks clean
lint: $(VENV)/.group-lint $(C_MODULES:%=build/c/release/%.o) ## formatting, lint, spelling, C warnings
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(if $(C_FORMATTED),$(VENV)/bin/clang-format --dry-run -Werror $(C_FORMATTED))
	$(VENV)/bin/codespell

format: $(VENV)/.group-lint ## let the formatters have their way
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format
	$(if $(C_FORMATTED),$(VENV)/bin/clang-format -i $(C_FORMATTED))

types: $(BUILT) $(VENV)/.group-lint ## mypy --strict, and the stubs against the compiled rooms
	$(PY) -m mypy --strict ray_lite
	MYPYPATH=bench $(PY) -m mypy --strict $(wildcard bench/*.py)
	$(PY) -m mypy.stubtest $(patsubst ray_lite/%.pyx,ray_lite.%,$(ROOMS)) \
	    --allowlist tests/stubtest-allowlist.txt --ignore-unused-allowlist --ignore-disjoint-bases

dist: $(VENV)/.group-dist ## sdist, and the wheel made from it, in dist/
	rm -rf dist
	env -u RAY_LITE_DEBUG -u RAY_LITE_FAULTS -u RAY_LITE_SANITIZE $(PY) -m build --outdir dist

hooks: $(VENV)/.group-lint ## have git run the checks before each commit
	$(VENV)/bin/pre-commit install

clean: ## take away all that was made here
	rm -rf build dist $(VENV) $(RAY_VENV) *.egg-info ray_lite/*.so
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find ray_lite tests bench -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
