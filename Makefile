# The two commands of the README are `make quickstart` and `make test`. Each sets itself up in .venv, the tests of vLLM in
# .venv-vllm, and nothing is done twice: delete them to begin anew.

PYTHON ?= python3
JUDGE ?= tiny
BIN := .venv/bin
TORCH := torch==2.13.0
# PyTorch's own index of builds without CUDA. Asked only where there is no GPU and no such build at hand.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help setup quickstart test test-served lint tiny clean
.DEFAULT_GOAL := help

help:
	@echo "make quickstart            judge, rerank and pair with the bundled judge; writes runs/quickstart/report.html"
	@echo "make quickstart JUDGE=...  the same with another judge: a folder, a hub id or a recipe"
	@echo "make test                  every test that this machine can run"
	@echo "make proof-NAME            measure the figures of a recipe's README anew (NAME: $(PROOFS))"

# torch comes first: what is installed after it then takes it as it is, and a machine without a GPU does not fetch
# gigabytes of CUDA libraries.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (once; two minutes or so)"
	@if command -v nvidia-smi >/dev/null 2>&1; then $(PIP) $(TORCH); else \
	  $(BIN)/python -c 'import torch' 2>/dev/null \
	  || $(PIP) $(TORCH)+cpu 2>/dev/null \
	  || $(PIP) --extra-index-url $(TORCH_CPU_INDEX) $(TORCH)+cpu 2>/dev/null \
	  || $(PIP) $(TORCH); fi
	@$(PIP) --constraint constraints.txt --editable '.[train,dev]'
	@touch $@

# vLLM lives in an environment of its own on top of .venv. Its CPU build brings a torchvision, torchaudio and torchcodec
# that are built for CUDA, and in .venv they would break every import of a model.
.venv-vllm/installed: .venv/installed
	@$(PYTHON) -m venv .venv-vllm
	@$(BIN)/python -c 'import sysconfig as s; print("import site; site.addsitedir(%r)" % s.get_path("purelib"))' \
	  > "$$(.venv-vllm/bin/python -c 'import sysconfig as s; print(s.get_path("purelib"))')/flexreward-base.pth"
	@echo "installing vLLM into .venv-vllm (once; a minute or two)"
	@.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "$$($(VLLM))"
	@if $(ON_CPU); then .venv-vllm/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec; fi
	@touch $@

ON_CPU = $(BIN)/python -c 'import sys, torch; sys.exit(not torch.__version__.endswith("+cpu"))'
# What pyproject.toml says of the build of vLLM that fits this torch.
VLLM = $(BIN)/python -c 'import tomllib, torch; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
  print(*extras["optional-dependencies"]["cpu" if torch.__version__.endswith("+cpu") else "vllm"])'

setup: .venv/installed

quickstart: setup
	@$(BIN)/python -m recipes.tiny.quickstart --judge $(JUDGE)

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy flexreward

test: lint
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile -m 'not gpu and not vllm and not ray and not network and not alone'
	@$(MAKE) --no-print-directory test-served

# What runs on vLLM, on a Ray cluster of its own, or on both; and what compares times, since here one test runs at a
# time. Where vLLM is not to be had, its tests are skipped by name. They are written for its CPU build, whose
# numbers are those of transformers; on a GPU others round differently.
test-served: setup
	@if $(ON_CPU) && $(MAKE) --no-print-directory .venv-vllm/installed 2>/dev/null; \
	then .venv-vllm/bin/python -m pytest -m 'vllm or ray or alone'; \
	else echo "vLLM's CPU build is not to be had here (make .venv-vllm/installed says why): its tests are skipped"; \
	  $(BIN)/pytest -m 'vllm or ray or alone' -rs; fi

PROOFS := tiny attacks thinking bench serve grpo dpo
proof-%: setup
	@$(BIN)/python -m recipes.$*.proof

tiny: setup
	$(BIN)/python -m recipes.tiny.pretrain judge --out runs/tiny/base
	$(BIN)/python -m recipes.tiny.judgments --out runs/tiny/sft.jsonl
	$(BIN)/python -m training.judge_sft recipes/tiny/sft.yaml
	git checkout -- flexreward/bundled/tiny-judge/README.md
	$(BIN)/python -m recipes.tiny.pretrain policy --out runs/tiny/policy
	cp runs/tiny/policy/*.json runs/tiny/policy/*.jinja runs/tiny/policy/*.safetensors flexreward/bundled/tiny-policy/

clean:
	rm -rf runs .pytest_cache .mypy_cache .ruff_cache
