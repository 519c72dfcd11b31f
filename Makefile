# make demo   set up .venv and run stages 01-05 on the shipped sample
# make clinical   the same stages with the recipe that learns negations, sides and numbers; half an hour
# make test   set up .venv and run the tests
# make explore   open the demo's run in the explorer
# make lint   ruff
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
CONFIG := configs/laptop.yaml

.PHONY: demo clinical test lint explore clean

demo: $(VENV)/.ready
	$(RUN) 01_merge_paraphrases.py --config $(CONFIG)
	$(RUN) 02_prepare_training_data.py --config $(CONFIG)
	$(RUN) 03_train_embedding_model.py --config $(CONFIG)
	$(RUN) 04_evaluate_model.py --config $(CONFIG)
	$(RUN) 05_usage_example.py --config $(CONFIG)

clinical: CONFIG := configs/clinical_small.yaml
clinical: demo

explore: $(VENV)/.ready
	$(VENV)/bin/pip install --quiet --editable '.[explorer]'
	$(RUN) -m cardioembed.explorer --run runs/laptop

test: $(VENV)/.ready-test
	$(RUN) -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

lint: $(VENV)/.ready-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

clean:
	rm -rf runs/laptop runs/clinical_small

$(VENV)/.ready: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --requirement requirements.txt
	touch $@

$(VENV)/.ready-test: $(VENV)/.ready pyproject.toml
	$(VENV)/bin/pip install --quiet --editable '.[test]'
	touch $@
