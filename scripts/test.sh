#!/usr/bin/env bash
# Sets up this machine, builds and passes the tests.
#   scripts/test.sh [ctest arguments]      e.g. -L fast, -R spec
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
scripts/build.sh release
# Open MPI and OpenMP would spin on the cores that the tests share.
export OMP_WAIT_POLICY=passive OMPI_MCA_mpi_yield_when_idle=1
exec ctest --test-dir build/release --output-on-failure --no-tests=error "$@"
