#!/usr/bin/env bash
# The bundle of scripts/gpu_check.sh brings every library but the vendor's, is small enough to
# travel, and says clearly that there is no GPU where there is none.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
LEPTON_SKIP_BUILD=1 scripts/gpu_check.sh bundle "$folder/bundle" >"$folder/log" || {
  cat "$folder/log"
  exit 1
}
grep -q "MiB" "$folder/log"

gzip -d "$folder"/bundle/lib/*.gz

# What the bundle's own loader finds, and where.
vendor=${CUDA_HOME:-/usr/local/cuda}/lib
for program in cuda_gpu_test collectives_nccl_test gpu_bench; do
  grep -q "^start $program" "$folder/bundle/run.sh" || {
    echo "run.sh does not start $program"
    exit 1
  }
  found=$("$folder/bundle/lib/ld-linux-x86-64.so.2" --library-path "$folder/bundle/lib:$vendor" \
    --list "$folder/bundle/$program")
  if grep -E "not found| => /(usr/)?lib/" <<<"$found"; then
    echo "$program: the libraries above are not in the bundle"
    exit 1
  fi
done

# Nothing of this shell's environment.
status=0
env -i PATH=/usr/bin:/bin "$folder/bundle/run.sh" --layers 1 --steps 1 --context 64 --batch 1 \
  >"$folder/run" 2>&1 || status=$?
cat "$folder/run"
case $status in
  0) ;;
  77) grep -q "skipped: " "$folder/run" && grep -q "no GPU" "$folder/run" ;;
  *) exit 1 ;;
esac

# Where the vendor's libraries may be: first what was asked for, at last what pip has installed.
site="$folder/a site"
mkdir -p "$site/nvidia/cudnn/lib" "$folder/bin"
printf '#!/bin/sh\necho "%s"\n' "$site" >"$folder/bin/python3"
chmod +x "$folder/bin/python3"
env -i PATH="$folder/bin:/usr/bin:/bin" LD_LIBRARY_PATH=/asked/for sh -x "$folder/bundle/run.sh" \
  --layers 1 --steps 1 --context 64 --batch 1 >"$folder/traced" 2>&1 || true
if ! grep -q -- "--library-path .*lib:/asked/for:.*:$site/nvidia/cudnn/lib" "$folder/traced"; then
  grep -- --library-path "$folder/traced" || cat "$folder/traced"
  echo "run.sh does not look where it should"
  exit 1
fi
