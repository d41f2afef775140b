# `make` lists what there is. Every recipe runs in .venv, which `make setup` makes.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
RAW ?=
PARAMS ?=
quoted = '$(subst ','\'',$(1))'
READY := $(VENV)/.ready
REQUIREMENTS := requirements.txt requirements-peers.txt requirements-dev.txt
READY_SPARK := $(VENV)/.ready-spark

.PHONY: help setup repro test test-spark test-full lint audit check-lock movielens compare seeds images table1 benchmark

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 14

setup: $(READY) ## make .venv with the pinned packages

$(READY): $(REQUIREMENTS) constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; $(PYTHON) is %s. Name another: make PYTHON=python3.12 ..." % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(addprefix -r ,$(REQUIREMENTS)) -c constraints.txt
	@touch $@

$(READY_SPARK): $(READY) requirements-spark.txt
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-spark.txt -c constraints.txt
	@touch $@

repro: setup ## build everything that params.yaml asks for; by default on the embedded simulation
	dvc repro
	@python -m experiments.summary
	@echo 'For the `dvc` commands of the README: source $(VENV)/bin/activate'

test: lint ## every check and the suite, in minutes
	OMP_NUM_THREADS=1 python -m pytest -n logical --maxprocesses 4 --dist loadfile

test-spark: $(READY_SPARK) ## the engine Spark against the embedded one; needs Java 17 or newer
	python -m pytest -m 'spark and not full'

test-full: lint $(READY_SPARK) ## also the long loops, and Spark
	python -m pytest -m 'full or not full'

lint: setup
	ruff check .
	ruff format --check .
	mypy

audit: ## look the pinned packages up among known vulnerabilities; one that is not found fails too
	$(PYTHON) -m venv .audit && .audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	.audit/bin/pip-audit --strict --no-deps --disable-pip -r <(cat constraints.txt; grep '==' requirements.txt)

check-lock: setup ## fail if dvc.lock does not belong to the code and params at hand; needs no data
	@plan=$$(dvc repro --dry --allow-missing 2>&1) && ! grep -q 'Running stage' <<< "$$plan" \
	|| { echo "$$plan"; echo 'dvc.lock is stale: run `dvc repro`, commit it and metrics/'; exit 1; }

movielens: setup ## MovieLens 1M as an experiment; commits metrics/movielens/auc.json. RAW=folder spares the download
	python -m experiments.movielens $(if $(RAW),--raw-dir $(call quoted,$(RAW)))

compare: setup ## four initialisations x three seeds, one table. OVER='KEY=A|B' and SEEDS=0,1 compare something else
	python -m experiments.compare $(if $(OVER),--over $(call quoted,$(OVER))) $(if $(SEEDS),--seeds $(call quoted,$(SEEDS)))

seeds: setup ## four ways to choose the seed tasks x 10 to 252 of them x five seeds, on MovieLens 1M. RAW=folder spares the download
	python -m experiments.seeds -S data.source=movielens-1m $(if $(RAW),--raw-dir $(call quoted,$(RAW)))

images: setup ## CIFAR-10 and MNIST: tables 2, 3 and 6; PARAMS=smoke, small, half-hour or full, RAW=folder spares the download
	python -m experiments.images.run $(if $(PARAMS),--params $(call quoted,$(PARAMS))) $(if $(RAW),--raw-dir $(call quoted,$(RAW))) $(if $(JOBS),--jobs $(call quoted,$(JOBS)))

table1: setup ## Table 1 on MovieLens 1M, and its peers; PARAMS=oneseed or small (the simulation), RAW=folder spares the download; writes metrics/table1/table1.*, oneseed.* or small.*
	python -m experiments.table1.run $(if $(PARAMS),--params $(call quoted,$(PARAMS))) $(if $(RAW),--raw-dir $(call quoted,$(RAW))) $(if $(JOBS),--jobs $(call quoted,$(JOBS)))

benchmark: setup ## time this pipeline beside plain implementations; writes docs/performance.md
	python -m benchmarks
