# Pergola. `make up` and `make test` do all their own set-up.
.DEFAULT_GOAL := help
SHELL := /bin/bash

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

.PHONY: up
up: ## The whole cloud on this machine: an AWS account from the VPC to two hosts behind https://127.0.0.1:8443/
	@scripts/rehearse up

.PHONY: down
down: ## End the rehearsal; nothing of it is kept
	@scripts/rehearse down

.PHONY: status
status: ## What there is in the rehearsal: hosts, health, balancers, alarms
	@scripts/rehearse status

.PHONY: logs
logs: ## What its hosts said
	@scripts/rehearse logs

.PHONY: up-local
up-local: ## Instead, one host on this machine, without a cloud, at the same address
	@scripts/up

.PHONY: down-local
down-local: ## Stop that host; apps and data stay
	@scripts/local-host down

.PHONY: destroy-local
destroy-local: ## Remove that host with its data
	@scripts/local-host destroy

.PHONY: status-local
status-local: ## What is live on that host
	@scripts/local-host status

.PHONY: logs-local
logs-local: ## The last lines of its apps and nginx
	@scripts/local-host logs

.PHONY: rollback-local
rollback-local: ## Make an app's previous release live again there: make rollback-local app=wine
	@scripts/local-host rollback $(app) $(release)

.PHONY: shell-local
shell-local: ## A root shell on that host
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

.PHONY: test-rehearsal
test-rehearsal: ## The stories of whole environments, and the life of every inventory: an hour
	@scripts/test rehearsal

.PHONY: lint
lint: venv ## All linters
	@scripts/lint

.PHONY: audit
audit: venv ## Known vulnerabilities of the packages that hosts get; asks PyPI
	@scripts/audit

.PHONY: bench
bench: venv ## Measure and print tables (accuracy, latency, deploys under load)
	@scripts/bench

.PHONY: bench-rehearsal
bench-rehearsal: venv ## Break hosts and a zone under load, and print how long healing took (half an hour)
	@.venv/bin/python bench/self_healing.py

.PHONY: bench-deploy
bench-deploy: venv ## Deploys, bad releases and killed controllers under load, five times each (four hours; parts: see bench/deploys.py)
	@.venv/bin/python bench/deploys.py

.PHONY: gameday
gameday: venv ## Break hosts, zone, database, disk, secrets and more under load in the rehearsal; print what became of it (an hour)
	@.venv/bin/python bench/gameday.py

.PHONY: docs
docs: venv ## Write the pages that are made from schemas, inventories and prices
	@.venv/bin/python scripts/manifest_doc.py
	@.venv/bin/python scripts/inventory_doc.py
	@.venv/bin/python scripts/cost_doc.py
	@.venv/bin/python scripts/security_doc.py
	@.venv/bin/python scripts/role_readme.py

.PHONY: clean
clean: ## Remove what was built (bundles, caches); not the host, not .venv
	@rm -rf build/bundles build/test
