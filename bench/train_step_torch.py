#!/usr/bin/python3
"""Time of a training step, ours against PyTorch's, on the same work in one run.

usage: train_step_torch.py [build/release/bench/train_step_bench]

An MLP 784-1024-1024-10 on a batch of 256, cross entropy, AdamW; all cores on both sides. First both
sides take five steps from the same weights on the same batch and their losses must agree; then five
rounds time them in turn. Prints the median step of each side and the median ratio of the rounds.
PyTorch needs an optimised BLAS to be a fair peer (Debian: libopenblas0-pthread); with the reference
one it is fifty times slower.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch

BATCH, FEATURES, HIDDEN, CLASSES = 256, 784, 1024, 10
ROUNDS, STEPS = 5, 20
BLAS = "/usr/lib/x86_64-linux-gnu/libblas.so.3"


class Torch:
    def __init__(self, folder, precision):
        weights = np.fromfile(os.path.join(folder, "weights.bin"), dtype=np.float32)
        self.x = torch.from_numpy(
            np.fromfile(os.path.join(folder, "x.bin"), dtype=np.float32).reshape(BATCH, FEATURES))
        self.y = torch.from_numpy(
            np.fromfile(os.path.join(folder, "y.bin"), dtype=np.int32).astype(np.int64))
        sizes = [FEATURES, HIDDEN, HIDDEN, CLASSES]
        layers, offset = [], 0
        for rows, columns in zip(sizes, sizes[1:]):
            layer = torch.nn.Linear(rows, columns)
            weight = weights[offset:offset + rows * columns].reshape(rows, columns)
            offset += rows * columns
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(weight.T.copy()))
                layer.bias.copy_(torch.from_numpy(weights[offset:offset + columns].copy()))
            offset += columns
            layers += [layer, torch.nn.ReLU()]
        self.model = torch.nn.Sequential(*layers[:-1])
        self.loss = torch.nn.CrossEntropyLoss()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, weight_decay=0.01)
        self.bf16 = precision == "bf16"

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
            loss = self.loss(self.model(self.x).float(), self.y)
        loss.backward()
        # Our step also measures the gradient's norm, to stop on what is not finite.
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), float("inf"))
        self.optimizer.step()
        return loss.item()


def check(bench, precision, folder):
    subprocess.run([bench, "check", folder, precision], check=True)
    ours = [float(line) for line in open(os.path.join(folder, "losses.txt"))]
    peer = Torch(folder, precision)
    theirs = [peer.step() for _ in ours]
    tolerance = 0.05 if precision == "bf16" else 1e-3
    for step, (a, b) in enumerate(zip(ours, theirs)):
        if not abs(a - b) <= tolerance * max(abs(b), 0.1):
            sys.exit(f"{precision}: losses differ at step {step}: ours {ours}, PyTorch's {theirs}")


def time_torch(precision, folder):
    peer = Torch(folder, precision)
    for _ in range(5):
        peer.step()
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        peer.step()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def time_ours(bench, precision):
    lines = subprocess.run([bench, "time", precision, str(STEPS)], check=True,
                           capture_output=True, text=True).stdout.split()
    return statistics.median(float(line) for line in lines)


def main():
    bench = sys.argv[1] if len(sys.argv) > 1 else "build/release/bench/train_step_bench"
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads; "
          f"MLP {FEATURES}-{HIDDEN}-{HIDDEN}-{CLASSES}, batch {BATCH}, AdamW; "
          f"BLAS {os.path.realpath(BLAS)}", flush=True)
    medians = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("f32", "bf16"):
            check(bench, precision, folder)
            rounds = [(time_ours(bench, precision), time_torch(precision, folder))
                      for _ in range(ROUNDS)]
            ratios = [theirs / ours for ours, theirs in rounds]
            ours, theirs = (statistics.median(side) for side in zip(*rounds))
            medians[precision] = (ours, theirs)
            print(f"{precision}: ours {ours:.2f} ms, PyTorch {theirs:.2f} ms a step: "
                  f"{statistics.median(ratios):.2f}x as fast "
                  f"(rounds {min(ratios):.2f}-{max(ratios):.2f})", flush=True)
    print(f"our bf16 against PyTorch's f32: {medians['f32'][1] / medians['bf16'][0]:.2f}x as fast")


if __name__ == "__main__":
    main()
