#!/usr/bin/env bash
# The quick start, twice from the same folder, as a new user would run it. It checks its own figures.
set -euo pipefail
cd "$(dirname "$0")/../.."
for round in 1 2; do
  log=$(mktemp)
  if ! timeout 280 scripts/quickstart.sh >"$log" 2>&1; then
    cat "$log"
    echo "round $round failed"
    exit 1
  fi
  tail -15 "$log"
  rm -f "$log"
done
sleep 1
if pgrep -fa "$PWD/lepton-runs/quickstart" | grep -v quickstart_test; then
  echo "the quick start left processes behind"
  exit 1
fi
