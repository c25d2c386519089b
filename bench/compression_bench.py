#!/usr/bin/env python3
"""What compressed gradients do to bytes and losses: the same job with gradients whole, as bf16 and
as low-rank factors, two workers on this machine.

  bench/compression_bench.py TEXT [STEPS] [LEPTON]

TEXT: a text file, such as tinyshakespeare, for a GPT of 4 layers x 128; without one, "-", the digits
alone. STEPS: of the GPT, 300. Prints a row for each job and compression: bytes that a rank sends as
gradients in a step, the losses at the end, seconds, the first digits of the weights' digest. One
run each: the digest is the same every time."""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]

DIGITS = {
    "kind": "train", "name": "digits",
    "dataset": {"uri": f"file://{ROOT}/scripts/data/digits.csv", "label": "target",
                "split": {"train": 0.8, "validation": 0.1, "seed": 7}},
    "model": {"arch": "mlp", "hidden": [256, 256]}, "batch_size": 64, "epochs": 20,
}


def gpt(text, steps):
    return {
        "kind": "train", "name": "gpt",
        "dataset": {"uri": f"file://{pathlib.Path(text).resolve()}", "format": "text",
                    "tokenizer": "bytes", "context": 128},
        "loss": "next_token",
        "model": {"arch": "transformer", "style": "gpt2", "layers": 4, "heads": 4, "width": 128},
        "optimizer": {"name": "adamw", "lr": 1e-3}, "schedule": {"name": "cosine", "warmup_steps": 20},
        "clip_norm": 1, "batch_size": 16, "steps": steps,
    }


def run(binary, spec, gradients):
    spec = spec | {"gradients": gradients, "elastic": {"logical_shards": 2},
                   "checkpoint": {"every_steps": 1000000}}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "job.json"
        path.write_text(json.dumps(spec))
        done = subprocess.run([binary, "run", path, "--workers", "2", "--slots", "1"], cwd=folder,
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(done.stdout + done.stderr)
        log = next(pathlib.Path(folder).glob("lepton-runs/*/log.txt")).read_text()
    figures = dict(re.findall(r"(\S+)=([-+0-9.e]+)", done.stdout))
    figures["digest"] = re.search(r"sha256:(\w{6})", done.stdout).group(1)
    sent = re.search(r": (\d+) bytes a step, whole they are (\d+)", log)
    return figures, sent and (int(sent.group(1)), int(sent.group(2)))


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__.strip())
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 300
    binary = str(pathlib.Path(sys.argv[3] if len(sys.argv) > 3 else ROOT / "build/release/lepton").resolve())
    jobs = [DIGITS] + ([] if sys.argv[1] == "-" else [gpt(sys.argv[1], steps)])
    print("| job | gradients | bytes a step | train loss | validation loss | seconds | weights |\n|---|---|---|---|---|---|---|")
    for spec in jobs:
        rows, whole = [], None
        for gradients in ({"compression": "none"}, {"compression": "bf16"},
                          {"compression": "low_rank", "rank": 2}, {"compression": "low_rank", "rank": 8}):
            figures, sent = run(binary, spec, gradients)
            if sent:
                whole = sent[1]
            rows.append((gradients, sent and sent[0], figures))
        for gradients, sent, figures in rows:
            name = gradients["compression"] + (f" {gradients['rank']}" if "rank" in gradients else "")
            share = f"{sent:,} ({100 * sent / whole:.1f}%)" if sent else f"{whole:,}"
            print(f"| {spec['name']} | {name} | {share} | {figures['train/loss']} | "
                  f"{figures['validation/loss']} | {float(figures['seconds']):.1f} | {figures['digest']} |", flush=True)


if __name__ == "__main__":
    main()
