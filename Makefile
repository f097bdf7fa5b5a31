# Every target is a wish; `make` alone lists them.
PYTHON ?= python3
ENGINE ?= vllm
VENV := .venv
BIN := $(VENV)/bin
PIP_FLAGS := --quiet --disable-pip-version-check

# A machine with an NVIDIA GPU gets vLLM's own package, and three engines that share the first GPU's memory.
ifneq ($(wildcard /dev/nvidiactl),)
HARDWARE := gpu
export BITLADDER_VLLM__ENV ?= {}
export BITLADDER_VLLM__ARGS ?= ["--max-model-len", "2048", "--gpu-memory-utilization", "0.28"]
else
HARDWARE := cpu
endif

.PHONY: help install engine-env quantize-env autoawq-env quick-checkpoints checkpoints demo up test sandbox servers test-fast matrix long clients clients-env chaos soak durability bench bench-env bench-full recipes check fuzz format lock clean
help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed ## set up .venv
$(VENV)/.installed: requirements/dev.lock pyproject.toml
	@echo "setting up $(VENV): about a minute, and 300 MB of downloads"
	@$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(PIP_FLAGS) --no-deps -r requirements/dev.lock
	$(BIN)/pip install $(PIP_FLAGS) --no-deps --no-build-isolation -e .
	@touch $@

engine-env: .venv-engine/.installed ## set up .venv-engine: vLLM, for the GPU where there is one
.venv-engine/.installed: requirements/cpu.lock requirements/example.lock
	@echo "setting up .venv-engine: about two minutes, and 800 MB of downloads (several GB where PyTorch comes with CUDA)"
	@$(PYTHON) -m venv .venv-engine
ifeq ($(HARDWARE),gpu)
	.venv-engine/bin/pip install $(PIP_FLAGS) vllm==0.32.0
else
	.venv-engine/bin/pip install $(PIP_FLAGS) torch==2.13.0
	.venv-engine/bin/pip install $(PIP_FLAGS) --no-deps -r requirements/cpu.lock
endif
	.venv-engine/bin/pip install $(PIP_FLAGS) --no-deps -r requirements/example.lock
	@touch $@

quantize-env: .venv-quantize/.installed ## set up .venv-quantize: the quantizer
.venv-quantize/.installed: requirements/quantize.lock
	$(PYTHON) -m venv .venv-quantize
	.venv-quantize/bin/pip install $(PIP_FLAGS) torch==2.13.0
	.venv-quantize/bin/pip install $(PIP_FLAGS) --no-deps -r requirements/quantize.lock
	@touch $@

autoawq-env: .venv-autoawq/.installed ## set up .venv-autoawq: AutoAWQ, the second quantizer for INT4
.venv-autoawq/.installed: requirements/autoawq.lock
	$(PYTHON) -m venv .venv-autoawq
	.venv-autoawq/bin/pip install $(PIP_FLAGS) torch==2.13.0
	.venv-autoawq/bin/pip install $(PIP_FLAGS) --no-deps -r requirements/autoawq.lock
	@touch $@

quick-checkpoints: engine-env ## round what the example ladder lacks, in half a minute, until `make checkpoints` has run
	.venv-engine/bin/python -m calibration checkpoints --quick

checkpoints: quantize-env ## make the tier checkpoints of the example ladder (cached)
	.venv-quantize/bin/python -m calibration checkpoints

# Two environments are set up at once: pip uses one core.
NEEDED := install $(if $(filter vllm,$(ENGINE)),engine-env)

up: ## run the stack until Ctrl-C (ENGINE=echo: without a model)
	@$(MAKE) --no-print-directory -j2 $(NEEDED)
	$(if $(filter vllm,$(ENGINE)),@$(MAKE) --no-print-directory quick-checkpoints)
	$(BIN)/bitladder up --engine $(ENGINE)

demo: ## the main job: 40 prompts through all tiers, then a burst (ENGINE=echo: without a model)
	@$(MAKE) --no-print-directory -j2 $(NEEDED)
	$(if $(filter vllm,$(ENGINE)),@$(MAKE) --no-print-directory quick-checkpoints)
	$(BIN)/bitladder demo --engine $(ENGINE)

# Files of tests side by side, in their order: two to a core, because half of a test's time is a wait. Real engines
# come alone: beside them nothing else has the cores it counts on.
TEST_WORKERS ?= 4
SIDE_BY_SIDE := -m "not vllm and not long and not clients" -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

test: install engine-env checkpoints sandbox servers ## set up and pass all tests, those on real vLLM included
	$(BIN)/python -m pytest -m vllm
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

# What tests start beside the wheel's Valkey, by command and by Debian's package: the oldest Redis that is supported,
# proxies, clients and a browser of other people's, and Prometheus' own check of metrics.
SERVERS := chromium:chromium redis-server:redis-server nginx:nginx haproxy:haproxy caddy:caddy curl:curl promtool:prometheus javac:openjdk-17-jdk-headless
servers: ## install the servers and clients that tests start (their services stay as they are)
	@for pair in $(SERVERS); do command -v $${pair%:*} >/dev/null || RUNLEVEL=1 apt-get install -y --no-install-recommends $${pair#*:} || echo "$${pair#*:} is missing: its tests are skipped"; done

sandbox: ## install bubblewrap, in which `calibrate evaluate` runs code that models wrote
	@command -v bwrap >/dev/null || apt-get install -y bubblewrap || echo "bubblewrap is missing: Monty stands in for it, and its tests are skipped"

test-fast: install ## the tests that need no model
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

# The interpreter of each version: on the path, or pyenv's.
PYTHONS := $(shell sed -n 's/.*"Programming Language :: Python :: \(3[.0-9]*\)".*/\1/p' pyproject.toml)
matrix: ## test-fast on each Python of the classifiers that is installed, each in an environment of its own
	@for version in $(PYTHONS); do \
		python=; for path in python$$version $$HOME/.pyenv/versions/$$version.*/bin/python; do \
			$$path -c "" 2>/dev/null && python=$$path && break; done; \
		[ -n "$$python" ] || { echo "Python $$version: not installed here"; continue; }; \
		echo "Python $$version: $$python"; \
		$(MAKE) --no-print-directory test-fast PYTHON=$$python VENV=.venv-matrix/$$version || failed="$$failed $$version"; \
	done; [ -z "$$failed" ] || { echo "failed under$$failed"; exit 1; }

long: install ## the tests that take minutes: outages in a row at the shipped lease
	$(BIN)/python -m pytest -m long

CLIENTS := $(patsubst requirements/clients/%.txt,%,$(wildcard requirements/clients/*.txt))
clients-env: install $(CLIENTS:%=.venv-clients/%/.installed) .venv-clients/node/.installed ## set up other people's clients, an environment each (2 GB)
.venv-clients/%/.installed: requirements/clients/%.txt
	$(PYTHON) -m venv .venv-clients/$*
	$(if $(filter guidellm,$*),.venv-clients/$*/bin/pip install $(PIP_FLAGS) torch==2.13.0)
	.venv-clients/$*/bin/pip install $(PIP_FLAGS) --no-deps -r $<
	@touch $@
.venv-clients/node/.installed: tests/e2e/clients/programs/package-lock.json
	@mkdir -p .venv-clients/node && cp tests/e2e/clients/programs/package*.json .venv-clients/node
	@command -v npm >/dev/null || apt-get install -y --no-install-recommends nodejs npm || echo "npm is missing: its clients are skipped"
	cd .venv-clients/node && { ! command -v npm >/dev/null || npm ci --silent --no-audit --no-fund; }
	@touch $@

clients: clients-env ## run other people's clients over every call: openai, openai-agents, the AI SDK, LangChain, LiteLLM, llm, GuideLLM
	$(BIN)/python -m pytest -m clients

chaos: install ## break everything until 20,000 jobs are in (20 minutes; SEED=n, JOBS=n, DURABILITY=fsync, SIGNED=1), into var/chaos
	$(BIN)/python -m tests.chaos.run --jobs $(or $(JOBS),20000) $(if $(SEED),--seed $(SEED)) \
		$(if $(DURABILITY),--durability $(DURABILITY)) $(if $(SIGNED),--signed)

soak: install ## run everything for 30 minutes and see what grows (MINUTES=n, SEED=n), into var/soak
	$(BIN)/python -m tests.chaos.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

durability: install ## kill Valkey 1,000 times right after the 202, into var/chaos
	$(BIN)/python -m tests.chaos.durability --rounds 1000

BENCHES := queue intake batches batches.run_batch score stream backlog load.job_pages scale overload load.burst engine
PEERS := $(patsubst requirements/bench/%.txt,%,$(wildcard requirements/bench/*.txt))

bench-env: install $(PEERS:%=.venv-bench/%/.installed) ## set up what the benchmarks compare with, an environment each
	@command -v wrk >/dev/null || apt-get install -y wrk || { echo "wrk is missing: install it with your package manager"; exit 1; }
.venv-bench/%/.installed: requirements/bench/%.txt
	$(PYTHON) -m venv .venv-bench/$*
	.venv-bench/$*/bin/pip install $(PIP_FLAGS) --no-deps -r $<
	@touch $@

bench: bench-env engine-env checkpoints ## a short run of every benchmark, into var/bench (under ten minutes)
	@for name in $(BENCHES); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name --short || exit 1; done

bench-full: bench-env engine-env checkpoints ## the published figures, on a quiet machine (an hour): benchmarks/results and docs
	@for name in $(BENCHES); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name --out benchmarks/results || exit 1; done
	$(BIN)/python -m benchmarks.report

recipes: install engine-env quantize-env autoawq-env sandbox ## make and measure every recipe (two hours): the tables of docs/calibration/figures.md
	$(BIN)/python -m benchmarks.recipes --out benchmarks/results
	$(BIN)/python -m benchmarks.report

# Say FUZZ_SEED=… to see the same again.
FUZZ_SEED ?= $(shell date +%s)
fuzz: install ## random jobs, requests and bytes for a quarter of an hour, from a seed that it prints: var/fuzz
	FUZZ_LONG=1 FUZZ_SEED=$(FUZZ_SEED) $(BIN)/python -m pytest -s -m fuzz

check: install ## format, lint, types, imports, sizes, docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/architecture

format: install ## format and fix, and make links of the files that pages name
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python -m tests.architecture.pages

lock: ## resolve requirements/dev.lock and gpu.lock anew (needs uv)
	uv pip compile --universal --python-version 3.11 --no-annotate --no-header --extra dev pyproject.toml -o requirements/dev.lock
	echo vllm==0.32.0 | uv pip compile --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes \
		--no-annotate --no-header --extra gpu --constraints /dev/stdin pyproject.toml -o requirements/gpu.lock

clean: ## remove environments and caches
	rm -rf .venv .venv-engine .venv-quantize .venv-autoawq .venv-bench .venv-clients .venv-matrix build *.egg-info .mypy_cache .ruff_cache .pytest_cache
