# guard: build, test, demo. Every target sets up what it needs (Debian packages
# through apt-get where they are missing); see internal/setup/packages.sh.

GO ?= go
PREFIX ?= /usr/local
# The Hyperscan engine is chosen by a build tag where the library is there.
TAGS = $(shell pkg-config --exists libhs 2>/dev/null && echo hyperscan)
GOFLAGS_BUILD = -trimpath -tags "$(TAGS)"

.PHONY: demo test test-vm test-vault test-collector test-long bench lint build install install-system clean setup-build setup-test generate fuzz

build: setup-build
	$(GO) build $(GOFLAGS_BUILD) -o bin/guard ./cmd/guard

setup-build:
	@sh internal/setup/packages.sh build

# The kernels that bpf's tests boot are unpacked too; without a network those tests say
# that they were skipped.
setup-test:
	@sh internal/setup/packages.sh test
	@sh internal/setup/kernels.sh >/dev/null
	@sh internal/setup/agent.sh
	@sh internal/setup/clients.sh
	@sh internal/setup/s3.sh

demo: setup-test build
	$(GO) run $(GOFLAGS_BUILD) ./internal/demo

# vet and gofmt first: they are cheap. Then everything with Hyperscan, the pure
# Go engine by itself, and the builds for systems that this one is not.
test: setup-test lint build
	CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/guard
	GOOS=darwin CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/guard
	GOOS=windows CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/guard
	CGO_ENABLED=0 $(GO) test ./matcher ./matcher/formats
	GUARD_TEST_ALL=1 $(GO) test -tags "$(TAGS)" -timeout 12m ./...

# Only the kernel programs and sessions with --bpf block on Debian's kernels, in virtual machines (software
# emulation); they are part of test.
test-vm: setup-test
	$(GO) test -count 1 -tags "$(TAGS)" -timeout 30m -run OtherKernels -v ./bpf ./cmd/guard

# A real HashiCorp Vault, built from its Go modules (minutes the first time): values in
# it, its leases in sessions, with a real PostgreSQL.
test-vault: setup-test
	program=$$(sh internal/setup/vault.sh) && GUARD_TEST_ALL=1 GUARD_TEST_VAULT=$$program $(GO) test -count 1 -tags "$(TAGS)" -timeout 10m -run 'Real|VaultScripts|IsAStore' -v ./vault ./vault/hashivault ./cmd/guard

# The log on its way to an OpenTelemetry collector, built from its Go modules (a few
# minutes the first time).
test-collector: setup-build
	cd internal/testutil/otelcol && $(GO) build -o ../../../.cache/otelcol .
	GUARD_TEST_COLLECTOR=$(CURDIR)/.cache/otelcol $(GO) test -count 1 -run TestRealCollector -v ./audit/export

# What takes long: the race detector over everything, and each
# fuzz target for a minute.
test-long: test
	$(GO) test -race -tags "$(TAGS)" -timeout 60m ./...
	$(MAKE) fuzz

fuzz:
	@sh internal/setup/fuzz.sh "$(TAGS)"

bench: setup-test build
	$(GO) run $(GOFLAGS_BUILD) ./internal/bench
	$(GO) test -tags "$(TAGS)" -run '^$$' -bench . -benchtime 1s ./matcher/... ./pty/... ./audit/... ./broker/... ./policy ./vault ./supervisor/... ./bpf ./cmd/guard

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "gofmt would change these"; exit 1; }
	$(GO) vet -tags "$(TAGS)" ./...

generate:
	@sh internal/setup/packages.sh generate
	$(GO) generate ./bpf

install: build
	install -D -m 0755 bin/guard $(DESTDIR)$(PREFIX)/bin/guard

# For ordinary users' sessions to be searched in the kernel: a copy of the program
# that may load guard's BPF programs, and does nothing else (guard __bpf).
install-system: install
	install -D -m 0755 bin/guard $(DESTDIR)$(PREFIX)/libexec/guard/guard-bpf
	setcap cap_bpf,cap_perfmon+ep $(DESTDIR)$(PREFIX)/libexec/guard/guard-bpf

clean:
	rm -rf bin .cache
