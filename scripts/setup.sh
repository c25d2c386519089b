#!/usr/bin/env bash
# Installs every package that Lepton's build, its quick start and its tests need on Debian 12.
# Idempotent: does nothing when all are there. Needs root or sudo only when something is missing.
#   scripts/setup.sh [--bench] [--fuzz]     --bench adds the peers that bench/ compares with,
#                                           --fuzz the compiler that scripts/fuzz.sh needs
set -euo pipefail

# To compile.
build=(g++ cmake ninja-build ccache pkg-config git)
# Linked libraries.
libraries=(
  libdnnl-dev libboost1.81-dev libssl-dev libzmq3-dev cppzmq-dev
  libprotobuf-dev protobuf-compiler librocksdb-dev libgoogle-glog-dev
  nlohmann-json3-dev libyaml-cpp-dev libcli11-dev libfmt-dev
  prometheus-cpp-dev libsodium-dev libhwloc-dev libzstd-dev
  libopenmpi-dev openmpi-bin libpmix-dev
  libpcre2-dev libutf8proc-dev
  libpng-dev libjpeg62-turbo-dev libarchive-dev
)
# What the quick start calls.
quickstart=(curl jq bsdextrautils)
# To test: unit tests, benches, sanitizers' symbols, a real Slurm, hosts in network namespaces,
# the OpenAPI check, the public checker of ONNX models, SentencePiece, and what they call.
tests=(
  libgtest-dev libgmock-dev libbenchmark-dev clang-format
  python3 python3-jsonschema python3-onnx python3-sentencepiece
  slurm-wlm munge iproute2 procps openssl
)
# For scripts/fuzz.sh.
fuzz=(clang-14 libclang-rt-14-dev)
# Peers of the benches.
bench=(libgloo-dev python3-torch python3-numpy libopenblas0-pthread)

packages=("${build[@]}" "${libraries[@]}" "${quickstart[@]}" "${tests[@]}")
for arg in "$@"; do
  case "$arg" in
    --bench) packages+=("${bench[@]}") ;;
    --fuzz) packages+=("${fuzz[@]}") ;;
    -h | --help) sed -n '2,6p' "$0"; exit 0 ;;
    *) echo "setup.sh: unknown argument '$arg' (see --help)" >&2; exit 2 ;;
  esac
done

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -eq 0 ]; then
  as_root=()
elif command -v sudo >/dev/null; then
  as_root=(sudo)
else
  echo "setup.sh: these packages are missing and neither root nor sudo is here: ${missing[*]}" >&2
  exit 1
fi
echo "setup: installing ${#missing[@]} packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
  -o Dpkg::Use-Pty=0 "${missing[@]}" >/tmp/lepton-setup.log 2>&1 || {
  tail -20 /tmp/lepton-setup.log >&2
  echo "setup.sh: apt-get failed; the whole log is /tmp/lepton-setup.log" >&2
  exit 1
}
