# Two commands, `make train` and `make test`: each first sets up what is missing, so a fresh clone needs nothing else.
# Stamps in .venv record what has been set up; `rm -rf .venv` starts over.

ENV ?= cheetah-run
PRESET ?= cpu
# Extra arguments for the target's program: make train ARGS="--seed 2", make test ARGS="-k replay"
ARGS ?=

# The first supported Python that actually runs (a pyenv shim may exist and fail); first those for which dm_control is
# complete.
SUPPORTED = import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 15))
PYTHON ?= $(shell for python in python3.12 python3.11 python3.10 python3.14 python3.13 python3; do \
	$$python -c '$(SUPPORTED)' >/dev/null 2>&1 && echo $$python && break; done)

# An explicitly requested torch is installed even after setup.
ifneq ($(filter command environment,$(firstword $(origin TORCH))),)
ifneq ($(shell cat .venv/torch 2>/dev/null),$(TORCH))
.PHONY: .venv/setup
endif
endif
# torch comes first: without a GPU the version that everything was tested with, with one any compatible version. The
# choice is kept in later setups. If pip's index offers CUDA builds only, they run on a CPU too but are large: pip's
# own variables can name another index, such as PyTorch's index of CPU builds (PIP_EXTRA_INDEX_URL=...).
GPU = $(shell nvidia-smi -L 2>/dev/null | head -n 1)
comma := ,
TORCH ?= $(or $(shell cat .venv/torch 2>/dev/null),$(if $(GPU),torch>=2.8$(comma)<3,torch==2.13.0))

# A clone that was moved or copied together with its .venv would keep running the code at the old path.
ifneq ($(shell cat .venv/place 2>/dev/null),$(CURDIR))
.PHONY: .venv/setup
endif

PY := .venv/bin/python
# One process a core, each with one thread; files stay whole, because their tests share what is slow to make. In one
# process, for a debugger: make test ARGS="-n 0 --pdb".
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --maxprocesses 8 --dist loadfile
PIP := $(PY) -m pip install --quiet --disable-pip-version-check

# Installs Debian packages if this user may (root, or sudo without a password); otherwise fails silently.
apt_install = { [ "$$(id -u)" = 0 ] && sudo= || { sudo -n true 2>/dev/null && sudo="sudo -n"; }; } && \
	command -v apt-get >/dev/null && echo "Installing $(1)" && { $$sudo apt-get update -qq >/dev/null; \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -o DPkg::Lock::Timeout=300 --no-install-recommends $(1) >/dev/null; }

.DEFAULT_GOAL := help
.PHONY: help train test slow-test fault-test test-newest lint docs setup setup-test doctor
.DELETE_ON_ERROR:
.NOTPARALLEL:

help: ## this list
	@echo "make train                train $(ENV) with the preset $(PRESET); run again, it resumes"
	@echo "make train ENV=walker-walk PRESET=curl ARGS=\"--seed 2\""
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-20s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "Variables: ENV, PRESET, ARGS, PYTHON (3.10 to 3.14), TORCH (\"$(TORCH)\")"

train: setup
	$(PY) scripts/train_agent.py --env $(ENV) --preset $(PRESET) $(ARGS)

test: setup-test lint ## the quick tests, ruff and mypy
	$(PYTEST) $(ARGS)

slow-test: setup-test ## the tests that take longer
	$(PYTEST) -m slow $(ARGS)

fault-test: setup-test ## faults injected by kind and counted, for minutes: ARGS="--minutes 60"
	OMP_NUM_THREADS=1 $(PY) tests/faults/campaign.py $(ARGS)

# In an environment of its own, .venv-newest, with the newest release of every dependency, whatever range setup.cfg allows.
# Only three keep their range: dm_control and mujoco, whose newest releases do not go together, and ruff, for its format.
# `pip check` then lists the ranges that are exceeded. torch, gigabytes with CUDA, is chosen by make test-newest TORCH=...
NEWEST_PY := .venv-newest/bin/python
NEWEST = import configparser, re; settings = configparser.ConfigParser(); settings.read("setup.cfg"); \
	lines = settings["options"]["install_requires"] + settings["options.extras_require"]["test"]; \
	print(*(re.match("(dm-control|mujoco|ruff).*|[^<>=;]+", line)[0] for line in lines.split("\n") if line), sep="\n")
test-newest: .venv/opengl .venv/osmesa ## the quick tests with the newest release of every dependency
	@$(PY) -m venv --clear .venv-newest && $(NEWEST_PY) -c '$(NEWEST)' > .venv-newest/requirements.txt
	@echo "Installing the newest releases into .venv-newest: takes minutes"
	@$(NEWEST_PY) -m pip install --quiet --upgrade pip
	@$(NEWEST_PY) -m pip install --quiet --upgrade $(if $(filter file,$(origin TORCH)),torch,'$(TORCH)') \
	  --requirement .venv-newest/requirements.txt
	@$(NEWEST_PY) -m pip install --quiet --no-deps --editable .
	@$(NEWEST_PY) scripts/install_dm_control.py
	-@$(NEWEST_PY) -m pip check
	$(NEWEST_PY) -m pip freeze --exclude-editable > .venv-newest/versions.txt
	OMP_NUM_THREADS=1 $(NEWEST_PY) -m pytest -n auto --maxprocesses 8 --dist loadfile \
	  --deselect tests/test_packaging.py::test_installed_version_lies_in_the_declared_range $(ARGS)

lint: setup-test ## ruff and mypy alone
	$(PY) -m ruff check --quiet .
	$(PY) -m ruff format --check --quiet .
	$(PY) -m mypy

docs: .venv/docs ## the documentation site, into site/ (make docs ARGS=serve shows it)
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs $(or $(ARGS),build --strict --quiet)

doctor: setup ## what this machine has, and how to fix what is wrong
	@$(PY) scripts/doctor.py $(ARGS)

setup: .venv/setup .venv/opengl ## .venv with the package and its dependencies
setup-test: .venv/test .venv/opengl .venv/osmesa

.venv/created:
	@$(PY) -c 'import pip; $(SUPPORTED)' 2>/dev/null && touch $@ && exit; \
	python='$(PYTHON)'; "$$python" -c '$(SUPPORTED)' 2>/dev/null || { \
	  echo "Python must be 3.10 to 3.14, found $$("$${python:-python3}" --version 2>/dev/null || \
	    echo "none"): install one (Debian: python3 and python3-venv), or pass it: make PYTHON=/path/to/python3.11" >&2; exit 1; }; \
	venv=$$("$$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	"$$python" -c 'import ensurepip' 2>/dev/null || { $(call apt_install,$$venv); } || { \
	  echo "$$python cannot create virtual environments: ask for the package $$venv (apt-get install $$venv)" >&2; exit 1; }; \
	echo "Creating .venv with $$("$$python" --version)"; \
	"$$python" -m venv --clear .venv && $(PIP) --upgrade pip && touch $@

.venv/setup: .venv/created setup.cfg pyproject.toml
	@echo "Installing $(TORCH), then the package and its dependencies: takes minutes the first time"
	@$(PIP) '$(TORCH)'
	@$(PIP) --editable '.[vision,mujoco,plot]'
	@$(PY) scripts/install_dm_control.py
	@printf '%s' '$(TORCH)' > .venv/torch; printf '%s' '$(CURDIR)' > .venv/place; touch $@

.venv/test: .venv/setup
	@echo "Installing the test dependencies"
	@$(PIP) --editable '.[vision,mujoco,test]'
	@touch $@

.venv/docs: .venv/test
	@echo "Installing what builds the documentation"
	@$(PIP) --editable '.[docs]'
	@touch $@

# OpenGL for off-screen rendering. Without it only environments that MuJoCo does not render can be trained: warn and go on.
# libopengl0: PyOpenGL looks up OpenGL's functions there with every backend. libosmesa6 is a fallback that newer releases
# of Debian and Ubuntu no longer have.
OPENGL := libegl1 libopengl0 libgl1-mesa-dri
can_render = $(PY) -c 'from envs.rendering import choose_backend; choose_backend()' 2>/dev/null
.venv/opengl: | .venv/setup
	@$(can_render) && touch $@ && exit; $(call apt_install,$(OPENGL)); $(can_render) && touch $@ && exit; \
	$(call apt_install,libosmesa6) 2>/dev/null; $(can_render) && touch $@ && exit; \
	echo "MuJoCo cannot render here (make doctor shows why): ask for the packages, apt-get install $(OPENGL)" >&2

# The tests of the choice of backend need both: a machine that renders by EGL may lack OSMesa. Without it they are skipped.
.venv/osmesa: | .venv/opengl
	@MUJOCO_GL=osmesa $(can_render) || $(call apt_install,libosmesa6 libopengl0) || \
	  echo "OSMesa cannot be installed here: the tests that need it are skipped" >&2
	@touch $@
