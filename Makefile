# Each target creates what it needs in .venv; PYTHON is any Python from 3.11.
PYTHON ?= python3
# Options of `make test`, for example COVERAGE=--cov to name the lines that pytest's own processes have not run.
COVERAGE ?=
# The first thing installed, so that nothing else brings in another build of torch.
TORCH ?= torch==2.13.0
PIP := .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Its requirements, taken as they are, bring in FBGEMM's CUDA build; `distributed` lists what it needs. With a GPU:
# make distributed TORCH=... FBGEMM=fbgemm-gpu==1.8.0
TORCHREC := torchrec==1.8.0
FBGEMM ?= fbgemm-gpu-cpu==1.8.0

# Of `make soak`: the number of kills, and what their moments are drawn from.
ROUNDS ?= 60
SEED ?= 0

.PHONY: demo distributed test soak check minimal serving audit sbom docs format bench clean

demo: .venv/demo.stamp  ## Train on real purchases and recommend real products
	.venv/bin/prismrec demo

distributed: .venv/distributed.stamp  ## Install what training in several processes needs

test: .venv/dev.stamp  ## Run every test
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(COVERAGE)

soak: .venv/dev.stamp  ## Kill processes at random moments; ROUNDS=500 SEED=7 for other ones
	PRISMREC_FAULT_ROUNDS=$(ROUNDS) PRISMREC_FAULT_SEED=$(SEED) OMP_NUM_THREADS=1 .venv/bin/python -m pytest tests/faults/test_kill.py tests/faults/test_kill_server.py

check: .venv/dev.stamp  ## Lint, formatting, types and import rules
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

minimal:  ## Install the core without extras, for one Python, and run every verb: make minimal PYTHON=python3.13
	$(PYTHON) -m venv --clear .venv-minimal
	.venv-minimal/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "$(TORCH)" .
	.venv-minimal/bin/python -m pip check
	.venv-minimal/bin/python tests/minimal.py .venv-minimal/made

serving:  ## Install what the container of `serve` has, for one Python, and serve
	test -f .venv-minimal/made/bundle/manifest.json || $(MAKE) minimal
	$(PYTHON) -m venv --clear .venv-serving
	.venv-serving/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --requirement deploy/requirements.txt
	.venv-serving/bin/python -m pip install --quiet --disable-pip-version-check --no-deps .
	.venv-serving/bin/python tests/minimal.py .venv-minimal/made

audit: .venv/dev.stamp  ## Look up known vulnerabilities of the pinned dependencies
	.venv/bin/python deploy/audit.py

sbom: .venv/dev.stamp  ## Write the bill of materials of the minimal installation to sbom.json (CycloneDX)
	test -d .venv-minimal || $(MAKE) minimal
	.venv/bin/cyclonedx-py environment .venv-minimal --pyproject pyproject.toml --output-reproducible -o sbom.json

docs: .venv/dev.stamp  ## Build the documentation into site/
	.venv/bin/mkdocs build --strict
	@echo "site/index.html"

format: .venv/dev.stamp  ## Apply the formatting and the lint fixes that check asks for
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

bench: .venv/dev.stamp  ## Measure preparation, training and serving; results on standard output
	.venv/bin/python benchmarks/prepare.py
	.venv/bin/python benchmarks/train.py
	.venv/bin/python benchmarks/serving.py --work /tmp/prismrec-serving

clean:  ## Remove the environment and what the demo and docs made
	rm -rf .venv .venv-minimal .venv-serving demo site sbom.json

.venv/torch.stamp: constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "PrismRec needs Python 3.11 or newer; run: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(PIP) "$(TORCH)"
	touch $@

.venv/demo.stamp: .venv/torch.stamp pyproject.toml
	$(PIP) --editable '.[demo]'
	touch $@

.venv/distributed.stamp: .venv/torch.stamp pyproject.toml
	$(PIP) --editable '.[distributed]'
	$(PIP) --no-deps "$(FBGEMM); sys_platform == 'linux'" "$(TORCHREC); sys_platform == 'linux'"
	touch $@

.venv/dev.stamp: .venv/distributed.stamp
	$(PIP) --editable '.[dev]'
	touch $@
