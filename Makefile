# Everything a newcomer needs; each word sets up what it needs by itself.
#
#   make run  [DATA=bars.csv] [REPAIR=splice] [PROFILE=study] [OUT=runs/NAME] [P="name=value …"]
#   make test [T="-k cache"]      make docs [RUN=runs/NAME]      make lab      make bench

PYTHON  ?= python3
PROFILE ?= study
VENV    := .venv
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready-study
READY_DEV := $(VENV)/.ready
comma   := ,
export DATA REPAIR PROFILE OUT P RUN
export OPENBLAS_NUM_THREADS ?= 1

# JupyterLab opens on the front page, asks no questions and fetches no news.
LAB     := --LabApp.default_url=/lab/tree/index.ipynb --LabApp.app_settings_dir=$(CURDIR)/.ci/lab

.DEFAULT_GOAL := help
.PHONY: run test docs lab bench help browser

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@sed -n '3,4s/^#  */e.g. /p' $(MAKEFILE_LIST)

# The environments, made once and brought up to date when the requirements change: what the study needs, and all that developers need, which includes it.
# Python compiles a module when it is imported first; pip would compile all of them, most of which nobody imports, while everybody waits.
# While the larger packages are installed a core is idle: `btc-hedge warm` compiles what the study runs, and afterwards what learners run, for which those packages are
# needed. Nothing waits for it or minds if it fails.
define install
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed: make PYTHON=python3.11 …" if sys.version_info < (3, 11) else 0)'
	@echo "setting up $(VENV), once: about $(2) packages, a few minutes"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check --no-compile -qq -c constraints.txt -e .
	@(nice $(BIN)/btc-hedge warm --workers 1 > $(VENV)/warm.log 2>&1 < /dev/null &)
	@$(BIN)/python -m pip install --disable-pip-version-check --no-compile -qq -c constraints.txt -e '.[$(1)]'
	@(nice $(BIN)/btc-hedge warm --workers 1 >> $(VENV)/warm.log 2>&1 < /dev/null &)
	@touch $(3)
endef

$(READY): settings.ini setup.py constraints.txt
	$(call install,train$(comma)dask,90,$@)

# pfhedge, which guide 11 enters a model of, asks for NumPy 1; it works with NumPy 2, so it comes without what it asks for.
$(READY_DEV): settings.ini setup.py constraints.txt
	$(call install,dev,200,$(READY))
	@$(BIN)/python -m pip install --disable-pip-version-check --no-compile -qq -c constraints.txt --no-deps pfhedge
	@touch $@

run: $(READY) ## the study: notebooks 01 to 08 into one run folder
	@set -f; set --; for p in $$P; do set -- "$$@" -p "$$p"; done; \
	$(BIN)/btc-hedge run --profile "$$PROFILE" $(if $(DATA),--data "$$DATA") $(if $(REPAIR),--repair "$$REPAIR") $(if $(OUT),--out "$$OUT") "$$@"

test: $(READY_DEV) browser ## every test, from the notebooks' own cells to the site in a browser
	$(BIN)/python -m pytest -n logical --dist loadgroup --no-loadscope-reorder --durations=40 -ra $(T) tests

# The site is tested in a real browser; without one those tests are skipped and say so.
browser:
	@command -v chromium > /dev/null && command -v chromedriver > /dev/null || \
	{ test "$$(id -u)" = 0 && command -v apt-get > /dev/null && apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium chromium-driver > /dev/null; } || \
	echo "no chromium and chromedriver here: install both (Debian: apt-get install chromium chromium-driver) to test the site in a browser"

docs: $(READY_DEV) ## the site, into _docs/
	@$(BIN)/btc-hedge docs $(if $(RUN),--run "$$RUN")

lab: $(READY_DEV) ## JupyterLab on the notebooks
	@$(BIN)/python -m jupyterlab nbs $(LAB)

bench: $(READY_DEV) ## speed against peers and limits, into runs/benchmarks.ipynb; its ratios into nbs/results/ratios.json
	@mkdir -p runs && $(BIN)/python -m papermill -k python3 --cwd nbs nbs/benchmarks.ipynb runs/benchmarks.ipynb
