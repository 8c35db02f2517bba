# make demo   train adapters, serve them together, print the results
# make test   run the tests; make test-cluster those that need a Ray of several nodes
# make monitoring   watch it with Prometheus, and Grafana if it is installed
# make docs   build the documentation into site/
ACCEL  ?= cpu
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)

BIN := .venv/bin
LOCK := requirements/$(ACCEL).lock
INSTALLED := .venv/.installed-$(ACCEL)

# Many short-lived processes import vLLM, Ray and DeepSpeed: let the first one keep the bytecode.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo serve monitoring test test-cluster lint format bench docs lock clean

setup: $(INSTALLED)

# PyTorch's CPU wheels come from where pip is told to look (find-links), else from PyTorch itself.
$(INSTALLED): $(LOCK) pyproject.toml
	@case "$(ACCEL)" in cpu|cuda) ;; *) echo "ACCEL must be cpu or cuda, not $(ACCEL)"; exit 2;; esac
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)) and "Python 3.11 or 3.12 is needed, found " + sys.version.split()[0] + ": set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	rm -f .venv/.installed-*
	$(BIN)/python -m pip install --quiet "$$(grep '^uv==' $(LOCK))" "$$(grep '^setuptools==' $(LOCK))"
	@links="$${PIP_FIND_LINKS:-$$($(BIN)/python -m pip config get global.find-links 2>/dev/null)}"; \
	if [ $(ACCEL) = cpu ] && [ -z "$$links" ]; then from=--torch-backend=cpu; fi; \
	echo "installing $(LOCK)"; \
	UV_FIND_LINKS="$$(echo $$links | tr ' ' ',')" UV_LINK_MODE=copy \
	  $(BIN)/python -m uv pip install --quiet --python $(BIN)/python --no-deps $$from -r $(LOCK)
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@

demo: $(INSTALLED)
	$(BIN)/propulsion demo

serve: $(INSTALLED)
	@test -d runs/demo/store || { echo "runs/demo/store is missing: run 'make demo' first"; exit 2; }
	$(BIN)/propulsion serve --base examples/tiny_base/model --served-name tiny-base --store runs/demo/store

monitoring: $(INSTALLED)
	$(BIN)/propulsion cluster monitor --server 127.0.0.1:8000

test: $(INSTALLED)
	$(BIN)/python -m pytest

test-cluster: $(INSTALLED)
	$(BIN)/python -m pytest -m nightly tests/cluster

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.serving --json runs/bench/serving.json
	$(BIN)/python -m benchmarks.traffic --json runs/bench/traffic.json
	$(BIN)/python -m benchmarks.training_step --json runs/bench/training_step.json
	$(BIN)/python -m benchmarks.multi_adapter --json runs/bench/multi_adapter.json
	$(BIN)/python -m benchmarks.kernels --json runs/bench/kernels.json
	$(BIN)/python -m benchmarks.simulation --out runs/bench
	$(BIN)/python -m benchmarks.cluster --json runs/bench/cluster.json

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lock: $(INSTALLED)
	$(BIN)/python requirements/lock.py

clean:
	rm -rf .venv runs build site *.egg-info .pytest_cache .mypy_cache .ruff_cache
