#!/usr/bin/env bash
# All that must be clean before a change lands, in this order:
#   format layers registered build headers tests asan tsan fuzz
# (build: without warnings; asan: ASan and UBSan on the unit tests; tsan: TSan on those of threads;
# fuzz: a minute for each parser.) Stops at the first that is not clean, and says how long each took.
#   scripts/check.sh [--fast | step ...]     --fast: the fast tests only, no sanitizers and no fuzz
# One step more on demand, chaos: every fault in every phase, and LEPTON_CHAOS_SEEDS=100 schedules of
# faults on a pool and on `lepton run`, some 30 minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
# Open MPI and OpenMP would spin on the cores that the tests share.
export OMP_WAIT_POLICY=passive OMPI_MCA_mpi_yield_when_idle=1
run_ctest() { ctest --test-dir "build/$1" --output-on-failure --no-tests=error "${@:2}"; }

format() { scripts/format.sh --check; }
layers() { python3 scripts/check_layers.py; }
registered() { python3 scripts/check_tests_registered.py; }
build() { scripts/build.sh release; }
headers() { scripts/check_headers.sh; }
fast_tests() { run_ctest release -L fast; }
tests() { run_ctest release; }
asan() {
  scripts/build.sh asan-ubsan unit_tests
  # The model checker visits all states of pure functions, which other tests call too.
  UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 run_ctest asan-ubsan -L fast -E protocol_model
}
tsan() {
  scripts/build.sh tsan thread_tests
  TSAN_OPTIONS="suppressions=$PWD/scripts/tsan.supp halt_on_error=1" run_ctest tsan -L threads
}
fuzz() { scripts/fuzz.sh 60; }

chaos() {
  export LEPTON=$PWD/build/release/lepton LEPTON_CHAOS_SEEDS=${LEPTON_CHAOS_SEEDS:-100} LEPTON_MATRIX=all
  python3 tests/faults/matrix_test.py
  python3 tests/faults/chaos_pool_test.py
  python3 tests/faults/chaos_test.py
}

steps=(format layers registered build headers tests asan tsan fuzz)
case "${1:-}" in
  -h | --help) sed -n '2,8p' "$0"; exit 0 ;;
  --fast) steps=(format layers registered build headers fast_tests) ;;
  ?*)
    for step in "$@"; do
      [[ " ${steps[*]} chaos " == *" $step "* ]] || { echo "check.sh: no step '$step' (see --help)" >&2; exit 2; }
    done
    steps=("$@")
    ;;
esac
scripts/setup.sh
took=()
for step in "${steps[@]}"; do
  printf '\n== %s\n' "$step"
  begin=$SECONDS
  # Not `if "$step"`: a failure inside must end the step, and does with set -e only outside a test.
  "$step"
  took+=("$(printf '%-10s %4d s' "$step" $((SECONDS - begin)))")
done
printf '\n== all clean\n'
printf '%s\n' "${took[@]}"
