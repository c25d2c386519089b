#!/usr/bin/env bash
# From a clone to a served model: installs what is missing, builds, and shows the whole path on real
# data: two workers under mpirun, train, tune, distil, deploy, predict. Everything it writes is in
# ./lepton-runs/quickstart; it can be run again at any time.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in -h | --help) sed -n '2,4p' "$0"; exit 0 ;; esac
started=$(date +%s%N)
scripts/setup.sh
scripts/build.sh release lepton
lepton=$PWD/build/release/lepton
work=$PWD/lepton-runs/quickstart
rm -rf "$work"
mkdir -p "$work"

seconds() { awk -v a="$1" -v b="$(date +%s%N)" 'BEGIN {printf "%.1f", (b - a) / 1e9}'; }
bold='' plain=''
[ -t 1 ] && bold=$'\033[1m' plain=$'\033[0m'
say() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
die() { echo "quickstart: $*" >&2; exit 1; }
pids=()
cleanup() {
  trap - EXIT INT TERM
  [ ${#pids[@]} -eq 0 ] || kill -TERM "${pids[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
}
trap cleanup EXIT
trap 'exit 130' INT TERM
at_least() { # name value minimum
  awk -v v="$2" -v m="$3" 'BEGIN {exit !(v >= m)}' || die "$1 is $2, below $3"
}

say "A coordinator with an empty data folder, and two workers under mpirun"
"$lepton" coordinator --data-dir "$work/data" --http-port 0 --link-port 0 --file-roots "$PWD" \
  >"$work/coordinator.log" 2>&1 &
pids+=($!)
for _ in $(seq 200); do [ -s "$work/data/coordinator.json" ] && break; sleep 0.05; done
[ -s "$work/data/coordinator.json" ] || { cat "$work/coordinator.log" >&2; die "no coordinator"; }
LEPTON_COORDINATOR=$(jq -r .http "$work/data/coordinator.json")
export LEPTON_COORDINATOR
mpirun=(mpirun --oversubscribe --bind-to none --enable-recovery)
[ "$(id -u)" -eq 0 ] && mpirun+=(--allow-run-as-root)
"${mpirun[@]}" -np 2 "$lepton" worker --join "$work/data" --slots 2 >"$work/workers.log" 2>&1 &
pids+=($!)
for _ in $(seq 200); do
  up=$("$lepton" worker ls -o json | jq '[.[] | select(.state == "UP")] | length')
  [ "$up" -eq 2 ] && break
  sleep 0.05
done
[ "$up" -eq 2 ] || { cat "$work/workers.log" >&2; die "the workers did not join"; }
"$lepton" worker ls

say "Two datasets: schema and profile are read off the CSV"
"$lepton" data add digits scripts/data/digits.csv
"$lepton" data add breast-cancer scripts/data/breast_cancer.csv
"$lepton" data profile breast-cancer | head -8
echo "..."

summary="$work/summary.tsv"
printf 'STEP\tJOB\tWORKERS\tSECONDS\tSAMPLES/S\tTEST ACCURACY\tMODEL\n' >"$summary"
run_job() { # step spec: submits, waits, adds a row; the final job is in $job
  local begin job_file="$work/$1.json"
  begin=$(date +%s%N)
  "$lepton" submit --wait -o json "scripts/quickstart/$2.yaml" >"$job_file" ||
    { jq -r '"\(.id) \(.state): \(.reason)"' "$job_file" >&2; die "$2 did not succeed"; }
  job=$job_file
  jq -r --arg step "$1" --arg seconds "$(seconds "$begin")" '
    [$step, .id, ([.tasks[].worker_id] | unique | length), $seconds,
     ((.progress.samples_per_second // 0) | floor | if . > 0 then . else "-" end),
     ((.result.metrics["test/accuracy"] // .metrics["test/accuracy"] // 0) * 10000 | round / 10000),
     (if (.result.model // "") != "" then "\(.result.model)@\(.result.version)" else "-" end)] | @tsv' \
    "$job" >>"$summary"
}
accuracy() { jq -r '.result.metrics["test/accuracy"] // .metrics["test/accuracy"]' "$job"; }
rounded() { printf '%.4f' "$1"; }

say "Train: data-parallel on both workers, bf16"
run_job train-digits digits-train
digits_accuracy=$(accuracy)
run_job train-breast-cancer breast-cancer-train
cancer_accuracy=$(accuracy)
printf 'digits        test accuracy %s\nbreast cancer test accuracy %s\n' "$(rounded "$digits_accuracy")" "$(rounded "$cancer_accuracy")"
at_least "test accuracy of digits" "$digits_accuracy" 0.97
at_least "test accuracy of breast cancer" "$cancer_accuracy" 0.95

say "Tune: 16 trials at random, then 16 with ASHA; the best trial's model is registered"
run_job tune-random digits-random
run_job tune-asha digits-tune
"$lepton" describe "$(jq -r .id "$job")" | sed -n '/^TRIALS/,/^$/p' | head -20
teacher=$(jq -r '"\(.result.model)@\(.result.version)"' "$job")
"$lepton" model alias "$teacher" prod

say "Distil: the tuned teacher into a student"
run_job distill digits-distill
jq -r '(.result.metrics // .metrics) | def rounded: . * 10000 | round / 10000;
  "teacher         test accuracy \(.["teacher/accuracy"] | rounded)  (\(.["teacher/parameters"]) parameters)",
  "student alone   test accuracy \(.["student_alone/accuracy"] | rounded)  (\(.["student/parameters"]) parameters)",
  "student taught  test accuracy \(.["test/accuracy"] | rounded)  (the same size)"' "$job"
jq -e '(.result.metrics // .metrics) | .["student/parameters"] * 4 <= .["teacher/parameters"]' "$job" >/dev/null ||
  die "the student is larger than a quarter of its teacher"
student=$(jq -r '"\(.result.model)@\(.result.version)"' "$job")
"$lepton" model alias "$student" prod

say "Deploy: two replicas on the same workers"
"$lepton" deploy digits --model digits-student@prod --replicas 2

say "Predict: the command line, curl, and the Open Inference Protocol"
"$lepton" predict digits --input scripts/data/digits.csv --limit 5
row=$(sed -n 2p scripts/data/digits.csv)
pixels=${row%,*}
curl -fsS "$LEPTON_COORDINATOR/v2/models/digits/infer" -H 'Content-Type: application/json' \
  -d "{\"inputs\": [{\"name\": \"x\", \"shape\": [1, 64], \"datatype\": \"FP32\", \"data\": [$pixels]}],
       \"outputs\": [{\"name\": \"label\"}]}" | jq -c .
named=$(sed -n 1,2p scripts/data/digits.csv | jq -Rsc 'split("\n")[:2] | map(split(",")) |
  [.[0][:-1], (.[1][:-1] | map(tonumber))] | transpose | map({(.[0]): .[1]}) | add | {rows: [.]}')
curl -fsS "$LEPTON_COORDINATOR/v1/deployments/digits:predict" -H 'Content-Type: application/json' \
  -d "$named" | jq -c '.predictions[0] | {"label": .label, "probability": .probability}'

# The deployment's answers over all rows, against an evaluation job's.
run_job evaluate digits-evaluate
evaluated=$(accuracy)
"$lepton" predict digits --input scripts/data/digits.csv -o json | jq -r '.[].label' >"$work/labels"
served=$(paste -d, <(tail -n +2 scripts/data/digits.csv | sed 's/.*,//') "$work/labels" |
  awk -F, '{right += $1 == $2} END {printf "%.10f", right / NR}')
printf 'accuracy over all rows: evaluated %s, served %s\n' "$(rounded "$evaluated")" "$(rounded "$served")"
awk -v a="$evaluated" -v b="$served" 'BEGIN {d = a - b; exit !(d < 1e-9 && d > -1e-9)}' ||
  die "the deployment's answers differ from the evaluation's"

# 300 predictions over one kept-alive connection.
urls=()
for _ in $(seq 300); do urls+=("$LEPTON_COORDINATOR/v1/deployments/digits:predict" -o /dev/null); done
curl -fsS -H 'Content-Type: application/json' -d "$named" -w '%{time_total}\n' "${urls[@]}" 2>/dev/null |
  grep -E '^[0-9.]+$' | sort -n >"$work/latencies" || true
p50=$(awk '{v[NR] = $1} END {printf "%.2f", 1000 * v[int(NR * 0.50) + 1]}' "$work/latencies")
p99=$(awk '{v[NR] = $1} END {printf "%.2f", 1000 * v[int(NR * 0.99) + 1]}' "$work/latencies")

say "What ran"
column -t -s "$(printf '\t')" "$summary" 2>/dev/null || cat "$summary"
printf '\npredictions: p50 %s ms, p99 %s ms (%s requests through the gateway)\n' \
  "$p50" "$p99" "$(wc -l <"$work/latencies")"
printf 'the whole quick start: %s s\nresults and logs: %s\n' "$(seconds "$started")" "$work"
