#!/usr/bin/env bash
# A cluster on this machine to play with.
#   scripts/local_cluster.sh up [workers]   start a coordinator and workers (default 2)
#   scripts/local_cluster.sh status         what runs
#   scripts/local_cluster.sh down           stop all of it
# State: $LEPTON_CLUSTER_DIR (default /tmp/lepton-cluster-$USER). Prints what to export.
set -euo pipefail
cd "$(dirname "$0")/.."
lepton=${LEPTON:-$PWD/build/release/lepton}
dir=${LEPTON_CLUSTER_DIR:-/tmp/lepton-cluster-$(id -un)}

# Its log is of this start only.
serves() { grep -q "lepton coordinator:" "$dir/coordinator.log" && [ -s "$dir/data/coordinator.json" ]; }

# The processes of `up` that are left: their numbers may be others' by now.
ours() {
  [ -f "$dir/pids" ] || return 0
  local pid
  for pid in $(cat "$dir/pids"); do
    if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -e " $dir/data "; then echo "$pid"; fi
  done
}

up() {
  local workers=${1:-2}
  [ -x "$lepton" ] || { echo "local_cluster: build first: scripts/build.sh" >&2; exit 1; }
  mkdir -p "$dir"
  if [ -n "$(ours)" ]; then
    echo "local_cluster: already up in $dir; 'down' stops it" >&2
    exit 1
  fi
  : >"$dir/pids"
  setsid "$lepton" coordinator --data-dir "$dir/data" --http-port "${LEPTON_PORT:-0}" --link-port 0 \
    --file-roots "$PWD:/tmp" >"$dir/coordinator.log" 2>&1 </dev/null &
  local coordinator=$!
  echo $coordinator >>"$dir/pids"
  for _ in $(seq 300); do
    if serves || ! kill -0 $coordinator 2>/dev/null; then break; fi
    sleep 0.1
  done
  if ! serves; then
    echo "local_cluster: the coordinator did not start:" >&2
    tail -5 "$dir/coordinator.log" >&2
    down
    exit 1
  fi
  for i in $(seq "$workers"); do
    setsid "$lepton" worker --join "$dir/data" --slots "${LEPTON_SLOTS:-2}" --name "local-$i" \
      >"$dir/worker-$i.log" 2>&1 </dev/null &
    echo $! >>"$dir/pids"
  done
  url=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["http"])' "$dir/data/coordinator.json")
  for _ in $(seq 100); do
    [ "$("$lepton" worker ls --coordinator "$url" -o json 2>/dev/null | grep -c '"state": "UP"')" -ge "$workers" ] && break
    sleep 0.1
  done
  echo "export LEPTON_COORDINATOR=$url"
}

down() {
  [ -f "$dir/pids" ] || exit 0
  local pids
  pids=$(ours)
  [ -z "$pids" ] || kill $pids 2>/dev/null || true
  for _ in $(seq 50); do
    pids=$(ours)
    [ -n "$pids" ] || break
    sleep 0.1
  done
  [ -z "$pids" ] || kill -9 $pids 2>/dev/null || true
  rm -f "$dir/pids"
}

case "${1:-}" in
  up) up "${2:-2}" ;;
  down) down ;;
  status) [ -f "$dir/pids" ] && [ -n "$(ours)" ] && ps -o pid,etime,args -p "$(ours | paste -sd,)" || echo "not up" ;;
  *) sed -n '2,6p' "$0"; exit 2 ;;
esac
