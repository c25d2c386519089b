#!/usr/bin/env bash
# Fuzzes the parsers with libFuzzer (clang 14), under ASan and UBSan:
#   scripts/fuzz.sh [seconds per target, default 60] [target ...]
# Starts from tests/fuzz/seeds and regressions; what it finds on the way stays in build/fuzz/corpus.
# An input that breaks a parser is left in build/fuzz/found: fix the parser, then move the input to
# tests/fuzz/regressions/<target>/, where fuzz_regressions_test keeps it.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh --fuzz
seconds=${1:-60}
shift || true
scripts/build.sh fuzz lepton_fuzz
fuzz=build/fuzz/tests/fuzz/lepton_fuzz
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 ASAN_OPTIONS=detect_leaks=1
mkdir -p build/fuzz/found
failed=()
while read -r target max_bytes; do
  if [ $# -gt 0 ] && [[ " $* " != *" $target "* ]]; then continue; fi
  corpus=build/fuzz/corpus/$target
  mkdir -p "$corpus"
  inputs=("$corpus" "tests/fuzz/seeds/$target")
  [ -d "tests/fuzz/regressions/$target" ] && inputs+=("tests/fuzz/regressions/$target")
  log=build/fuzz/$target.log
  if LEPTON_FUZZ_TARGET=$target "$fuzz" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=3000 \
    -max_len="$max_bytes" -artifact_prefix="build/fuzz/found/$target-" -print_final_stats=1 \
    "${inputs[@]}" >"$log" 2>&1; then
    printf '%-14s %s\n' "$target" "$(grep -E 'stat::number_of_executed_units' "$log" |
      awk '{print $2 " inputs"}'), $(grep -oE 'cov: [0-9]+' "$log" | tail -1)"
  else
    failed+=("$target")
    printf '%-14s FAILED, see %s:\n' "$target" "$log"
    grep -E 'ERROR|SUMMARY|runtime error|Test unit' "$log" | head -6 || true
  fi
done < <("$fuzz")
if [ ${#failed[@]} -gt 0 ]; then
  echo "fuzz: failed: ${failed[*]}" >&2
  exit 1
fi
echo "fuzz: clean"
