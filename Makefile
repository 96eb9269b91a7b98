# Every target makes .venv itself when it is missing or when the dependencies changed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready

.PHONY: demo test test-peers peers mutants soak lint bench rivals bench-kernels bench-page bench-mgmt bench-control \
	bench-transport ct-check ct-trace sanitize check-wheel check-aarch64 docs clean

demo: $(STAMP)
	$(BIN)/interconn demo --out build/demo

# Workers share the two cores: the tests wait on sockets and processes more than they compute.
test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Jobs with other products that run here: INTERCONN_PEER_FATE_FLOW=http://... (docs/peers/fate-flow.md).
test-peers: $(STAMP)
	$(BIN)/python -m pytest -s tests/peers/test_fate_flow.py tests/peers/test_spu.py tests/peers/test_imesh.py

# The peers that come from PyPI, each in an environment of its own (1 GB); imesh's own pins want no newer requests.
peers: build/peers/spu/.ready build/peers/imesh/.ready

build/peers/spu/.ready:
	$(PYTHON) -m venv build/peers/spu
	build/peers/spu/bin/pip install 'spu==0.9.2b0' 'numpy<2'
	touch $@

build/peers/imesh/.ready:
	$(PYTHON) -m venv build/peers/imesh
	build/peers/imesh/bin/pip install 'imesh==0.0.29' 'grpcio<1.63' 'protobuf<4'
	touch $@

# Breaks the rules of the standard one by one in copies of the tree and says which break no test noticed (ONLY="M-011 ...").
mutants: $(STAMP)
	$(BIN)/python -m tests.mutations $(if $(ONLY),--only $(ONLY))

# Two gateways are killed at random for some minutes, then compared. The seed is printed: SEED=N runs the same again.
KILLS ?= 500
JOBS ?= 100
MESSAGES ?= 10000
soak: $(STAMP)
	$(BIN)/python -m tests.integration.havoc --kills $(KILLS) $(if $(SEED),--seed $(SEED))
	$(BIN)/python -m tests.integration.crash --runs $(JOBS) $(if $(SEED),--seed $(SEED))
	$(BIN)/python -m tests.integration.kept --messages $(MESSAGES) $(if $(SEED),--seed $(SEED))
	$(BIN)/python -m tests.integration.transport_soak $(if $(SEED),--seed $(SEED))
	$(BIN)/python -m tests.integration.full_disk
	$(BIN)/python -m tests.integration.large --mib 1024
	$(BIN)/python -m tests.integration.large --mib 1024 --durability spool

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python -m bench.spike --quick

# Rivals of the kernels that cannot live beside our own dependencies, each in an environment of its own (0.6 GB). One
# release of sf-heu is for Python 3.10 only: PYTHON310=python3.10 adds it.
RIVALS := sf-heu/0.5.2b0 $(if $(PYTHON310),sf-heu/0.6.0b0) fate-utils/0.1.0 openmined-psi/2.0.6 flwr/1.41.0
rivals: $(RIVALS:%=build/rivals/%/.ready)

build/rivals/%/.ready:
	$(if $(filter %/0.6.0b0,$*),$(PYTHON310),$(PYTHON)) -m venv build/rivals/$*
	build/rivals/$*/bin/pip install --quiet --disable-pip-version-check '$(subst /,==,$*)' \
	$(if $(filter sf-heu/% fate-utils/%,$*),'numpy<2') $(if $(filter sf-heu/%,$*),'protobuf<5')
	touch $@

# Every kernel against the rivals that are there (some ten minutes); ONLY=TEXT chooses rows, QUICK=1 is rough.
bench-kernels: $(STAMP)
	$(BIN)/python -m accel.bench --out build/bench $(if $(QUICK),--quick) $(if $(ONLY),--only '$(ONLY)') \
	$(foreach ready,$(wildcard build/rivals/*/*/.ready),--rival $(word 3,$(subst /, ,$(ready)))=$(dir $(ready))bin/python)

# Puts the last run of bench-kernels into docs/benchmarks.md.
bench-page: $(STAMP)
	$(BIN)/python -m bench.kernels_page build/bench/kernels.json

bench-mgmt: $(STAMP)
	$(BIN)/python -m bench.mgmt

bench-transport: $(STAMP)
	$(BIN)/python -m bench.transport

bench-control: $(STAMP)
	$(BIN)/python -m bench.control

# The native kernels' tests, and those of the CUDA sources on the CPU, on a build with AddressSanitizer and
# UndefinedBehaviorSanitizer (gcc), beside the tree. With -O2 and -g, which follows every variable of the lanes through
# their long functions, it takes gcc five times as long.
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -O1 -g1
sanitize: $(STAMP)
	rm -rf build/sanitize && mkdir -p build/sanitize
	cp -r accel specs tests setup.py pyproject.toml LICENSE README.md build/sanitize/
	rm -f build/sanitize/accel/*.so
	cd build/sanitize && CFLAGS="$(SANITIZE)" LDFLAGS="$(SANITIZE)" $(abspath $(BIN))/python setup.py --quiet build_ext --inplace
	cd build/sanitize && LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc PYTHONPATH=. SHIM_FLAGS="$(SANITIZE)" \
	$(abspath $(BIN))/python -m pytest -p no:cacheprovider tests/backends --ignore tests/backends/test_packaging.py \
	-k "not reference and not compiles"

# Whether what the kernels do depends on their secrets (bench/ct/check.c): branches and addresses of every core under
# valgrind, where the lanes' instructions are emulated (ONLY="'avx512ifma: p256' encrypt" picks); `make ct-trace` steps through
# the instructions as they are, which is slow on some virtual machines.
CT_SOURCES := bench/ct/check.c $(filter-out %/module.c %/bind_curves.c %/bind_masks.c,$(wildcard accel/csrc/*.c))
# -z now: a function of the C library that is bound at its first call would make the first of three traces longer.
CT_BUILD := gcc -std=c11 -O2 -g -fno-strict-aliasing -pthread -Wl,-z,now -Wno-psabi -Wno-attributes -Iaccel/csrc
ct-check: build/ct/emulated
	valgrind --quiet --error-limit=no --suppressions=bench/ct/by_design.supp --log-file=build/ct/memcheck.log $< poison $(ONLY)

ct-trace: build/ct/native
	$< trace $(ONLY)

build/ct/emulated build/ct/native: $(CT_SOURCES) $(wildcard accel/csrc/*.h) bench/ct/emulated/immintrin.h
	mkdir -p build/ct
	$(CT_BUILD) $(if $(filter %/emulated,$@),-Ibench/ct/emulated) -o $@ $(CT_SOURCES)

# What a release consists of, built and installed as its users would; PYTHONS="python3.12 ...": there too.
check-wheel: $(STAMP)
	$(BIN)/python -m tests.wheels $(PYTHONS:%=--python %)

# The kernels of other CPUs, under an emulator. Says which packages of the system it wants where they are missing.
check-aarch64: $(STAMP)
	$(BIN)/python -m tests.aarch64

docs: $(STAMP)
	$(BIN)/python -m tests.requirements --write
	$(BIN)/python -m tests.cli_page --write

clean:
	rm -f accel/*.so
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache $(VENV)

$(STAMP): pyproject.toml constraints.txt setup.py $(wildcard accel/csrc/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@
