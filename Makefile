# Two commands, `make train` and `make test`: each sets up what is missing first, so that a fresh clone needs no other.
# What was set up is stamped in .venv; `rm -rf .venv` starts afresh.

ENV ?= cheetah-run
PRESET ?= cpu
# Further arguments for the program that the target runs: make train ARGS="--seed 2", make test ARGS="-k replay"
ARGS ?=

# The first Python that fits and that really runs (a pyenv shim may exist, and fail).
SUPPORTED = import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))
PYTHON ?= $(shell for python in python3.12 python3.11 python3.10 python3; do \
	$$python -c '$(SUPPORTED)' >/dev/null 2>&1 && echo $$python && break; done)

# A torch that was asked for by name is installed even where set-up was done before.
ifneq ($(filter command environment,$(firstword $(origin TORCH))),)
ifneq ($(shell cat .venv/torch 2>/dev/null),$(TORCH))
.PHONY: .venv/setup
endif
endif
# torch comes first: without a GPU in the version that all was tried with, with one in any that fits. A choice once made
# holds. Where pip's index offers builds with CUDA alone, they run on a CPU too, and are large: pip's own variables name
# another index, such as PyTorch's of CPU builds (PIP_EXTRA_INDEX_URL=...).
GPU = $(shell nvidia-smi -L 2>/dev/null | head -n 1)
comma := ,
TORCH ?= $(or $(shell cat .venv/torch 2>/dev/null),$(if $(GPU),torch>=2.8$(comma)<3,torch==2.13.0))

# A clone that was moved or copied together with its .venv would go on running the old place's code.
ifneq ($(shell cat .venv/place 2>/dev/null),$(CURDIR))
.PHONY: .venv/setup
endif

PY := .venv/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check

# Installs Debian packages where this user may: root, or sudo without a password. Silent and false where not.
apt_install = { [ "$$(id -u)" = 0 ] && sudo= || { sudo -n true 2>/dev/null && sudo="sudo -n"; }; } && \
	command -v apt-get >/dev/null && echo "Installing $(1)" && { $$sudo apt-get update -qq >/dev/null; \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $(1) >/dev/null; }

.DEFAULT_GOAL := help
.PHONY: help train test slow-test lint setup setup-test doctor
.DELETE_ON_ERROR:
.NOTPARALLEL:

help: ## this list
	@echo "make train                train $(ENV) with the preset $(PRESET); started again it resumes"
	@echo "make train ENV=walker-walk PRESET=curl ARGS=\"--seed 2\""
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-20s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "Variables: ENV, PRESET, ARGS, PYTHON (3.10 to 3.12), TORCH (\"$(TORCH)\")"

train: setup
	$(PY) scripts/train_agent.py --env $(ENV) --preset $(PRESET) $(ARGS)

test: setup-test lint ## the quick tests, ruff and mypy
	$(PY) -m pytest $(ARGS)

slow-test: setup-test ## the tests that take longer
	$(PY) -m pytest -m slow $(ARGS)

lint: setup-test ## ruff and mypy alone
	$(PY) -m ruff check --quiet .
	$(PY) -m ruff format --check --quiet .
	$(PY) -m mypy

doctor: setup ## what this machine has, and how to mend what is wrong
	@$(PY) scripts/doctor.py $(ARGS)

setup: .venv/setup .venv/opengl ## .venv with the package and what it needs
setup-test: .venv/test .venv/opengl

.venv/created:
	@$(PY) -c 'import pip; $(SUPPORTED)' 2>/dev/null && touch $@ && exit; \
	python='$(PYTHON)'; "$$python" -c '$(SUPPORTED)' 2>/dev/null || { \
	  echo "Needs Python 3.10, 3.11 or 3.12, and found $$("$${python:-python3}" --version 2>/dev/null || \
	    echo "none"): install one (Debian: python3 and python3-venv), or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }; \
	venv=$$("$$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	"$$python" -c 'import ensurepip' 2>/dev/null || { $(call apt_install,$$venv); } || { \
	  echo "$$python cannot make virtual environments: ask for the package $$venv (apt-get install $$venv)" >&2; exit 1; }; \
	echo "Making .venv with $$("$$python" --version)"; \
	"$$python" -m venv --clear .venv && $(PIP) --upgrade pip && touch $@

.venv/setup: .venv/created setup.cfg pyproject.toml
	@echo "Installing $(TORCH), then the package and what it needs: minutes the first time"
	@$(PIP) '$(TORCH)'
	@$(PIP) --editable '.[vision]'
	@printf '%s' '$(TORCH)' > .venv/torch; printf '%s' '$(CURDIR)' > .venv/place; touch $@

.venv/test: .venv/setup
	@echo "Installing what the tests need"
	@$(PIP) --editable '.[vision,test]'
	@touch $@

# OpenGL without a screen. Without it only environments that MuJoCo does not draw can be trained: so say it and go on.
# libopengl0: PyOpenGL looks for OpenGL's own functions there, whoever draws.
OPENGL := libegl1 libopengl0 libgl1-mesa-dri libosmesa6
can_render = $(PY) -c 'from envs.rendering import choose_backend; choose_backend()' 2>/dev/null
.venv/opengl: | .venv/setup
	@$(can_render) && touch $@ && exit; $(call apt_install,$(OPENGL)); $(can_render) && touch $@ && exit; \
	echo "MuJoCo cannot draw here (make doctor says why): ask for the packages, apt-get install $(OPENGL)" >&2
