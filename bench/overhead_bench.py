#!/usr/bin/env python3
"""What a job's worker does besides training: steps of the GPT of model_bench.cc in a job of one
worker (its data fed, its progress reported and journalled) against the same steps alone in a
process, in turns. What several ranks have besides is not in it: a job of one worker has no
communicator, no pulses and no digest of its parameters.

  bench/overhead_bench.py TEXT [ROUNDS] [PRECISION] [LEPTON] [MODEL_BENCH]

TEXT: a text file of 400 KB or more. ROUNDS: 5. PRECISION: bf16. A job's time a step is what 60 more
steps take, so that its start and its end do not count. Prints the median of the rounds' ratios, the
smallest and the largest. Threads: both sides use the cores that they may run on."""

import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
FEW, MANY = 20, 80
TEXT_BYTES = 400_000


def seconds_of(binary, text, precision, steps):
    spec = {
        "kind": "train", "name": "gpt", "precision": precision,
        "dataset": {"format": "text", "tokenizer": "bytes", "context": 256},
        "loss": "next_token",
        "model": {"arch": "transformer", "style": "gpt2", "layers": 6, "heads": 6, "width": 384, "activation": "gelu"},
        "optimizer": {"name": "adamw", "lr": 1e-3}, "batch_size": 12, "steps": steps,
    }
    with tempfile.TemporaryDirectory() as folder:
        # No epoch ends within the steps: nothing is evaluated before their end.
        (pathlib.Path(folder) / "text.txt").write_bytes(pathlib.Path(text).read_bytes()[:TEXT_BYTES])
        spec["dataset"]["uri"] = f"file://{folder}/text.txt"
        path = pathlib.Path(folder) / "job.json"
        path.write_text(json.dumps(spec))
        done = subprocess.run([binary, "run", path, "--workers", "1"], cwd=folder,
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(done.stdout + done.stderr)
    figures = dict(re.findall(r"(\S+)=([0-9.]+)", done.stdout))
    return steps * 12 / float(figures["samples_per_second"])


def alone_ms(bench, precision):
    done = subprocess.run([bench, "gpt_bytes", precision, "step", "12"], check=True,
                          capture_output=True, text=True, env=os.environ | {"OMP_WAIT_POLICY": "passive"})
    times = [float(line) for line in done.stdout.splitlines() if not line.startswith("peak")]
    return statistics.median(times[2:])


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__.strip())
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    precision = sys.argv[3] if len(sys.argv) > 3 else "bf16"
    places = [ROOT / "build/release/lepton", ROOT / "build/release/bench/model_bench"]
    binary, bench = [str(pathlib.Path(sys.argv[4 + i] if len(sys.argv) > 4 + i else place).resolve())
                     for i, place in enumerate(places)]
    ratios = []
    for _ in range(rounds):
        alone = alone_ms(bench, precision)
        few = seconds_of(binary, sys.argv[1], precision, FEW)
        many = seconds_of(binary, sys.argv[1], precision, MANY)
        job = 1e3 * (many - few) / (MANY - FEW)
        ratios.append(job / alone)
        print(f"alone {alone:.1f} ms, in a job {job:.1f} ms: {ratios[-1]:.3f}", flush=True)
    print(f"a job's step : the step alone, median {statistics.median(ratios):.3f} "
          f"[{min(ratios):.3f}..{max(ratios):.3f}] of {rounds} rounds")


if __name__ == "__main__":
    main()
