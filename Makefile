# Every target is thin: it names one job and calls the tool that does it. `make help` says what each is for.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO  ?= cargo
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
BIN    := $(TARGET)/release
# The engine's dependencies must be built with one set of features, so the enclave is always built by this command alone.
ENGINE := -p cocoon-enclave -p cocoon-engine
export COCOON_ENCLAVE_BIN ?= $(BIN)/cocoon-enclave
# Where the contracts' tests write what TON's emulator did, for the local chain to do the same, and Rust's tests the other way round.
export COCOON_TRACES ?= $(TARGET)/emulator-traces
# QEMU and what looks into disk images, unpacked by scripts/vm-tools.
export PATH := $(TARGET)/vm-tools/bin:$(PATH)

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: tools
tools: # says exactly what is missing on a fresh machine
	@bash scripts/check-tools

.PHONY: test-tools
test-tools: # the same for what only tests and contracts need
	@bash scripts/check-tools tests

.PHONY: enclave
enclave: tools ## build the guest binary with mistral.rs (about 15 minutes on two cores the first time)
	$(CARGO) build --release --locked -p cocoon-enclave

.PHONY: build
build: enclave ## build everything the demo needs
	$(CARGO) build --release --locked

.PHONY: demo
demo: build ## the main job from nothing: evidence, sealed prompt, answer, receipt, payment, and six attacks refused
	$(BIN)/cocoon demo $(ARGS)

.PHONY: test
test: test-tools build ## every test: Rust crates, the enclave's binary, the contracts on TON's own emulator
	bash scripts/vm-tools $(TARGET)/vm-tools
	$(MAKE) --no-print-directory contracts-test
	$(CARGO) test --release --locked
	$(MAKE) --no-print-directory contracts-replay
	$(CARGO) test --release --locked $(ENGINE)

.PHONY: image-test
image-test: enclave ## build the guest image twice and compare; check its disk; boot it under software emulation (fetches packages of Debian)
	bash scripts/vm-tools $(TARGET)/vm-tools
	COCOON_PACKAGES=$(TARGET)/packages $(CARGO) test --release --locked --test image -- --ignored --test-threads=1

.PHONY: vm
vm: build ## boot the guest image in QEMU, appraise, prompt and pay; then one thing is another at a time, and refused by name (fetches packages of Debian)
	bash scripts/vm-tools $(TARGET)/vm-tools
	COCOON_PACKAGES=$(TARGET)/packages $(CARGO) test --release --locked --test measured -- --ignored --nocapture

.PHONY: lint
lint: tools ## rustfmt, clippy with warnings denied, layering, licences and sources of dependencies
	$(CARGO) fmt --all --check
	bash scripts/clippy
	$(CARGO) test --release --locked --test layering
	bash scripts/deny check bans licenses sources

.PHONY: advisories
advisories: ## known vulnerabilities of dependencies (needs a network)
	bash scripts/deny check advisories

# A fleet of the size that the documents speak of, which takes hours on two cores: make bench FLEET="--enclaves 10000 --days 30"
.PHONY: bench
bench: build ## measure the whole path against mistral.rs alone, in one run, and print the tables of docs/performance.md; FLEET="--enclaves 10000 --days 30" for the full history
	COCOON_ENGINE_SERVER=$$(bash scripts/engine-server) $(CARGO) run --release --locked -p cocoon-tests --bin bench -- $(ARGS)
	$(CARGO) run --release --locked -p cocoon-protocol --example sealing
	$(CARGO) run --release --locked -p cocoon-verifier --example speed
	bash scripts/peers
	$(CARGO) run --release --locked -p cocoon-tests --example fleet -- $(FLEET)
	$(CARGO) build --release --locked -p cocoon-settlement --example transfers
	taskset -c 0 $(BIN)/examples/transfers
	$(CARGO) run --release --locked -p cocoon-transparency --example appends
	MALLOC_ARENA_MAX=1 $(CARGO) run --release --locked -p cocoon-node --example appraisals
	cd settlement/contracts && npm ci --no-audit --no-fund && npm run --silent costs

.PHONY: fuzz
fuzz: ## fuzz every parser of the verifier, ten minutes each; SECONDS_EACH=n for another time
	bash scripts/fuzz $(or $(SECONDS_EACH),600)

.PHONY: mutants
mutants: ## alter the verifier's appraisal line by line and see that a test fails (hours, by hand); FILE=path for one file
	bash scripts/mutants $(or $(FILE),binding.rs bundle.rs cache.rs roots.rs verifier.rs x509.rs 'tdx/*.rs' 'snp/*.rs' 'gpu/*.rs')

.PHONY: contracts
contracts: test-tools ## compile the TON contracts from their Tolk sources and rewrite the committed code (needs Node)
	cd settlement/contracts && npm ci --no-audit --no-fund && npm run build

.PHONY: contracts-test
contracts-test: test-tools ## check the committed contract code against its sources and run the tests on TON's emulator (needs Node)
	rm -rf $(COCOON_TRACES)
	cd settlement/contracts && npm ci --no-audit --no-fund && npm run check && npm test

.PHONY: contracts-replay
contracts-replay: test-tools ## make TON's emulator do what the Rust tests did on the local chain (after them)
	cd settlement/contracts && npm run --silent replay
