PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# glibc would hand every large tensor's memory back and take it again page by page, at a good part of an edit's time.
KEEP_MEMORY := GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=1073741824:glibc.malloc.mmap_threshold=1073741824

# What was typed reaches the program as it is, with its spaces, quotes and dollar signs: through the environment.
override IMAGE := $(value IMAGE)
override INSTRUCTION := $(value INSTRUCTION)
export IMAGE INSTRUCTION

.PHONY: help lab demo test fuzz matrix long kills flakes bench full-size benchmark evaluate captions choose speed figure ablations \
	gallery finetune skills crisp filtering train clip notebooks

help: ## show this list
	@echo "make lab is where to start. All commands:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

lab: $(VENV)/installed ## set up, then open JupyterLab on the quickstart
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/00_quickstart.ipynb

demo: $(VENV)/installed ## set up, then edit a picture into outputs/ [IMAGE=cat.jpg] [INSTRUCTION="make it blue"]
	@$(BIN)/python -m editmgt_lab.views.demo $${IMAGE:+--image "$$IMAGE"} \
		$${INSTRUCTION:+--instruction "$$INSTRUCTION"} --output outputs/

test: $(VENV)/installed-test ## set up, then run the linter and every test
	$(BIN)/ruff check editmgt_lab tests notebooks/build.py notebooks/src
	$(BIN)/ruff format --check editmgt_lab tests notebooks/build.py
	$(KEEP_MEMORY) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadgroup --no-loadscope-reorder

fuzz: $(VENV)/installed-test ## ten thousand bad inputs: each a right result or a clear error [ARGS="--count 500 --seed 1"]
	$(BIN)/python -m tests.fuzz $(ARGS)

matrix: $(VENV)/installed-test ## the suite on every supported Python, and with the lowest versions of all dependencies
	$(BIN)/python -m tests.matrix $(ARGS)

kills: $(VENV)/installed-test ## kill what takes long and writes at 100 random moments, fill its disk, and see that nothing is lost
	$(BIN)/python -m tests.kills $(ARGS)

long: $(VENV)/installed-test ## a thousand edits, every view opened 200 times, a notebook run 50 times: does memory grow?
	$(BIN)/python -m tests.long $(ARGS)

flakes: $(VENV)/installed-test ## the whole suite 20 times, in another order each time, beside busy loops
	$(BIN)/python -m tests.flakes $(ARGS)

bench: $(VENV)/installed ## time an edit, with and without capture
	$(BIN)/python -m editmgt_lab.studies.bench $(ARGS)

full-size: $(VENV)/installed ## an edit at the released size, random weights: time, memory, floor [ARGS="--layers 4 --growth"]
	$(BIN)/python -m editmgt_lab.studies.full_size $(ARGS)

benchmark: $(VENV)/installed ## run a published benchmark [ARGS="emu-edit --data FOLDER"], or go on with it
	$(BIN)/python -m editmgt_lab.benchmarks $(ARGS)

evaluate: $(VENV)/installed ## score the edits on the small world's test split
	$(BIN)/python -m editmgt_lab.studies.evaluate $(ARGS)

captions: $(VENV)/installed ## judge generated scenes: are the caption's objects, colours and places right?
	$(BIN)/python -m editmgt_lab.studies.captions $(ARGS)

choose: $(VENV)/installed ## measure the settings on the validation split [ARGS="--write data_samples/tiny" keeps the best]
	$(BIN)/python -m editmgt_lab.studies.choose $(ARGS)

speed: $(VENV)/installed ## score against time: unmasking orders, steps, the cache and the hold, as a table and a figure
	$(BIN)/python -m editmgt_lab.studies.speed $(ARGS)

figure: $(VENV)/installed ## the λ figure: what holding buys and costs, beside the published curve and the controls
	$(BIN)/python -m editmgt_lab.studies.hold_figure $(ARGS)

ablations: $(VENV)/installed ## change one part of the method at a time: hold, blocks, filter, words, injection
	$(BIN)/python -m editmgt_lab.studies.ablations $(ARGS)

gallery: $(VENV)/installed ## a page of edits of every category, chosen by rule, failures beside successes
	$(BIN)/python -m editmgt_lab.studies.gallery $(ARGS)

finetune: $(VENV)/installed ## teach the model a skill or a data set [ARGS="cactus --replay 250"]
	$(BIN)/python -m editmgt_lab.finetuning $(ARGS)

skills: $(VENV)/installed ## what fine-tuning teaches in some minutes, and what it forgets
	$(BIN)/python -m editmgt_lab.studies.skills $(ARGS)

crisp: $(VENV)/installed ## the data pipeline, from pictures to checked edits [ARGS="FOLDER --output outputs/crisp"]
	$(BIN)/python -m editmgt_lab.crisp $(ARGS)

filtering: $(VENV)/installed ## what filtered pairs teach, and unfiltered ones; what leaks, and what the hold stops
	$(BIN)/python -m editmgt_lab.studies.filtering $(ARGS)

train: $(VENV)/installed ## train the small model from nothing; goes on where it was stopped
	$(BIN)/python -m editmgt_lab.training $(ARGS)

clip: $(VENV)/installed ## train the small CLIP that measures the drawn world; goes on where it was stopped
	$(BIN)/python -m editmgt_lab.training.clip $(ARGS)

notebooks: $(VENV)/installed-test ## run the notebooks from their sources and keep their pictures
	$(BIN)/python notebooks/build.py $(ARGS)

$(VENV)/installed: pyproject.toml constraints.txt
	@echo "Setting up $(VENV): once, a few minutes ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[crisp]"
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	@echo "Adding what the tests need ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[crisp,test]"
	@touch $@
