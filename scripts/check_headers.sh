#!/usr/bin/env bash
# Fails when a header does not compile alone. Needs a built release preset (for generated headers).
# ccache remembers the headers that passed: only what changed is compiled again.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export out CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
export compiler="$(command -v ccache || true) g++"
mkdir -p build/headers
check() {
  local source=build/headers/${1//\//+}.cc object=$out/${1//\//+}.o
  # Twice, so that a header without its guard is found too.
  printf '#include "%s"\n#include "%s"\n' "$1" "$1" >"$source"
  $compiler -std=c++20 -Wall -Wextra -Wno-missing-field-initializers -DLEPTON_GOLDENS='""' -I. -Ibuild/release \
    -c "$source" -o "$object" 2>"$object.log" || {
    echo "$1 does not compile alone:"
    head -5 "$object.log"
    exit 1
  }
  rm -f "$object" "$object.log"
}
export -f check
# `*_body.h` are sources compiled once per instruction set, with its flags.
git ls-files '*.h' | grep -v '_body\.h$' | xargs -P "$(nproc)" -I{} bash -c 'check {}' &&
  echo "headers: each compiles alone"
