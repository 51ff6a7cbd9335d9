# `make run` and `make test` are all a newcomer needs; everything else is below `make help`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Threads that wait burn a core that another needs; small models are fastest on one thread.
export OMP_WAIT_POLICY ?= passive
# Compiled tests are kept, as compiling them takes a worker of the suite 7 s.
export PYTHONDONTWRITEBYTECODE :=
# GCC 12 gets AMX wrong (llama.cpp PR 26954): llama-cpp-python is built without it, where the compiler knows of it.
NO_AMX := -mno-amx-tile -mno-amx-int8 -mno-amx-bf16
NO_AMX := $(shell echo | $(or $(CC),cc) $(NO_AMX) -E - >/dev/null 2>&1 && echo $(NO_AMX))
export CFLAGS := $(strip $(CFLAGS) $(NO_AMX))
export CXXFLAGS := $(strip $(CXXFLAGS) $(NO_AMX))

.DEFAULT_GOAL := help
.PHONY: help setup run personas test fuzz test-crewai test-langchain test-lm-eval test-mlflow check check-types check-rest format docs wheel-check clean nas train-persona debate evolve compress pipeline llm-bench llm serve adapters runs configs models doctor init

help: ## Show this list
	@awk -F':.*## ' '/^[a-z%-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv, install, pull the embedded model (does nothing the second time)
	@$(BIN)/agentlab models pull smollm2-135m --quiet >/dev/null

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "agentlab needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 3; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing; llama-cpp-python is built from source, which takes some minutes the first time"
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[dev]"
	@touch $@

run: setup ## Search for an architecture on real data: no key, no GPU, no network service
	$(BIN)/agentlab nas --max-iterations 20

SPECIALISTS := capitals sentiment times_table
personas: setup ## Three specialists on the embedded model: train, debate, evolve, ping and evaluate them
	@test -e adapters/times_table || $(BIN)/agentlab train-persona specialists
	$(BIN)/agentlab debate demo $(SPECIALISTS:%=--adapter %)
	$(BIN)/agentlab evolve demo $(SPECIALISTS:%=--parent %)
	$(BIN)/agentlab debate ping $(SPECIALISTS:%=--persona %) --prompt "What do you think of tea?"
	bash .ci/test-lm-eval agentlab debate eval $(SPECIALISTS:%=--adapter %) --tasks mixed --include-path configs/debate/tasks --out .agentlab/eval

test: setup check ## Lint, types, layers, then all tests in two workers
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

SECONDS := 60
fuzz: $(STAMP) ## Run every command on damaged inputs, for example: make fuzz SECONDS=600 ARGS="--corpus csv"
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

test-crewai: ## The adapter for CrewAI, in its own environment
	PYTHON=$(PYTHON) bash .ci/test-crewai

test-langchain: setup ## LangChain's standard test suite on our chat model, in its own environment
	bash .ci/test-langchain

test-lm-eval: setup ## `debate eval` and `compress eval` with lm-evaluation-harness, in its own environment
	bash .ci/test-lm-eval

test-mlflow: setup ## `runs mlflow` with MLflow, in its own environment
	bash .ci/test-mlflow

check: $(STAMP) ## ruff, mypy, import-linter, compileall, generated docs
	@$(MAKE) --no-print-directory --keep-going --jobs 2 check-types check-rest

check-types:
	$(BIN)/mypy --num-workers 2

check-rest:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m compileall -q agentlab cli
	$(BIN)/python docs/generate_cli.py --check

format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP) ## Regenerate docs/cli.md
	$(BIN)/python docs/generate_cli.py

wheel-check: $(STAMP) ## Build the wheel, install it in a clean environment, use it
	bash .ci/wheel-check

nas train-persona debate evolve compress pipeline llm-bench llm serve adapters runs configs models doctor init: setup ## Run a command, for example: make nas ARGS="demo --seed 3"
	$(BIN)/agentlab $@ $(ARGS)

bench-%: setup ## Benchmark against the peer project, for example: make bench-nas-overhead
	$(BIN)/python tests/bench/$(subst -,_,$*).py $(ARGS)

clean: ## Remove the environment and caches; keeps models and runs
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
