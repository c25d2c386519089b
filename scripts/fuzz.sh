#!/usr/bin/env bash
# Fuzzes the parsers with libFuzzer (clang 14), under ASan and UBSan, as many at once as there are
# cores:
#   scripts/fuzz.sh [seconds per target, default 60] [target ...]
# Starts from tests/fuzz/seeds and regressions; what it finds on the way stays in build/fuzz/corpus.
# An input that breaks a parser is left in build/fuzz/found: fix the parser, then move the input to
# tests/fuzz/regressions/<target>/, where fuzz_regressions_test keeps it.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh --fuzz
export seconds=${1:-60}
shift || true
scripts/build.sh fuzz lepton_fuzz
export fuzz=build/fuzz/tests/fuzz/lepton_fuzz
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 ASAN_OPTIONS=detect_leaks=1
mkdir -p build/fuzz/found

fuzz_one() { # target, the most bytes of an input
  local corpus=build/fuzz/corpus/$1 log=build/fuzz/$1.log
  mkdir -p "$corpus"
  local inputs=("$corpus" "tests/fuzz/seeds/$1")
  [ -d "tests/fuzz/regressions/$1" ] && inputs+=("tests/fuzz/regressions/$1")
  if LEPTON_FUZZ_TARGET=$1 "$fuzz" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=3000 \
    -max_len="$2" -artifact_prefix="build/fuzz/found/$1-" -print_final_stats=1 \
    "${inputs[@]}" >"$log" 2>&1 </dev/null; then
    printf '%-14s %s\n' "$1" "$(grep -E 'stat::number_of_executed_units' "$log" |
      awk '{print $2 " inputs"}'), $(grep -oE 'cov: [0-9]+' "$log" | tail -1)"
  else
    printf '%-14s FAILED, see %s:\n' "$1" "$log"
    grep -E 'ERROR|SUMMARY|runtime error|Test unit' "$log" | head -6 || true
    return 1
  fi
}
export -f fuzz_one
targets=$("$fuzz")
for wanted in "$@"; do
  grep -q "^$wanted " <<<"$targets" || { echo "fuzz: no target '$wanted'; there are:" $(cut -d' ' -f1 <<<"$targets") >&2; exit 2; }
done
while read -r target max_bytes; do
  if [ $# -eq 0 ] || [[ " $* " == *" $target "* ]]; then echo "$target $max_bytes"; fi
done <<<"$targets" | xargs -P "$(nproc)" -L 1 bash -c 'fuzz_one "$0" "$1"' || {
  echo "fuzz: failed, see above" >&2
  exit 1
}
echo "fuzz: clean"
