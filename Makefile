# wasmpool. `make` alone prints what there is; `make demo` needs Debian, root, and nothing else but python3.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

CLUSTER ?= own
VENV := .venv
PYTHON := $(VENV)/bin/python
PYTEST := $(PYTHON) -m pytest
STAMPS := $(VENV)/.wasmpool
# What a step was made from is in the name of its stamp: a change of content makes a new name, a new date alone does not.
content = $(shell cat $(1) 2>/dev/null | sha256sum | cut -c1-12)

PACKAGES := $(STAMPS)/packages-$(call content,requirements/dev.txt scripts/prepare-venv.sh)
EDITABLES := $(STAMPS)/editables-$(call content,$(PACKAGES) crds/pyproject.toml operator/pyproject.toml node-agent/pyproject.toml \
	$(wildcard node-agent/setup.py) $(sort $(wildcard node-agent/native/*)))
PYRIGHT := $(STAMPS)/pyright-$(call content,package-lock.json)
SYSTEM := $(STAMPS)/system-$(call content,scripts/install-system-packages.sh)

TYPED := tests/bench tests/chart tests/cluster tests/conformance tests/demo tests/docs tests/e2e tests/oci charts/generate demo docs/generate_api_reference.py

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---------------------------------------------------------------------------------------------------------------- see it
.PHONY: demo
demo: demo-plan venv ## a real Kubernetes, wasmpool on it, guests running; CLUSTER=existing takes the current kubeconfig's
	@$(PYTHON) -m demo up --cluster $(CLUSTER) $(if $(RECORD),--record $(RECORD))

.PHONY: demo-plan
demo-plan: ## what `make demo` would do to this machine, without doing it
	@python3 -m demo plan --cluster $(CLUSTER)

.PHONY: down
down: venv ## undoes `make demo`: no process, mount, network namespace or huge page stays
	@$(PYTHON) -m demo down --cluster $(CLUSTER)

# --------------------------------------------------------------------------------------------------------------- test it
.PHONY: test
test: lint test-unit test-hugepages test-cluster test-node ## everything; root

.PHONY: test-unit
test-unit: venv ## quick: neither root nor a cluster
	$(PYTEST) -n 2 --dist loadfile -m "not cluster and not node and not hugepages"

.PHONY: test-hugepages
test-hugepages: venv ## root: reserves huge pages of this machine and gives them back
	$(PYTEST) -m "hugepages and not node and not cluster"

.PHONY: test-cluster
test-cluster: binaries ## a real API server and control plane
	$(PYTEST) -m "cluster and not node"

.PHONY: test-node
test-node: binaries ## root: a real node with a kubelet, containerd and huge pages; end to end
	$(PYTEST) -m node

.PHONY: binaries
binaries: venv system ## Kubernetes and what the tests run beside it; a quarter of an hour on two cores, once
	@echo "the cluster's binaries, built where they are not there yet:"
	@$(PYTHON) -m tests.cluster build

.PHONY: lint
lint: venv $(PYRIGHT) ## ruff, mypy strict, pyright strict, the layers
	$(VENV)/bin/ruff check --no-cache .
	$(VENV)/bin/ruff format --no-cache --check .
	$(VENV)/bin/mypy -p wasmpool_api -p wasmpool_operator -p wasmpool_agent
	$(VENV)/bin/mypy $(TYPED)
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" node_modules/.bin/pyright crds/src operator/src node-agent/src $(TYPED)
	$(VENV)/bin/lint-imports

.PHONY: bench
bench: venv ## the measurements behind the figures in the documents; BENCH=--quick shows that they run; root
	$(PYTHON) -m tests.bench.allocators $(BENCH)
	$(PYTHON) -m tests.bench.http $(BENCH)
	$(PYTHON) -m tests.bench.density $(BENCH)
	$(PYTHON) -m tests.bench.backings $(BENCH)

.PHONY: bench-cluster
bench-cluster: binaries ## the measurement on a real node; root
	$(PYTHON) -m tests.bench.first_response $(BENCH)

# --------------------------------------------------------------------------------------------------------------- make it
.PHONY: docs
docs: venv ## docs/api.md from the CRDs
	$(PYTHON) docs/generate_api_reference.py

.PHONY: chart
chart: venv ## the generated parts of the chart: copies of the CRDs, dashboards, the table of values
	$(PYTHON) -m charts.generate

.PHONY: examples
examples: venv ## the example guests from source, and examples/guests.yaml that carries them
	$(PYTHON) -m demo.guests

.PHONY: venv
venv: $(EDITABLES) ## .venv with everything at its pinned version and hash

.PHONY: system
system: $(SYSTEM)

$(PACKAGES):
	@scripts/prepare-venv.sh packages
	@mkdir -p $(STAMPS) && rm -f $(STAMPS)/packages-* $(STAMPS)/editables-* && touch $@

$(EDITABLES): $(PACKAGES)
	@scripts/prepare-venv.sh editables
	@rm -f $(STAMPS)/editables-* && touch $@

$(PYRIGHT): $(PACKAGES)
	@scripts/prepare-venv.sh pyright
	@rm -f $(STAMPS)/pyright-* && touch $@

$(SYSTEM): | $(PACKAGES)
	@scripts/install-system-packages.sh
	@rm -f $(STAMPS)/system-* && touch $@

.PHONY: clean
clean: ## what make made in the checkout; caches outside it stay
	rm -rf $(VENV) node_modules examples/build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
