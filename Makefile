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

.PHONY: install serve test browser pictures site check fmt checkpoints-check images-check lock audit chaos soak bench cuda-trace gpu-check clean models models-gpu

# An environment of another Python is made anew: packages of two in one folder fit neither.
$(BIN)/.serving: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "albert-serve needs Python 3.11 or later, and $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	@test ! -x $(BIN)/python || $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != tuple(map(int, sys.argv[1].split("."))))' \
	  "$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')" || rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV) && $(BIN)/pip install -q -e '.[$(DEVICE)]'
	@# An installed copy is albert_serve; the tests and scripts of a checkout import its folder, service, from anywhere.
	@echo '$(CURDIR)' > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/albert_serve_checkout.pth"
	@touch $@

$(BIN)/.everything: $(BIN)/.serving
	$(BIN)/pip install -q '$(TORCH)' && $(BIN)/pip install -q -e '.[$(DEVICE),convert,test]'
	$(BIN)/pip install -q --no-deps 'tritonclient>=2.60' && touch $@

install: $(BIN)/.everything  ## everything: serving, conversion, training, tests

serve: $(BIN)/.serving  ## the service with the default models
	$(BIN)/albert-serve serve --host $(HOST) --port $(PORT) $(ARGS)

# Two of these run at a time.  The others are timed, or start processes that want the machine: one at a time.
PURE = $(addprefix tests/,conversion documents judging repository tasks training)
# What depends on the processor runs a second time as on one without VNNI and bfloat16, whatever this one has.
BOTH_WAYS = $(addprefix tests/conversion/test_,graph.py pipeline.py precision.py ranges.py checkpoint.py) tests/runtime tests/serving/test_loading.py tests/system/test_readme.py \
  tests/system/test_early_exit.py tests/training/test_evaluate.py tests/test_shipped_models.py
# The same routes, where the models are in another process.
SHARED = tests/api/test_classify.py tests/api/test_qa.py tests/api/test_explain.py tests/api/test_operations.py \
  tests/api/test_open_inference.py tests/api/test_hugging_face.py tests/api/test_keys.py \
  tests/system/test_traces.py::test_a_request_has_a_span_for_each_stage_and_each_step

# The last transformers with a question answering pipeline, over our torch: what /qa is compared with.
$(VENV)-transformers4/.done: $(BIN)/.everything
	$(BIN)/pip install -q --no-deps --target $(VENV)-transformers4 'transformers==4.57.*' 'tokenizers>=0.22,<0.23' \
	  'huggingface-hub<1.0' && touch $@

# KServe's client: it wants other versions of what we use.
$(VENV)-kserve/.done:
	$(PYTHON) -m venv $(VENV)-kserve && $(VENV)-kserve/bin/pip install -q 'kserve>=0.17' && touch $@

test: $(BIN)/.everything $(VENV)-transformers4/.done $(VENV)-kserve/.done  ## all tests
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PURE)
	$(BIN)/python -m pytest $(PURE:%=--ignore=%)
endif
	$(BIN)/python -m pytest --cpu-features none $(BOTH_WAYS)
	$(BIN)/python -m pytest --share-models $(SHARED)

browser:  ## Chromium from Debian's packages, for tests/e2e, which are skipped without one
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium; }

pictures: $(BIN)/.everything  ## the page's pictures in docs/images, taken of the service itself
	$(BIN)/python -m tests.e2e.pictures

site: $(BIN)/.everything  ## the documentation as a site, in build/site
	$(BIN)/python docs/reference.py && $(BIN)/python docs/drawings.py && $(BIN)/python docs/site.py

check: $(BIN)/.everything  ## lint, format and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

checkpoints-check: $(BIN)/.everything  ## odd checkpoints of every kind, converted or refused; ids and logits compared
	$(BIN)/python -m tests.odd_checkpoints $(ARGS)

MINUTES ?= 10
chaos: $(BIN)/.everything  ## load while one fault after the other is injected; ends with a table of what was lost
	$(BIN)/python -m tests.weather.chaos --minutes $(MINUTES) $(ARGS)

soak: $(BIN)/.everything  ## every kind of request for a while; ends with what is held more than at the beginning
	$(BIN)/python -m tests.weather.soak --minutes $(MINUTES) $(ARGS)

images-check:  ## the images, built, run and stopped by the Docker engine that is there; TARGETS="cpu gpu" builds both
	deploy/check_images.sh

# What the images install, by hash: without extras, and with all of them.
LOCK = $(BIN)/uv pip compile -q --upgrade --universal --generate-hashes --python-version 3.12 --no-header --no-annotate --no-emit-index-url
ALL_EXTRAS = --extra documents --extra grpc --extra tracing
lock: $(BIN)/.everything  ## the dependencies of the images anew, in deploy/locked
	$(BIN)/pip install -q uv
	for device in cpu gpu; do \
	  $(LOCK) pyproject.toml --extra $$device -o deploy/locked/$$device.txt || exit 1; \
	  $(LOCK) pyproject.toml --extra $$device $(ALL_EXTRAS) -o deploy/locked/$$device-all.txt || exit 1; done

audit: $(BIN)/.everything  ## known weaknesses of what the images install; takes a network, and fails without one
	$(BIN)/pip install -q pip-audit
	for device in cpu gpu; do $(BIN)/pip-audit --strict --require-hashes --disable-pip -r deploy/locked/$$device-all.txt || exit 1; done

fmt: $(BIN)/.everything
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: $(BIN)/.everything $(VENV)-peers/.done  ## packing, then the service against peers and itself; about half an hour
	$(BIN)/python benchmarks/packing.py
	$(BIN)/python benchmarks/serving.py --data $(DATA) --out runs/bench --peers $(abspath $(VENV)-peers/bin/python) $(ARGS)
	$(BIN)/python benchmarks/roofline.py --data $(DATA) --out runs/bench
	$(BIN)/python benchmarks/hop.py --out runs/bench
	$(BIN)/python benchmarks/growth.py --data $(DATA) --out runs/bench
	$(BIN)/python benchmarks/operators.py $(lastword $(wildcard model_repo/sentiment/[0-9]*)) --lengths 25 > runs/bench/operators.md
	cp runs/bench/growth.png runs/bench/early-exit.png docs/images/
	$(BIN)/python benchmarks/page.py runs/bench > docs/benchmarks.md

$(VENV)-peers/.done: benchmarks/peers/requirements.txt
	$(PYTHON) -m venv $(VENV)-peers && $(VENV)-peers/bin/pip install -q -r $< && touch $@

# Outside the checkout's own environment: the CUDA provider of ONNX Runtime, and a stand-in for the card under it.
STANDIN = $(abspath $(VENV)-cuda)
cuda-trace: $(BIN)/.everything  ## without a GPU: what the CUDA path launches, copies, waits for and holds, and its answers
	nice tests/cuda/build.sh $(STANDIN) $(BIN)/python
	ALBERT_SERVE_STANDIN_CUDA=$(STANDIN) $(BIN)/python -m tests.cuda.check_standin
	ALBERT_SERVE_STANDIN_CUDA=$(STANDIN) $(BIN)/python -m pytest tests/cuda -v -rP

gpu-check: $(BIN)/.everything  ## on a GPU host: answers as the CPU's, every operator on the GPU, tokens a second, no creep
	$(BIN)/python -m pytest tests/runtime/test_cuda.py -v -rs
	for model in $(wildcard model_repo/*/[0-9]*); do $(BIN)/python benchmarks/operators.py $$model --lengths 25 128 --device cuda || exit 1; done
	$(BIN)/python benchmarks/device.py --device cuda --out runs/gpu

clean:
	rm -rf $(VENV) $(VENV)-transformers4 $(VENV)-kserve $(VENV)-cuda build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

models: $(BIN)/.everything  ## train and publish the shipped models: about two hours on two CPU cores with bfloat16
	$(MAKE) -f model_repo/train.mk cpu BIN=$(BIN) DATA=$(DATA)

models-gpu: $(BIN)/.everything  ## the same on a GPU, from scratch: pretrained for 20 minutes, then fine-tuned
	$(MAKE) -f model_repo/train.mk gpu BIN=$(BIN) DATA=$(DATA)
