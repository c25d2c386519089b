#!/usr/bin/env bash
# Runs the benches that have a peer or a limit of their own and need no choice of their user's, one after the
# other, and prints their ratios; bench/README.md has the others. Installs the peers
# (PyTorch) if they are missing. Quiet machine, please: nothing else should run.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh --bench
scripts/build.sh release lepton gemm_bench journal_bench allreduce_bench promises_bench overlap_bench hosts_bench model_bench generation_bench onnx_bench
echo "machine: $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), load $(cut -d' ' -f1 /proc/loadavg)"
step() { printf '\n== %s\n' "$*"; "$@"; }
# oneDNN's OpenMP threads would spin on the cores that the other side is measured on.
OMP_WAIT_POLICY=passive step build/release/bench/gemm_bench
step build/release/bench/journal_bench
step build/release/bench/allreduce_bench
step build/release/bench/promises_bench
step /usr/bin/python3 bench/overlap_bench.py --work "6 384 256 12 bf16 1 8 1024"
step /usr/bin/python3 bench/hosts_bench.py
step /usr/bin/python3 bench/compression_bench.py -
step /usr/bin/python3 bench/recovery_bench.py
step /usr/bin/python3 bench/model_torch.py
step /usr/bin/python3 bench/generation_torch.py
models=$(mktemp -d)
trap 'rm -rf "$models"' EXIT
/usr/bin/python3 tests/golden/onnx/make_models.py "$models" --large >/dev/null
step build/release/bench/onnx_bench "$models"
