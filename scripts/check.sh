#!/usr/bin/env bash
# All that must be clean before a change lands: format, layers, registration, headers, build without
# warnings, tests, and sanitizers (ASan+UBSan on the unit tests, TSan on collectives and scheduler).
#   scripts/check.sh [--fast] [--fuzz-seconds N]
#     --fast leaves out the slow tests, the sanitizers and the fuzzers, which get N seconds a parser
#     (default 60)
set -euo pipefail
cd "$(dirname "$0")/.."
fast=false fuzz_seconds=60
while [ $# -gt 0 ]; do
  case "$1" in
    --fast) fast=true ;;
    --fuzz-seconds) fuzz_seconds=${2:?--fuzz-seconds N} && shift ;;
    *) echo "check.sh: unknown argument '$1'" >&2 && exit 2 ;;
  esac
  shift
done
step() { printf '\n== %s\n' "$*"; }
scripts/setup.sh
step format
scripts/format.sh --check
step layers
python3 scripts/check_layers.py
step registered tests
python3 scripts/check_tests_registered.py
step build
scripts/build.sh release
step headers
scripts/check_headers.sh
if $fast; then
  step fast tests
  exec ctest --test-dir build/release -L fast --output-on-failure
fi
step tests
ctest --test-dir build/release --output-on-failure
export OMP_WAIT_POLICY=passive
step "ASan and UBSan on the unit tests"
scripts/build.sh asan-ubsan unit_tests
UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
  ctest --test-dir build/asan-ubsan -L fast --output-on-failure
step "TSan on collectives and scheduler"
scripts/build.sh tsan thread_tests
TSAN_OPTIONS="suppressions=$PWD/scripts/tsan.supp halt_on_error=1" \
  ctest --test-dir build/tsan -L threads --output-on-failure
step "fuzz, $fuzz_seconds seconds a parser"
scripts/fuzz.sh "$fuzz_seconds"
step "all clean"
