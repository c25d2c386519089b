#!/usr/bin/env bash
# Formats the tree; with --check only says what is not formatted, and fails.
set -euo pipefail
cd "$(dirname "$0")/.."
how=(-i)
[ "${1:-}" = --check ] && how=(--dry-run --Werror)
git ls-files -z '*.cc' '*.h' '*.cu' | xargs -0 -n 16 -P "$(nproc)" clang-format "${how[@]}"
