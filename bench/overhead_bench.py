#!/usr/bin/env python3
"""What a job costs besides training: steps of the GPT of model_bench.cc (batch 12) in a job, against the
same steps alone, in turns.

With --ranks 1 alone is a process with the model. The job's data is fed, its progress reported and
journalled. With more, alone is as many processes that add their gradients in buckets beside the backward
pass, over what is between the job's ranks too (overlap_bench bare); the job besides is ready to
lose and to gain members: pulses, a digest of the parameters in each step, examples counted, a coordinator.
--shards K: also the job with K logical shards a rank, against its own with one: what it costs that
the weights have the same bits for fewer ranks, whose last batches are as small.
--logical-shards N: also the job with N in all, which the ranks need not divide: some then have one more
than others (3 ranks of 8: three, three, two), and each step waits for them.

  bench/overhead_bench.py TEXT [--ranks 2] [--rounds 5] [--precision bf16] [--shards 2]
                          [--logical-shards 8]

TEXT: a text file of 400 KB or more. A job's time a step is what 60 more steps take, so that its start
and its end do not count. Prints the median of the rounds' ratios, the smallest and the largest."""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import tempfile

import goals

ROOT = pathlib.Path(__file__).resolve().parents[1]
FEW, MANY = 20, 80
UNDISTURBED, SAME_BITS = 1.02, 1.10  # what each may cost
TEXT_BYTES = 400_000
BATCH = 12


def seconds_of(args, steps, ranks, logical_shards):
    spec = {
        "kind": "train", "name": "gpt", "precision": args.precision,
        "dataset": {"format": "text", "tokenizer": "bytes", "context": 256},
        "loss": "next_token",
        "model": {"arch": "transformer", "style": "gpt2", "layers": 6, "heads": 6, "width": 384, "activation": "gelu"},
        "optimizer": {"name": "adamw", "lr": 1e-3}, "batch_size": BATCH, "steps": steps,
        "elastic": {"logical_shards": logical_shards},
    }
    with tempfile.TemporaryDirectory() as folder:
        # No epoch ends within the steps: nothing is evaluated before their end.
        (pathlib.Path(folder) / "text.txt").write_bytes(pathlib.Path(args.text).read_bytes()[:TEXT_BYTES])
        spec["dataset"]["uri"] = f"file://{folder}/text.txt"
        path = pathlib.Path(folder) / "job.json"
        path.write_text(json.dumps(spec))
        slots = ["--slots", "1"] if ranks > 1 else []
        done = subprocess.run([args.lepton, "run", path, "--workers", str(ranks), *slots], cwd=folder,
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(done.stdout + done.stderr)
    figures = dict(re.findall(r"(\S+)=([0-9.]+)", done.stdout))
    return steps * BATCH / float(figures["samples_per_second"])


def job_ms(args, ranks, logical_shards=None):
    few, many = (seconds_of(args, steps, ranks, logical_shards or ranks) for steps in (FEW, MANY))
    return 1e3 * (many - few) / (MANY - FEW)


def alone_ms(args, ranks):
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    if ranks == 1:
        done = subprocess.run([args.benches / "model_bench", "gpt_bytes", args.precision, "step", "12"],
                              check=True, capture_output=True, text=True, env=environment)
        times = [float(line) for line in done.stdout.splitlines() if not line.startswith("peak")]
        return statistics.median(times[2:])
    with tempfile.TemporaryDirectory() as folder:
        started = [subprocess.Popen([args.benches / "overlap_bench", "bare", str(rank), str(ranks), folder,
                                     str(BATCH // ranks), args.precision, "20"],
                                    stdout=subprocess.PIPE, text=True, env=environment)
                   for rank in range(ranks)]
        said = [process.communicate(timeout=300)[0] for process in started]
        if any(process.returncode for process in started):
            raise SystemExit(f"ranks ended with {[process.returncode for process in started]}")
    return float(said[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--ranks", type=int, default=1, help="a divisor of 12")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--shards", type=int, nargs="*", default=[], help="logical shards of a rank")
    parser.add_argument("--logical-shards", type=int, nargs="*", default=[], help="logical shards of all ranks")
    parser.add_argument("--lepton", type=pathlib.Path, default=ROOT / "build/release/lepton")
    parser.add_argument("--benches", type=pathlib.Path, default=ROOT / "build/release/bench")
    args = parser.parse_args()
    if args.ranks < 1 or BATCH % args.ranks:
        parser.error(f"--ranks: must divide {BATCH}")
    args.lepton, args.benches = args.lepton.resolve(), args.benches.resolve()
    ratios, by_shards = [], {n: [] for n in [args.ranks * shards for shards in args.shards] + args.logical_shards}
    for _ in range(args.rounds):
        alone, job = alone_ms(args, args.ranks), job_ms(args, args.ranks)
        ratios.append(job / alone)
        print(f"alone {alone:.1f} ms, in a job {job:.1f} ms: {ratios[-1]:.3f}", flush=True)
        for shards, costs in by_shards.items():
            more = job_ms(args, args.ranks, shards)
            costs.append(more / job)
            print(f"  with {shards} logical shards {more:.1f} ms: {costs[-1]:.3f}", flush=True)

    def told(values):
        return (f"median {statistics.median(values):.3f} [{min(values):.3f}..{max(values):.3f}] "
                f"of {args.rounds} rounds")

    print(f"{args.ranks} rank(s), a job's step : the step alone, {told(ratios)}")
    goals.at_most("a job's step : the step alone", statistics.median(ratios), UNDISTURBED)
    for shards, costs in by_shards.items():
        print(f"{shards} logical shards : {args.ranks}, {told(costs)}")
        goals.at_most(f"{shards} logical shards on {args.ranks} rank(s) : one a rank", statistics.median(costs), SAME_BITS)


if __name__ == "__main__":
    main()
