# Everything a person does with Kennel. `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
RECIPE ?= recipes/shapes.toml
OUT    ?= build/$(basename $(notdir $(RECIPE)))
DATA   ?= build/data/shapes
PORT   ?= 8080
SET    ?=
BENCH  ?=
ON     ?= local
IMAGES ?= training serving-cpu serving-gpu

python := .venv/bin/python
settings := $(foreach setting,$(SET),--set $(setting))
weights := $(if $(WEIGHTS),--weights $(WEIGHTS))
docker := $(if $(filter docker,$(ON)),--docker)
# AWS: EXTRA="--dry-run" prints the plan of any verb below, and sends nothing.
on_aws := $(filter aws,$(ON))
aws := $(python) -m aws
NAME ?=
EXTRA ?=
artifact = $(or $(ARTIFACT),$(OUT)/model.tar.gz)

.PHONY: bootstrap upload tune deploy function status why costs destroy
.PHONY: help release setup setup-sdk demo train serve transform doctor data test test-docker lint format lock clean build push smoke scan bench-serving bench-transform bench-training bench-tuning chaos known-place notebook

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  ON=local|docker|aws (train, tune, transform, doctor)  IMAGES=\"$(IMAGES)\""
	@echo "  RECIPE=$(RECIPE)  DATA=folder with train, valid, test  OUT=$(OUT)"
	@echo "  SET=\"epochs=2 learning_rate=0.05\"  WEIGHTS=state dict  ARTIFACT=model.tar.gz  PORT=$(PORT)"

setup: .venv/installed .venv-serving-cpu/installed ## make both environments (fast the second time)

# --no-deps: the locks are complete, and leave openvino-telemetry out on purpose.
.venv/installed: requirements/dev.txt requirements/chart.txt
.venv-serving-cpu/installed: requirements/serving-cpu.txt
.venv-sdk/installed: requirements/sdk.txt
.venv/installed .venv-serving-cpu/installed .venv-sdk/installed:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "Kennel needs Python 3.11, and PYTHON=$(PYTHON) is not. Try make $@ PYTHON=/path/to/python3.11." >&2; exit 1; }
	@test ! -L $(@D) || { echo "$(@D) is a link: whoever owns it makes it." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes $(^:%=--requirement %)
	touch $@

demo: setup $(filter build/data/shapes,$(DATA)) ## train, serve and score: drawn shapes, or DATA= and RECIPE= of your own
	$(python) -m training.doctor $(DATA) --output $(OUT)/doctor || \
	  echo "The data doctor would not train on this (see above); the demo goes on." >&2
	$(MAKE) --no-print-directory train transform
	@echo
	@echo "The model:   $(artifact)"
	@echo "The data:    $(OUT)/doctor/doctor.html"
	@echo "How it went: $(OUT)/output/data/report.html"
	@echo "The scored test set, through the server: $(OUT)/transform/report.html"
	@echo "Ask it yourself: make serve RECIPE=$(RECIPE)"

build/data/shapes: | setup
	rm -rf $@.partial
	$(python) -m examples.shapes $@.partial >/dev/null
	mv $@.partial $@

train: known-place setup ## images -> OUT/model.tar.gz
	$(if $(on_aws),$(aws) train $(RECIPE) $(settings) $(EXTRA),\
	$(python) -m local train $(RECIPE) --data $(DATA) --output $(OUT) $(settings) $(weights) $(docker))

tune: known-place setup ## search the recipe's [tuning.ranges] -> OUT/best.toml; then make train RECIPE=OUT/best.toml
	$(if $(on_aws),$(aws) tune $(RECIPE) $(settings) $(EXTRA) \
	  $(if $(filter --dry-run,$(EXTRA)),,&& $(aws) best $(RECIPE) --output $(OUT) $(settings)),\
	$(python) -m local tune $(RECIPE) --data $(DATA) --output $(OUT) $(settings) $(weights) $(docker) $(EXTRA))

serve: known-place setup ## answer /invocations on PORT
	$(if $(on_aws),@echo "On AWS that is an endpoint: make deploy" >&2; exit 1)
	$(python) -m local serve --artifact $(artifact) --port $(PORT) $(docker)

transform: known-place setup ## score INPUT (default DATA/test) through the server -> OUT/transform/report.html
	$(if $(on_aws),$(aws) transform $(RECIPE) $(if $(ARTIFACT),--artifact $(ARTIFACT)) --output $(OUT)/transform $(EXTRA),\
	$(python) -m local transform --artifact $(artifact) --input $(or $(INPUT),$(DATA)/test) --output $(OUT)/transform $(docker))

doctor: setup ## look DATA over: broken files, duplicates, leaks, shift -> OUT/doctor/doctor.html
	$(if $(on_aws),$(aws) doctor $(RECIPE),\
	$(python) -m training.doctor $(DATA) --output $(OUT)/doctor $(if $(ARTIFACT),--artifact $(ARTIFACT)) $(if $(FIX),--fix $(FIX)))

data: setup ## download the data set a recipe names into build/data
	$(python) -m local data $(RECIPE) --output build/data

bootstrap: setup ## on AWS: bucket, image repositories and roles, once for an account and region
	$(aws) bootstrap $(RECIPE) $(EXTRA)

upload: setup ## on AWS: DATA to the bucket; goes on where it was interrupted
	$(aws) upload $(RECIPE) --data $(DATA)

deploy: setup ## on AWS: an endpoint for the recipe's model, or for ARTIFACT=
	$(aws) deploy $(RECIPE) $(if $(ARTIFACT),--artifact $(ARTIFACT)) $(EXTRA)

function: setup ## on AWS: a Lambda function that asks the endpoint
	$(aws) function $(RECIPE) $(EXTRA)

status: setup ## on AWS: what the recipe has there
	$(aws) status $(RECIPE)

why: setup ## on AWS: why the job or endpoint NAME= failed, and what to do
	$(aws) why $(NAME)

costs: setup ## on AWS: what is running, in dollars; EXTRA=--expired stops what outlived its time
	$(aws) costs $(EXTRA)

destroy: setup ## on AWS: remove everything the recipe created, and nothing else
	$(aws) destroy $(RECIPE) $(EXTRA)

build: ## make the images, or IMAGES="serving-cpu"
	./build_and_push.sh build $(IMAGES)

push: ## the images to ECR, or to REGISTRY
	./build_and_push.sh push $(IMAGES)

ifneq ($(filter build,$(MAKECMDGOALS)),)
push: build
endif

scan: setup ## what is in the images, and which of it has known vulnerabilities -> build/scan
	./build_and_push.sh scan $(IMAGES)

smoke: setup $(filter build/data/shapes,$(DATA)) ## train, serve and stop in the real images under every restriction
	$(python) -m local smoke $(RECIPE) --data $(DATA) --output build/smoke

notebook: setup ## run examples/train-and-deploy.ipynb from top to bottom -> build/notebooks; SAVE=1 keeps its outputs
	$(python) -m examples.notebooks train_and_deploy $(if $(SAVE),--save)

test: setup ## the suite, but for what needs a Docker engine
	$(python) -m pytest -m "not docker" -n 3 --dist loadfile --no-loadscope-reorder --durations 30

test-docker: setup setup-sdk ## the tests that run the images of make build, also under the SageMaker SDK
	$(python) -m pytest -m docker

chaos: setup ## torment a real server (FORM=--short: 3 minutes; FORM="--soak 30"; IMAGES_DIR=JPEGs) -> build/chaos
	$(python) -m chaos $(if $(ARTIFACT),--artifact $(ARTIFACT)) $(if $(IMAGES_DIR),--images $(IMAGES_DIR)) $(FORM)

setup-sdk: .venv-sdk/installed ## make the environment of the SageMaker SDK, which only test-docker needs

bench-tuning: setup ## a search that shares one pass over the images, and one that stops early (IMAGES_DIR=real images)
	$(python) -m benchmarks.tuning $(BENCH)

lint: setup ## ruff, mypy --strict, shellcheck, hadolint
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy .
	.venv/bin/shellcheck container/train container/serve container/install_packages build_and_push.sh aws/ec2_training.sh .ci/run .ci/cold
	.venv/bin/hadolint container/*.Dockerfile

format: setup ## rewrite the code as ruff wants it
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

lock: setup ## resolve requirements/*.in into hashed locks
	cd requirements && for name in serving-cpu serving-gpu training dev chart sdk; do \
	  ../.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-emit-package openvino-telemetry --no-emit-find-links $$([ $$name = chart ] && echo --no-deps) \
	    --custom-compile-command "make lock" --upgrade $$name.in --output-file $$name.txt; done

bench-serving: setup ## Kennel and its peers in one run (15 minutes, alone on the machine), or BENCH="--quick"
	$(python) -m benchmarks.serving $(BENCH)

bench-training: setup ## Kennel's training and its peers in one run (hours, alone on the machine), or BENCH="--quick"
	$(python) -m benchmarks.training $(BENCH)

bench-transform: setup ## whole Batch Transform jobs against the processor's limit (10 minutes, alone), BENCH="--sets dogs"
	$(python) -m benchmarks.transform $(BENCH)

release: setup ## VERSION=X.Y.Z: changelog, commit, tag, images, bills of materials -> build/release; EXTRA=--dry-run
	$(python) -m local.release $(VERSION) $(EXTRA)

clean: ## remove build/ (the environments stay)
	rm -rf build

known-place:
	@[[ "$(ON)" == local || "$(ON)" == docker || "$(ON)" == aws ]] || \
	  { echo "ON=$(ON) is no place; ON=local, ON=docker and ON=aws are." >&2; exit 1; }
