# The first command is `make demo`, the second `make test`. Needs Python 3.11 or newer, make, git.

LOCAL ?= .local
NODES ?= 3
REAL_NODES ?= 0
DISK ?= 20Gi
OVERLAY ?= standalone
AGENTS ?= 1
PODS ?= 1
PYTHON ?= python3
PYTEST_ARGS ?=
# Else each of the many processes that the local cluster and the tests start compiles all modules.
unexport PYTHONDONTWRITEBYTECODE
ROUNDS ?= 5
SIZE ?= 1Gi
DURATION ?= 600
MODELS ?= 50
AGAINST ?=
BENCH_ARGS ?=
BUILDER ?=
REGISTRY ?=
BASE ?=
MIRROR ?=
BUILD_ARGS ?=
NOT_IN_SDK := aiohttp cryptography pillow uvloop

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TOOL := exec $(BIN)/python -m deploy.local

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help build venv kube versitygw fake-gcs azurite kserve-sdk helm model up down status demo-picture prometheus \
	node-up node-down demo test test-unit bench-download bench-control bench-pods bench-starts bench-view \
	bench-peers dashboard-picture faults packages lint format generate images image-base sbom lock release clean distclean

help: ## Show these targets
	@echo "usage: make TARGET [LOCAL=.local] [NODES=3] [DISK=20Gi] [NODE=node-4]"
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-17s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: venv ## Show what localmodel does on a cluster of its own, and check it
	@$(TOOL) demo

demo-picture: venv ## Run the demo, and draw docs/demo.svg of what it printed
	$(BIN)/python -m deploy.local demo | tee .build/demo.log
	$(BIN)/python -m deploy.local.demo.picture < .build/demo.log > docs/demo.svg

up: venv ## Start a local cluster (NODES=3 REAL_NODES=2 DISK=20Gi OVERLAY=kserve AGENTS=0 PODS=0) and return when it is ready
	@$(TOOL) up --local "$(LOCAL)" --nodes "$(NODES)" --real-nodes "$(REAL_NODES)" --disk "$(DISK)" --overlay "$(OVERLAY)"$(if $(filter 0,$(AGENTS)), --no-agents)$(if $(filter 0,$(PODS)), --no-pod-policies)

down: venv ## Stop the local cluster and everything in it
	@$(TOOL) down --local "$(LOCAL)"

status: venv ## Show what runs in the local cluster
	@$(TOOL) status --local "$(LOCAL)"

prometheus: venv ## Start Debian's Prometheus beside the local cluster, with the alerts
	@$(TOOL) prometheus --local "$(LOCAL)"

node-up: venv ## Add a node to the local cluster (NODE=node-4, or a real one: NODE=real-3 REAL=1)
	@$(if $(NODE),,$(error name the node, as in: make node-up NODE=node-4))$(TOOL) node-up --local "$(LOCAL)"$(if $(filter 1,$(REAL)), --real) -- "$(NODE)"

node-down: venv ## Delete a node of the local cluster and stop its agent (NODE=node-4)
	@$(if $(NODE),,$(error name the node, as in: make node-down NODE=node-4))$(TOOL) node-down --local "$(LOCAL)" -- "$(NODE)"

test: build ## Run all tests: unit, golden, and end to end on local clusters
	@exec $(BIN)/python -m pytest -n 3 --dist loadgroup $(PYTEST_ARGS)

test-unit: venv ## Run the tests that need no cluster
	@$(BIN)/python -m deploy.local build kube versitygw fake-gcs azurite helm
	@exec $(BIN)/python -m pytest --ignore=tests/e2e $(PYTEST_ARGS)

bench-download: venv ## Compare downloads with other tools (ROUNDS=5 SIZE=1Gi SEED=1 ROWS= PEERS= WRITE=)
	@exec $(BIN)/python -m tests.bench --rounds "$(ROUNDS)" --size "$(SIZE)" --seed "$(or $(SEED),1)" --rows "$(ROWS)" --peers "$(PEERS)" $(if $(WRITE),--write)

# The defaults of the other targets are too small to measure. The command line overrides these.
bench-control: NODES = 1000
bench-control: ROUNDS = 1
bench-control: venv ## Measure the control plane (NODES=1000 MODELS=50 AGAINST=REV ROUNDS=1 WRITE= BENCH_ARGS=)
	@exec $(BIN)/python -m tests.bench.control --nodes "$(NODES)" --models "$(MODELS)" --rounds "$(ROUNDS)"$(if $(AGAINST), --against "$(AGAINST)")$(if $(WRITE), --write) $(BENCH_ARGS)

bench-pods: venv ## Measure what the policies for pods cost (ROUNDS=5 WRITE= BENCH_ARGS=)
	@exec $(BIN)/python -m tests.bench.pods --rounds "$(ROUNDS)"$(if $(WRITE), --write) $(BENCH_ARGS)

bench-starts: venv ## Measure how fast pods start that mount models, as root (ROUNDS=5 WRITE= BENCH_ARGS=)
	@exec $(BIN)/python -m tests.bench.starts --rounds "$(ROUNDS)"$(if $(WRITE), --write) $(BENCH_ARGS)

bench-peers: venv ## Measure agents that fetch from each other (ROUNDS=5 WRITE= BENCH_ARGS=)
	@exec $(BIN)/python -m tests.bench.peers --rounds "$(ROUNDS)"$(if $(WRITE), --write) $(BENCH_ARGS)

dashboard-picture: venv ## Draw docs/dashboard.svg from Prometheus' answers during a load
	@exec $(BIN)/python -m tests.dashboard

bench-view: venv ## Measure how fast the kubectl plugin shows a large cluster (ROUNDS=5 WRITE= BENCH_ARGS=)
	@exec $(BIN)/python -m tests.bench.view --rounds "$(ROUNDS)"$(if $(WRITE), --write) $(BENCH_ARGS)

faults: venv ## Inject faults, and count lost bytes (SEED=n DURATION=600 PARTS= ATTACKS= WRITE=)
	@exec $(BIN)/python -m tests.faults $(if $(SEED),--seed "$(SEED)") --duration "$(DURATION)" --parts "$(PARTS)" --attacks "$(ATTACKS)" $(if $(WRITE),--write)

lint: venv ## Check style, types, imports, dependencies, and that manifests match the types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/python -m crds.generate --check
	$(BIN)/python -m deploy.monitoring --check
	$(BIN)/python -m deploy.reference --check

format: venv ## Format the code and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generate: kube ## Make what is made from the code: CRDs, references, the dashboard, the chart's files
	$(BIN)/python -m crds.generate
	$(BIN)/python -m deploy.reference
	$(BIN)/python -m deploy.monitoring
	$(BIN)/python -m deploy.local.chart

build: venv ## Build and install all that the local cluster, the demo and the tests run
	@$(TOOL) build

kube: venv ## Build only the control plane (etcd and Kubernetes, from Go modules)
	@$(TOOL) build kube

versitygw: venv ## Build only the S3 server of the demo and the tests
	@$(TOOL) build versitygw

fake-gcs: venv ## Build only the Google Storage server of the tests
	@$(TOOL) build fake-gcs

azurite: venv ## Install only the Azure server of the tests
	@$(TOOL) build azurite

kserve-sdk: venv ## Install only KServe's Python SDK, for the tests
	@$(TOOL) build kserve-sdk

helm: venv ## Build only Helm, for the tests of the chart
	@$(TOOL) build helm

model: venv ## Install only the model of the demo
	@$(TOOL) build model

packages: ## Install what some tests and real nodes need of Debian, as root (deploy/local/debian.txt)
	apt-get update --quiet
	DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends $$(sed 's/#.*//' deploy/local/debian.txt)

venv: $(INSTALLED) ## Install the Python packages of locks/dev.txt into .venv

$(INSTALLED): locks/dev.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: there is no $(PYTHON); install Python 3.11 or newer, or name one: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than Python 3.11; install a newer one, or name one: make PYTHON=/path/to/python" >&2; exit 1; }
	@exec $(PYTHON) -m deploy.local.bootstrap

images: ## Build the images of hooks and agent by docker, podman or buildah (REGISTRY= BUILDER= BASE= BUILD_ARGS=)
	@exec $(PYTHON) -m deploy.image.build --builder "$(BUILDER)" --registry "$(REGISTRY)" --base "$(BASE)" -- $(BUILD_ARGS)

image-base: ## Make a base for BASE= from Debian's packages, as root, where no registry is reached (MIRROR= BUILDER=)
	@exec $(PYTHON) -m deploy.image.debian_base --builder "$(BUILDER)"$(if $(MIRROR), --mirror "$(MIRROR)") -- $(BUILD_ARGS)

sbom: venv ## Write the bills of materials of the images (CycloneDX) into .build/sbom
	@set -e; for target in hooks agent; do $(BIN)/python -m deploy.image.sbom $$target --folder .build/sbom; done; ls .build/sbom/*

LOCK := $(BIN)/python -m deploy.local.uv pip compile --universal --generate-hashes --no-annotate --no-header --quiet

lock: venv ## Choose new versions of the Python packages and write locks/
	$(LOCK) pyproject.toml -o locks/runtime.txt
	$(LOCK) pyproject.toml --group dev -c locks/runtime.txt -o locks/dev.txt
	$(LOCK) --group hooks -c locks/runtime.txt --override locks/left-out.txt -o locks/hooks.txt
	$(LOCK) --group agent -c locks/runtime.txt --override locks/left-out.txt -o locks/agent.txt
	$(LOCK) --group build -c locks/dev.txt -o locks/build.txt
	$(LOCK) tests/bench/peers.in -o tests/bench/peers.txt
	$(LOCK) deploy/local/kserve-sdk.in $(NOT_IN_SDK:%=--no-emit-package %) -o deploy/local/kserve-sdk.txt

release: venv ## Write a new version wherever the version stands, and date the changelog (VERSION=0.2.0)
	@$(if $(VERSION),,$(error name the version, as in: make release VERSION=0.2.0))exec $(BIN)/python -m deploy.release "$(VERSION)"

clean: ## Stop the local cluster; remove its folder and the tools' caches
	@test ! -e "$(LOCAL)/.lock" || $(MAKE) --no-print-directory down LOCAL="$(LOCAL)"
	@test ! -e "$(LOCAL)/.lock" || rm -rf "$(LOCAL)"
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## Remove also what was built and installed
	rm -rf .build .venv
