# Two commands do all the set-up: `make demo` and `make test`. Both need Python 3.11 or newer and make, nothing else.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: help install demo test lint clean

help: ## List the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

install: $(INSTALLED) ## Make .venv and install vqtool with its test tools

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

demo: install ## Train three quantizers on embedded photographs, compare them and draw the report (four minutes on two cores)
	$(BIN)/vqtool ablate --quantizers standard,ema,gumbel --steps 200 --set train.validate_every=200 --out runs/demo
	$(BIN)/vqtool report runs/demo
	@echo
	@echo "Look at:      runs/demo/report/index.html"
	@echo "TensorBoard:  $(BIN)/tensorboard --logdir runs/demo"

test: install ## Run all tests, two at a time
	$(BIN)/python -m pytest -n 2 -q

lint: install ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean: ## Remove the environment
	rm -rf .venv
