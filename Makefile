# Needs Python 3.11 or newer and make, nothing else. Everything is installed into $(VENV).

VENV ?= .venv
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := $(VENV)/bin

.PHONY: help demo test lint docs docs-generate bench soak chaos fuzz monitoring k8s-test k8s-apiserver-test k8s-tools \
	image-size requirements release clean

help:
	@echo "make demo   serve the gateway, an embedded store and a sample backend with a page on this machine"
	@echo "make test   run the tests; PYTEST_ARGS=... is passed on"
	@echo "make lint   formatting, lints, types and the map of imports"
	@echo "make docs   the documentation as a site that needs no network, in build/site"
	@echo "make docs-generate  write anew what of docs/ is made from the code"
	@echo "make bench  measure the cost of a request beside nginx"
	@echo "make soak   a million requests, then four times what a worker can do; minutes"
	@echo "make chaos  do every fault to Redis in turn under load, and print what came of it"
	@echo "make fuzz   look for inputs that break a law, FUZZ_SECONDS=30 a target; FUZZ_TARGET=... chooses some"
	@echo "make monitoring    make the dashboard and the copies of the alert rules anew"
	@echo "make k8s-test      check the image, the manifests, the chart and the release, with what .ci/run leaves out"
	@echo "make k8s-apiserver-test  apply the manifests to a kube-apiserver with etcd, which Go builds first; many minutes"
	@echo "make k8s-tools     build helm, and kustomize where kubectl has none, for the tests of k8s/"
	@echo "make image-size    run the Dockerfile's steps, and say what they add to the base image"
	@echo "make requirements  pin the dependencies of the image anew, with their hashes"
	@echo "make release       wheel, sdist, bill of materials, licences and hashes in build/dist"
	@echo "make clean  remove $(VENV) and what tools left behind"

demo: $(VENV)/.installed-demo
	$(BIN)/tokengate demo

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed-docs
	$(BIN)/python -m docsite build

docs-generate: $(VENV)/.installed-docs
	$(BIN)/python -m docsite generate

bench: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

soak: $(VENV)/.installed-test
	$(BIN)/python -m tests.soak $(SOAK_ARGS)

chaos: $(VENV)/.installed-test
	$(BIN)/python -m tests.chaos $(CHAOS_ARGS)

FUZZ_SECONDS ?= 30
fuzz: $(VENV)/.installed-fuzz
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_TARGET)

monitoring: | $(BIN)/python
	$(BIN)/python k8s/monitoring/make.py

K8S_TEST = TESTS_OF_K8S=slow $(BIN)/python -m pytest $(PYTEST_ARGS)
k8s-test: $(VENV)/.installed-k8s
	$(BIN)/python -m tests.k8s.tools schemas kustomize helm kube-score
	$(K8S_TEST) tests/k8s/test_*.py tests/k8s/slow/test_policies.py tests/k8s/slow/test_root.py tests/release

k8s-apiserver-test: $(VENV)/.installed-k8s
	$(BIN)/python -m tests.k8s.tools schemas kustomize helm servers
	$(K8S_TEST) tests/k8s/slow/test_apiserver.py tests/k8s/slow/test_page.py

# Without an environment: .ci/run has it run while that is made.
k8s-tools:
	$(PYTHON) -m tests.k8s.tools

image-size: $(VENV)/.installed-k8s
	$(BIN)/python -m tests.k8s.steps

# No address of a registry gets into the files: each user's pip has its own.
PIN = $(BIN)/pip-compile --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host
requirements: $(VENV)/.installed-release
	$(PIN) --output-file requirements/runtime.txt pyproject.toml requirements/older.in
	$(PIN) --extra otel --constraint requirements/runtime.txt --output-file requirements/traced.txt \
		pyproject.toml requirements/older.in
	$(PIN) --output-file requirements/build.txt requirements/build.in
	sed -i 's/^\(async-timeout==[^ ]*\)/\1 ; python_full_version < "3.11.3"/' requirements/runtime.txt requirements/traced.txt
	sed -i '1i # Made by `make requirements`: every package with the hashes of its files.' requirements/*.txt

release: $(VENV)/.installed-release
	$(BIN)/python -m tests.release

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist

$(VENV)/.installed-demo: EXTRA = [demo]
$(VENV)/.installed-test: EXTRA = [test]
$(VENV)/.installed-dev: EXTRA = [dev]
$(VENV)/.installed-docs: EXTRA = [docs]
$(VENV)/.installed-fuzz: EXTRA = [fuzz]
$(VENV)/.installed-k8s: EXTRA = [k8s]
$(VENV)/.installed-release: EXTRA = [release]

# A stamp each, so that nothing is installed again until pyproject.toml changes.
$(VENV)/.installed-demo $(VENV)/.installed-test $(VENV)/.installed-dev $(VENV)/.installed-docs $(VENV)/.installed-fuzz $(VENV)/.installed-k8s $(VENV)/.installed-release: \
		pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.$(EXTRA)'
	@touch $@

# Debian's python3 cannot put pip into an environment (ensurepip is in python3-venv), but its pip can. What is
# half made is taken away, or the next run would take it for whole.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with its venv module is needed" >&2; exit 1; }
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then \
		$(PYTHON) -m venv $(VENV); \
	elif $(PYTHON) -m pip --version >/dev/null 2>&1; then \
		$(PYTHON) -m venv --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check pip; \
	else \
		echo "$(PYTHON) has neither ensurepip nor pip; on Debian: apt-get install python3-venv" >&2; false; \
	fi || { rm -rf $(VENV); exit 1; }
