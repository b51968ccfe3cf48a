# make demo   set up, then search the precision of the embedded voice on a Blackhole card (about 10 minutes)
# make test   set up, then run the tests
# make quick  those that are not marked slow
# make check  format, lint, types, direction of the rooms
# make bench  every script in benchmarks/
# make docs   regenerate what is generated: the recipe schema
# make site   the documents as a site, in site/; a broken link is an error

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test quick check bench docs site clean

demo: $(STAMP)
	$(BIN)/precision-search run recipes/tts_blackhole.yaml --resume

test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 $(PYTEST_ARGS)

quick:
	$(MAKE) test PYTEST_ARGS='-m "not slow" $(PYTEST_ARGS)'

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

docs: $(STAMP)
	$(BIN)/python -m precision.schema

site: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) build dist site studies

# One environment for everything, made again when what it holds changes.
$(STAMP): pyproject.toml constraints.txt
	sh tools/make-venv $(VENV)
	touch $(STAMP)
