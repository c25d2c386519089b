#!/usr/bin/env bash
# Fails when a header does not compile alone. Needs a built release preset (for generated headers).
set -euo pipefail
cd "$(dirname "$0")/.."
check() {
  printf '#include "%s"\n#include "%s"\n' "$1" "$1" |
    g++ -std=c++20 -fsyntax-only -Wall -Wextra -I. -Ibuild/release -x c++ - 2>"/tmp/header.$$.$(basename "$1")" || {
    echo "$1 does not compile alone:"
    head -5 "/tmp/header.$$.$(basename "$1")"
    exit 1
  }
  rm -f "/tmp/header.$$.$(basename "$1")"
}
export -f check
# `*_body.h` are sources compiled once per instruction set, with its flags.
git ls-files '*.h' | grep -v '_body\.h$' | xargs -P "$(nproc)" -I{} bash -c 'check {}' && echo "headers: each compiles alone"
