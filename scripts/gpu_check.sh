#!/usr/bin/env bash
# Builds the tests and the bench for GPUs, bundles them with every library that a machine with
# nothing but the vendor's driver and CUDA libraries lacks, and runs the bundle.
#   scripts/gpu_check.sh bundle [FOLDER]  builds and bundles (default: .bundle/gpu); no GPU needed
#   scripts/gpu_check.sh                  the same, then runs it here
#   LEPTON_SKIP_BUILD=1: what build/release has is bundled.
#   FOLDER/run.sh [bench options]         on the machine with the GPU: bench, then tests; 0: all
#                                         passed, 77: no GPU, else failed. CUDA_HOME: where CUDA is;
#                                         LD_LIBRARY_PATH counts, and what pip has installed.
#                                         --cudnn required: fails where cuDNN is not found.
set -euo pipefail
cd "$(dirname "$0")/.."
run_here=yes
if [ "${1:-}" = bundle ]; then
  run_here=no
  shift
fi
folder=${1:-.bundle/gpu}
programs=(tests/runtime/cuda/cuda_gpu_test tests/collectives/collectives_nccl_test bench/gpu_bench)
limit_mib=64

[ -n "${LEPTON_SKIP_BUILD:-}" ] || scripts/build.sh release "${programs[@]##*/}"
rm -rf "$folder"
mkdir -p "$folder/lib"
for program in "${programs[@]}"; do
  strip -o "$folder/$(basename "$program")" "build/release/$program"
done
# Libraries of the distribution travel, the dynamic loader too; the vendor's stay where they are.
ldd "${programs[@]/#*\//$folder/}" |
  awk '$2 == "=>" && $3 ~ /^\// {print $3} $1 ~ /^\/.*ld-linux/ {print $1}' | sort -u |
  while read -r library; do
    case $(basename "$library") in
      libcuda.* | libcudart.* | libcublas* | libcudnn* | libnccl.* | libnv*) continue ;;
    esac
    strip -o "$folder/lib/$(basename "$library")" "$library" 2>/dev/null ||
      cp -L "$library" "$folder/lib/"
  done
# The largest travel packed; run.sh unpacks them where they are.
find "$folder/lib" -size +8M -exec gzip -9 {} +

cat >"$folder/run.sh" <<'RUN'
#!/bin/sh
# Runs the bench, then the tests, with the bundle's own libraries and the vendor's.
here=$(cd "$(dirname "$0")" && pwd)
for packed in "$here"/lib/*.gz; do
  [ ! -e "$packed" ] || gzip -df "$packed" || exit 1
done
vendor=
for place in "${CUDA_HOME:-/usr/local/cuda}/lib" "${CUDA_HOME:-/usr/local/cuda}/lib64" \
  /usr/local/nvidia/lib64 /usr/lib/x86_64-linux-gnu /lib/x86_64-linux-gnu /usr/lib64; do
  [ -d "$place" ] && vendor=$vendor:$place
done
# pip keeps each library of the vendor in a folder of its own.
sites=$(python3 -c 'import site
print("\n".join([*site.getsitepackages(), site.getusersitepackages()]))' 2>/dev/null)
IFS='
'
for site in $sites; do
  for place in "$site"/nvidia/*/lib; do
    [ -d "$place" ] && vendor=$vendor:$place
  done
done
unset IFS
# What was asked for comes before what was found.
vendor=${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}$vendor
start() {
  program=$1
  shift
  "$here"/lib/ld-linux-x86-64.so.2 --library-path "$here/lib$vendor" "$here/$program" "$@"
}
echo "== bench: $*"
start gpu_bench "$@"
bench=$?
if [ $bench -eq 77 ]; then
  echo "gpu_check: skipped: there is no GPU here (see above)"
  exit 77
fi
echo "== tests"
start cuda_gpu_test --gtest_brief=1
tests=$?
# Says which it skips, and why: it has several ranks, and one GPU may be all there is.
start collectives_nccl_test
nccl=$?
echo "gpu_check: bench exits with $bench, tests with $tests, those of NCCL with $nccl"
[ $bench -eq 0 ] && [ $tests -eq 0 ] && [ $nccl -eq 0 ]
RUN
chmod +x "$folder/run.sh"

size_mib=$(du -sm "$folder" | cut -f1)
echo "gpu_check: $folder, $size_mib MiB, $(find "$folder/lib" -type f | wc -l) libraries"
if [ "$size_mib" -gt "$limit_mib" ]; then
  echo "gpu_check: the bundle must not be larger than $limit_mib MiB" >&2
  exit 1
fi
[ "$run_here" = no ] || "$folder/run.sh"
