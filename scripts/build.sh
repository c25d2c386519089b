#!/usr/bin/env bash
# Configures and builds a preset. scripts/build.sh [preset] [target ...]; default: release, all.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-release}
shift || true
# A gigabyte a compiler: as many at once as there are cores and memory for.
memory_gib=$(awk '/MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)
jobs=$(nproc)
[ "$memory_gib" -lt "$jobs" ] && jobs=$((memory_gib > 0 ? memory_gib : 1))
# Clones of this repository share ccache's results: paths are relative to each one's root.
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1 CCACHE_SLOPPINESS=pch_defines,time_macros
log=build/$preset-configure.log
mkdir -p build
if ! cmake --preset "$preset" >"$log" 2>&1; then
  tail -30 "$log" >&2
  exit 1
fi
sed -n '/^-- Lepton/,/^-- Configuring/p' "$log" | sed '$d'
log=build/$preset-build.log
if ! cmake --build "build/$preset" --parallel "$jobs" ${1:+--target "$@"} 2>&1 | tee "$log" |
  awk '{last = $0; if (++n % 40 == 0) {print; fflush()}} END {print last}'; then
  grep -A 25 '^FAILED' "$log" | head -80 >&2
  echo "build.sh: the whole log is $log" >&2
  exit 1
fi
