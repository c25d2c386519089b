#!/usr/bin/env bash
# docs/onnx-ops.md is what the program writes: ops_table_test.sh PROGRAM
set -euo pipefail
diff "$(dirname "$0")/../../../docs/onnx-ops.md" <("$1" --list-ops) || {
  echo "docs/onnx-ops.md is out of date: $1 --list-ops > docs/onnx-ops.md"
  exit 1
}
