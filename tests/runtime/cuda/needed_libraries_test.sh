#!/usr/bin/env bash
# The program starts where there is no CUDA: it needs none of its libraries, but loads them when a
# task asks for a GPU.
set -euo pipefail
program=${1:-$LEPTON}
needed=$(readelf -d "$program" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
grep -q '^libc\.so' <<<"$needed" # it can be read
if grep -E '^lib(cuda|cudart|cublas|cublasLt|cudnn|nccl|nvrtc|nvJitLink)[._]' <<<"$needed"; then
  echo "$program: does not start without the libraries above"
  exit 1
fi
