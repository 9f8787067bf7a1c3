# Pergola. `make up` and `make test` do all their own set-up.
.DEFAULT_GOAL := help
SHELL := /bin/bash

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

.PHONY: up
up: ## One host on this machine, serving the apps at https://127.0.0.1:8443/
	@scripts/up

.PHONY: down
down: ## Stop that host; apps and data stay
	@scripts/local-host down

.PHONY: destroy
destroy: ## Remove that host with its data
	@scripts/local-host destroy

.PHONY: status
status: ## What is live on that host
	@scripts/local-host status

.PHONY: logs
logs: ## The last lines of its apps and nginx
	@scripts/local-host logs

.PHONY: rollback
rollback: ## Make an app's previous release live again: make rollback app=wine
	@scripts/local-host rollback $(app) $(release)

.PHONY: shell
shell: ## A root shell on that host
	@scripts/local-host shell

.PHONY: venv
venv: ## Make .venv from the lock file
	@scripts/bootstrap

.PHONY: test
test: ## Everything: lint, unit, template, molecule, host and browser tests
	@scripts/test all

.PHONY: test-fast
test-fast: ## Lint and unit tests, under two minutes
	@scripts/test fast

.PHONY: test-vagrant
test-vagrant: venv ## A real virtual machine: vagrant up, a prediction, provision again, destroy
	@scripts/test-vagrant

.PHONY: lint
lint: venv ## All linters
	@scripts/lint

.PHONY: bench
bench: venv ## Measure and print tables (accuracy, latency, deploys under load)
	@scripts/bench

.PHONY: docs
docs: venv ## Write the pages that are made from schemas, inventories and prices
	@.venv/bin/python scripts/manifest_doc.py
	@.venv/bin/python scripts/cost_doc.py
	@.venv/bin/python scripts/security_doc.py
	@.venv/bin/python scripts/role_readme.py

.PHONY: clean
clean: ## Remove what was built (bundles, caches); not the host, not .venv
	@rm -rf build/bundles build/test
