# Everything sets itself up: these targets need nothing but Python 3.10+.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
OUT ?= out
READY = $(VENV)/.ready

.PHONY: help demo lab test test-browser test-kernels pictures lint test-pythons test-weights test-gpu test-colab oracle-full bench gpu quality quality-check demo-voice demo-voice-quick espeak int4 effort classroom streaming clean

help:
	@echo "make demo          run the quickstart notebook headless: an HTML page and a WAV in $(OUT)/"
	@echo "make lab           open it in JupyterLab"
	@echo "make test          lint, types, tests, notebooks"
	@echo "make test-browser  notebooks in JupyterLab in a headless Chromium; pictures in $(OUT)/browser"
	@echo "make test-kernels  panels in kernels of every ipykernel that matters"
	@echo "make pictures      the README's pictures of the panels, made again"
	@echo "make oracle-full   full-size random weights against the package itself (minutes, 12 GB of memory)"
	@echo "make bench         full-size report of every model: ours and the package in one run (an hour, 12 GB of memory)"
	@echo "make gpu           the same on a GPU: rewrites docs/gpu.md (under 10 minutes, a CUDA device)"
	@echo "make test-gpu      the tests that need a CUDA device"
	@echo "make quality       what each precision costs the demo voice: rewrites docs/quality.md (half an hour)"
	@echo "make int4          what int4 would cost and weigh, an experiment: rewrites docs/int4.md (a quarter of an hour)"
	@echo "make demo-voice    the embedded voice from nothing, trained and evaluated, into the package (1 1/2 hours, 3 GB of disk)"
	@echo "make demo-voice-quick  every stage of that in minutes, into $(OUT)/ only: it says nothing understandable"
	@echo "make effort        what balanced and fast cost and save: rewrites docs/effort.md (a quarter of an hour)"
	@echo "make classroom     what kernels that share one model take: rewrites docs/classroom.md (3 minutes, 8 GB of memory)"
	@echo "make streaming     what segments of a chunk cost the sound: rewrites docs/streaming.md (5 minutes)"
	@echo "make test-weights  the tests that need the real checkpoint in the hub cache"
	@echo "make test-colab    Colab's packages anew, its notebook's install cell, then tests and notebooks in it (5 GB)"
	@echo "make test-pythons  install and speak in fresh environments of Python 3.10 to 3.13, where there are"

$(READY): pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip uv
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python -e ".[lab,test]"
	touch $(READY)

demo: $(READY)
	@mkdir -p $(OUT)
	$(BIN)/jupyter nbconvert --to html --execute \
		--output-dir $(OUT) notebooks/01_quickstart.ipynb
	@cp notebooks/out/quickstart.wav $(OUT)/quickstart.wav
	@echo
	@echo "Page:  $(abspath $(OUT))/01_quickstart.html"
	@echo "Sound: $(abspath $(OUT))/quickstart.wav"

lab: $(READY)
	$(BIN)/jupyter lab notebooks/01_quickstart.ipynb

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not weights and not full and not gpu and not browser and not more"
	CHATTERBOX_NB_MODEL=demo $(BIN)/python -m pytest --nbval-lax --nbval-cell-timeout 300 -n 2 --dist loadfile notebooks

test-browser: $(READY)
	OUT="$(OUT)" $(BIN)/python -m pytest -m browser -p no:xdist tests/browser

test-kernels: $(READY)
	$(BIN)/python tests/kernels.py

pictures: $(READY)
	OUT="$(OUT)" CHATTERBOX_NB_PICTURES=1 $(BIN)/python -m pytest -m browser -p no:xdist tests/browser -k readme

test-weights: $(READY)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m weights

test-gpu: $(READY)
	$(BIN)/python -m pytest -m gpu

oracle-full: $(READY)
	$(BIN)/python -m pytest -m full -s

bench: $(READY)
	$(BIN)/python -m benchmarks.cpu
	$(BIN)/python -m benchmarks.models

gpu: $(READY)
	$(BIN)/python -m benchmarks.gpu
	$(BIN)/python -m benchmarks.gpu_table

quality: $(READY)
	$(BIN)/python -m benchmarks.quality

quality-check: $(READY)
	$(BIN)/python -m benchmarks.quality --check

espeak:
	@command -v espeak-ng >/dev/null || { apt-get update -qq && apt-get install -y -qq espeak-ng; } \
		|| { echo "espeak-ng is needed, and could not be installed. Try: sudo apt-get install espeak-ng"; exit 1; }

demo-voice: $(READY) espeak
	$(BIN)/python -m demo_voice --install

demo-voice-quick: $(READY) espeak
	rm -rf $(OUT)/demo-voice-quick
	$(BIN)/python -m demo_voice --recipe quick --folder $(OUT)/demo-voice-quick

int4: $(READY)
	$(BIN)/python -m benchmarks.int4

effort: $(READY)
	$(BIN)/python -m benchmarks.effort

classroom: $(READY)
	$(BIN)/python -m benchmarks.classroom

streaming: $(READY)
	$(BIN)/python -m benchmarks.streaming

test-colab: $(READY)
	$(BIN)/python tests/colab.py

test-pythons:
	$(PYTHON) tests/pythons.py

clean:
	rm -rf $(VENV) .venv-colab $(OUT) build dist .pytest_cache .mypy_cache .ruff_cache
