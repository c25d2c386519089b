#!/usr/bin/env bash
# Runs the benches that have a peer or a limit of their own and need no choice of their user's, one after the
# other, and prints their ratios and which goals they meet; bench/README.md has the others. Installs the peers
# (PyTorch) if they are missing. Quiet machine, please: nothing else should run.
#   scripts/bench.sh [--check]      --check: status 1 where a goal was missed
set -euo pipefail
cd "$(dirname "$0")/.."
check=
case "${1:-}" in
  -h | --help) sed -n '2,5p' "$0"; exit 0 ;;
  --check) check=yes ;;
  ?*) echo "bench.sh: no option '$1' (see --help)" >&2; exit 2 ;;
esac
scripts/setup.sh --bench
scripts/build.sh release lepton gemm_bench journal_bench allreduce_bench promises_bench survivor_bench overlap_bench hosts_bench model_bench generation_bench onnx_bench
models=$(mktemp -d)
trap 'rm -rf "$models"' EXIT
log=$models/log
echo "machine: $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), load $(cut -d' ' -f1 /proc/loadavg)"
step() { printf '\n== %s\n' "$*"; "$@" 2>&1 | tee -a "$log"; }
# oneDNN's OpenMP threads would spin on the cores that the other side is measured on.
OMP_WAIT_POLICY=passive step build/release/bench/gemm_bench
step build/release/bench/journal_bench
step build/release/bench/allreduce_bench
step build/release/bench/promises_bench
step build/release/bench/survivor_bench
step /usr/bin/python3 bench/overlap_bench.py --work "6 384 256 12 bf16 1 8 1024"
step /usr/bin/python3 bench/hosts_bench.py
step /usr/bin/python3 bench/compression_bench.py -
step /usr/bin/python3 bench/recovery_bench.py
step /usr/bin/python3 bench/join_bench.py
git ls-files '*.md' '*.h' | xargs cat >"$models/text.txt"
step /usr/bin/python3 bench/overhead_bench.py "$models/text.txt" --ranks 2 --shards 2
step /usr/bin/python3 bench/overhead_bench.py "$models/text.txt" --ranks 3 --logical-shards 8
step /usr/bin/python3 bench/model_torch.py
step /usr/bin/python3 bench/generation_torch.py
/usr/bin/python3 tests/golden/onnx/make_models.py "$models" --large >/dev/null
step build/release/bench/onnx_bench "$models"
missed=$(grep -c '^goal: .*: MISSED$' "$log" || true)
printf '\n== %d of %d goals met\n' $(($(grep -c '^goal: ' "$log" || true) - missed)) "$(grep -c '^goal: ' "$log" || true)"
grep '^goal: .*: MISSED$' "$log" || true
[ -z "$check" ] || [ "$missed" -eq 0 ]
