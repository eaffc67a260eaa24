# make demo     enhance the shipped recordings and write demo/index.html
# make test     lint, types, import rules, all tests
# make lint     the first three only
# make bench    the benchmarks that run anywhere; each prints a table (speech needs the set of `ornstein speech prepare`)
# make bench-gpu  those of a GPU
# make docs     the documentation as site/index.html
# make wheels   build the wheels and try them in an empty environment
#
# The environment lives in .venv and is brought up to date when the pins or a pyproject.toml change.

PYTHON ?= python3
BIN := .venv/bin
PROJECTS := $(wildcard core/pyproject.toml apps/*/pyproject.toml)
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -b constraints.txt
MEMBERS := -e core $(patsubst %/pyproject.toml,-e %,$(wildcard apps/*/pyproject.toml))

SHARED_BENCHMARKS := benchmarks/quality_rows.py benchmarks/speed_rows.py benchmarks/timing.py
GPU_BENCHMARKS := benchmarks/gpu_checks.py benchmarks/speech_speed.py benchmarks/restoration_speed.py benchmarks/infrared_speed.py benchmarks/training_scaling.py

.PHONY: demo test lint bench bench-gpu docs wheels clean
.DELETE_ON_ERROR:

demo: .venv/.installed
	$(BIN)/ornstein speech demo --overwrite

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

lint: .venv/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.installed-dev
	@set -e; for file in $(filter-out $(GPU_BENCHMARKS) $(SHARED_BENCHMARKS),$(wildcard benchmarks/*.py)); do echo "== $$file"; $(BIN)/python $$file; done

bench-gpu: .venv/.installed-dev
	@set -e; for file in $(GPU_BENCHMARKS) benchmarks/speech_quality.py; do echo "== $$file"; $(BIN)/python $$file; done

docs: .venv/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheels: .venv/.installed
	rm -rf dist .whl
	$(BIN)/uv build --quiet --all-packages --wheel -b constraints.txt -o dist
	$(PYTHON) -m venv .whl
	$(BIN)/uv pip install --python .whl/bin/python -c constraints.txt --find-links dist ornstein-speech
	cd .whl && bin/ornstein speech --help
	cd .whl && bin/python -c "import numpy, soundfile; soundfile.write('in.wav', numpy.random.default_rng(0).normal(0, .1, 16000), 16000)"
	cd .whl && bin/ornstein speech enhance in.wav -o out.wav
	rm -rf .whl

clean:
	rm -rf .venv .whl dist site demo

.venv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is too old; name Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt uv

.venv/.installed: constraints.txt $(PROJECTS) | .venv/bin/uv
	$(INSTALL) $(MEMBERS)
	@touch $@

# `touch` in this order: installing for development leaves nothing to do for the other targets
.venv/.installed-dev: constraints.txt pyproject.toml tests/plugin/pyproject.toml $(PROJECTS) | .venv/bin/uv
	$(INSTALL) $(MEMBERS) -e 'core[diffusers,digits,features,perceptual,physics]' -e 'apps/infrared[detection,lite0,lpips]' -e 'apps/restoration[lite0,lpips]' \
		-e 'apps/speech[dnsmos,rnnoise,rooms]' -e tests/plugin --group dev
	@touch .venv/.installed $@

.venv/.installed-docs: .venv/.installed-dev
	$(INSTALL) --group docs
	@touch $@
