#!/usr/bin/python3
"""A GPT of 10.7 million parameters on a text, trained by us and by PyTorch: the same first weights,
windows and learning rates; prints both losses along the way and at the end on what was kept apart.

usage: gpt_curve.py TEXT [STEPS] [PRECISION] [build/release/bench/model_bench]

TEXT: a file with at most 65 different characters, such as tinyshakespeare (1.1 MB).
"""

import os
import subprocess
import sys
import tempfile

import torch
import torch.nn.functional as F

import goals
from model_torch import Torch

CONTEXT = 256
WORSE = 1  # percent, at most


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__.strip())
    text = sys.argv[1]
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 250
    precision = sys.argv[3] if len(sys.argv) > 3 else "bf16"
    bench = sys.argv[4] if len(sys.argv) > 4 else "build/release/bench/model_bench"
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    data = open(text, "rb").read()
    place = {c: i for i, c in enumerate(sorted(set(data), key=lambda c: c - 256 * (c > 127)))}
    ids = torch.tensor([place[c] for c in data])
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([bench, "gpt", precision, "curve", folder, str(steps), text],
                              check=True, capture_output=True, text=True)
        ours = [float(line) for line in open(os.path.join(folder, "losses.txt"))]
        our_end = float(done.stdout)
        rates = [float(line) for line in open(os.path.join(folder, "rates.txt"))]
        starts = [[int(s) for s in line.split()] for line in open(os.path.join(folder, "starts.txt"))]
        peer = Torch("gpt", precision, folder, data=False)

        def windows(of):
            peer.x = torch.stack([ids[s:s + CONTEXT] for s in of])
            peer.y = torch.stack([ids[s + 1:s + CONTEXT + 1] for s in of]).flatten()

        print("| step | ours | PyTorch |\n|---|---|---|")
        shown = {steps - 1} | {s for s in range(steps) if (s + 1) % max(1, steps // 10) == 0} | {0}
        for step, rate in enumerate(rates):
            windows(starts[step])
            for group in peer.optimizer.param_groups:
                group["lr"] = rate
            loss = peer.step(clip=1.0)
            if step in shown:
                print(f"| {step + 1} | {ours[step]:.4f} | {loss:.4f} |", flush=True)
        total = count = 0
        with torch.no_grad():
            for of in starts[steps:]:
                windows(of)
                logits = peer.logits(peer.params, training=False).float().flatten(0, -2)
                total += F.cross_entropy(logits, peer.y, reduction="sum").item()
                count += peer.y.numel()
        their_end = total / count
        print(f"| validation | {our_end:.4f} | {their_end:.4f} |")
        goals.at_most("validation loss above PyTorch's, percent", 100 * (our_end / their_end - 1), WORSE)


if __name__ == "__main__":
    main()
