#!/usr/bin/env bash
# Runs a folder of ONNX operator test cases (model.onnx with data files) through the importer:
#   scripts/onnx_conformance.sh DIR
# The last line is "N passed, N failed, N refused". Cases that are refused, each for its reason, are
# listed in tests/runtime/onnx/refused.txt. 0: none failed; 77: DIR is not there.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:?usage: scripts/onnx_conformance.sh DIR}
if [[ ! -d $dir ]]; then
  echo "onnx_conformance: no folder $dir, nothing to check"
  exit 77
fi
program=${ONNX_CONFORMANCE:-}
if [[ -z $program ]]; then
  program=$(find "$root"/build -name onnx_conformance -type f -executable -print -quit 2>/dev/null || true)
fi
if [[ -z $program ]]; then
  echo "onnx_conformance: build the target onnx_conformance first" >&2
  exit 2
fi
exec "$program" "$dir" "$root/tests/runtime/onnx/refused.txt"
