# Every target works on a fresh machine: it creates the virtual environment, installs the package, then runs.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: help demo test test-milvus check soak compare bench openapi tables site lock images sbom dist clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rcml needs Python 3.11 or newer; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(INSTALLED)  ## generate the sample shop, train on it, serve it at 127.0.0.1:8000
	$(BIN)/rcml demo

test: $(INSTALLED)  ## run the tests in two processes
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-milvus: $(INSTALLED)  ## run the tests that need a whole Milvus (Linux x86-64; 57 MB, 1 GB of memory)
	$(BIN)/python -m pip install --quiet --no-deps milvus==2.3.5
	$(BIN)/python -m pytest -m "milvus and not soak" --timeout 7200

check: $(INSTALLED)  ## run the linters, the type checker and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: $(INSTALLED)  ## run the long campaigns
	$(BIN)/python -m pytest -m soak --timeout 7200

compare: $(INSTALLED)  ## compare RCML with both baselines on the sample shop, three seeds
	$(BIN)/python -m benchmarks.compare

bench: $(INSTALLED)  ## measure speed and memory against CLIP, FAISS and a naive loss
	$(BIN)/python -m benchmarks.encode
	$(BIN)/python -m benchmarks.loss
	$(BIN)/python -m benchmarks.train
	$(BIN)/python -m benchmarks.build
	$(BIN)/python -m benchmarks.new_items
	$(BIN)/python -m benchmarks.words
	$(BIN)/python -m benchmarks.journal
	$(BIN)/python -m benchmarks.journal --sync-ms 5
	$(BIN)/python -m benchmarks.catalogue
	$(BIN)/python -m benchmarks.prepare
	$(BIN)/python -m benchmarks.search
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.live
	$(BIN)/python -m benchmarks.service
	$(BIN)/python -m benchmarks.overload

openapi: $(INSTALLED)  ## regenerate docs/openapi.json after a change to the API
	$(BIN)/python -m tests.docs.openapi

tables: $(INSTALLED)  ## regenerate the table of report.json in docs/artifacts.md
	$(BIN)/python -m tests.docs.report_table

site: $(INSTALLED)  ## build the site of the documents in site/
	$(BIN)/python -m mkdocs build --strict

lock:  ## pin the packages of the Docker images; needs uv
	docker/lock.sh

images: $(INSTALLED)  ## run the Docker images without Docker, in clean Debian roots (needs root and debootstrap)
	$(BIN)/python -m tests.docker.clean_root docker/cpu.Dockerfile --build-arg TORCH_INDEX_URL=$(TORCH_INDEX_URL)
	$(BIN)/python -m tests.docker.clean_root docker/gpu.Dockerfile

sbom: $(INSTALLED)  ## list the packages of both images in dist/, as CycloneDX
	$(BIN)/python -m tests.packaging.sbom dist

dist: sbom  ## build wheel and sdist in dist/, beside the SBOMs
	$(BIN)/python -m build --outdir dist

clean:  ## remove the files of the demo
	rm -rf var
