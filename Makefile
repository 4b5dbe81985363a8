# The one front door. `make` prints this help from the comments below.
export PATH := $(PATH):$(HOME)/.cargo/bin
JOBS ?= $(shell nproc)

.PHONY: help
help:  ## print this help
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

.PHONY: setup
setup:  ## install what is missing (Debian packages, Rust crates, Python environment)
	tools/setup.sh --tests

.PHONY: build
build:  ## build the programs into build/bin
	tools/setup.sh
	cmake --preset release
	ninja -j $(JOBS) -C build switchyard switchyard-gateway switchyard-router switchyard-expert-shard switchyard-autoscaler switchyard-loadtest

.PHONY: run
run: build  ## start everything on this machine with the demo model and stream a completion
	tools/run_demo.sh

.PHONY: stop
stop:  ## stop what `make run` started
	build/bin/switchyard down --state-dir build/run

.PHONY: test
test:  ## install what is missing, build, run every check and test
	tools/test.sh

.PHONY: unit
unit:  ## build and run the unit tests only
	cmake --preset release
	ninja -j $(JOBS) -C build
	ctest --no-tests=error --test-dir build --output-on-failure -j $(JOBS) -LE 'integration|slow'

.PHONY: sim
sim:  ## simulated transport under seeds: make sim SEED=7
	cmake --preset release
	ninja -j $(JOBS) -C build dispatch_sim_test
	cd build && SY_SEED=$(SEED) bin/dispatch_sim_test

.PHONY: asan
asan:  ## build with AddressSanitizer and UBSan and run the tests
	cmake --preset asan
	ninja -j $(JOBS) -C build/asan
	ctest --no-tests=error --test-dir build/asan --output-on-failure -j $(JOBS) -LE 'integration|slow'

.PHONY: tsan
tsan:  ## build the in-process libs with ThreadSanitizer and run their tests
	cmake --preset tsan
	ninja -j $(JOBS) -C build/tsan
	ctest --no-tests=error --test-dir build/tsan --output-on-failure -j $(JOBS) -LE 'integration|slow'

.PHONY: fuzz
fuzz:  ## run each fuzz target for T seconds (20)
	cmake --preset fuzz -DSY_FUZZ_SECONDS=$(or $(T),20)
	ninja -j $(JOBS) -C build/fuzz
	ctest --no-tests=error --test-dir build/fuzz --output-on-failure -L fuzz

.PHONY: lint
lint:  ## house rules, formatting, generated documents, clang-tidy on changed files
	tools/lint.sh --tidy

.PHONY: format
format:  ## format all sources in place
	.venv/bin/clang-format -i $$(git ls-files --cached --others --exclude-standard '*.h' '*.cc')

.PHONY: docs
docs:  ## write docs/config.md and docs/metrics.md anew
	python3 tools/gen_docs.py

MICRO_BENCHES := wire dispatch transport scheduler prefix_tree sampler planner

.PHONY: bench
bench:  ## run the micro benchmarks and that of a layer with DeepSeek-V3's shapes
	cmake --preset release
	ninja -j $(JOBS) -C build $(addsuffix _bench,kernels experts $(MICRO_BENCHES))
	build/bin/kernels_bench
	build/bin/experts_bench
	set -e; for bench in $(MICRO_BENCHES); do build/bin/$${bench}_bench --benchmark_min_time=0.2; done

.PHONY: bench-peers
bench-peers:  ## compare with llama.cpp and ik_llama.cpp (IK_LLAMA_DIR); FLAGS="--rounds 7 --record"
	cmake --preset release
	ninja -j $(JOBS) -C build switchyard switchyard-gateway switchyard-router switchyard-expert-shard switchyard-autoscaler switchyard-loadtest
	bench/peers/build.py --jobs $(JOBS)
	bench/peers/make_mid_model.py
	bench/peers/convert.py
	bench/peers/compare.py $(FLAGS)

.PHONY: bench-quality
bench-quality:  ## write the quality table of docs/formats.md anew: KL to F32, bits, memory of each format
	cmake --preset release
	ninja -j $(JOBS) -C build switchyard-quality
	bench/peers/build.py --jobs $(JOBS) --only llama
	bench/peers/convert.py --models demo --formats f32,bf16,Q8_0,Q4_K_M
	bench/quality/table.py --write

.PHONY: clean
clean:  ## remove what was built
	rm -rf build .venv
