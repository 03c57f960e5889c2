# What one does with a clone of flux. `make` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
SEEDS ?= 200
START ?= 1
ATTACK = $(CARGO) test --test it -- --nocapture --exact nemesis::every_acknowledged_job_ends_once_whatever_is_done_to

.PHONY: help
help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

.PHONY: demo
demo: ffmpeg ## Encode a clip through a server of its own (CLIP=file PRESET=name)
	@scripts/demo.sh

.PHONY: run
run: ffmpeg ## Serve on http://127.0.0.1:8080, data in ./flux-data
	$(CARGO) run -- serve --role all

.PHONY: test
test: ffmpeg postgres proftpd webhook-libraries emulators moto chromium ## Run all tests
	$(CARGO) test --doc --quiet
	@# Last, so that its summary is the last thing to read.
	if $(CARGO) nextest --version >/dev/null 2>&1; then $(CARGO) nextest run; else $(CARGO) test --lib --bins --tests; fi

.PHONY: test-garage
test-garage: ffmpeg ## Test with garage, a strict S3 server (built once, 5 minutes; FLUX_TEST_GARAGE=program)
	FLUX_TEST_GARAGE=$$(scripts/ensure-garage.sh) && export FLUX_TEST_GARAGE && $(CARGO) test --test it -- --ignored garage::

.PHONY: soak
soak: ffmpeg postgres ## Attack real processes for long (2 h; SEEDS=200 START=1; a quarter as many share a database)
	FLUX_SIM_TASKS=100000 $(CARGO) test --lib -- --nocapture a_thousand_workers_and_their_crowd_of_tasks
	FLUX_NEMESIS_START=$(START) FLUX_NEMESIS_SEEDS=$(SEEDS) $(ATTACK)_processes_and_network
	FLUX_NEMESIS_START=$(START) FLUX_NEMESIS_SEEDS=$$(($(SEEDS) / 4)) $(ATTACK)_controls_that_share_a_database

.PHONY: lint
lint: ## Check formatting, clippy and documentation; any warning fails
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items

.PHONY: bench
bench: ffmpeg postgres ## Measure (30 minutes; `make bench ONLY=submit` for a part: idle fleet submit store latency overhead ladder sandbox buckets readers)
	$(CARGO) bench -- $(ONLY)

.PHONY: bench-shipped
bench-shipped: ffmpeg postgres ## Measure starts, idle memory and lost workers of the program as it is shipped (profile dist)
	$(CARGO) build --profile dist --bin flux
	BENCH_PROGRAM="$${CARGO_TARGET_DIR:-$(CURDIR)/target}/dist/flux" $(CARGO) bench -- idle fleet

.PHONY: order
order: ffmpeg ## Write start.order anew: what idle processes run lies side by side in what is shipped (needs valgrind)
	@scripts/order-start.sh

.PHONY: ffmpeg postgres proftpd webhook-libraries emulators moto chromium
ffmpeg postgres proftpd webhook-libraries emulators moto chromium:
	@scripts/ensure-$@.sh
