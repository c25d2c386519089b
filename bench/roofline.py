#!/usr/bin/env python3
"""Profiles of model_bench as a table: each kernel's time a step, what it achieves, and how much of the limit that the
same process measured. What loses most time to its limit comes first.

    build/release/bench/model_bench gpt bf16 profile 5 | bench/roofline.py "GPT, bf16"
"""
import re
import sys

LINE = re.compile(r"\s*([\d.]+) ms \(fastest\s+([\d.]+)\)\s+(\d+)% of limit\s+(\d+) x\s+(\d+) GFLOP/s\s+([\d.]+) GB/s  (.*)")
LIMITS = re.compile(r"limits: (\d+) GFLOP/s, ([\d.]+) GB/s")
TOTAL = re.compile(r"\s*([\d.]+) ms \(fastest\s+([\d.]+)\) in all; at their limits ([\d.]+) ms")
LEAST_SHARE = 0.01  # of a step: what takes less is summed up


def main():
    text = sys.stdin.read()
    limits, total = LIMITS.search(text), TOTAL.search(text)
    kernels = [LINE.fullmatch(line) for line in text.splitlines()]
    kernels = [match.groups() for match in kernels if match]
    if not (limits and total and kernels):
        sys.exit("roofline.py: this is no profile of model_bench")
    in_all = float(total[1])
    print(f"### {' '.join(sys.argv[1:]) or 'A step'}\n")
    print(f"{in_all:.1f} ms in kernels (their fastest runs {float(total[2]):.1f}), {float(total[3]):.1f} if each ran at its "
          f"limit: {limits[1]} GFLOP/s, {limits[2]} GB/s.\n")
    print("| kernel | ms a step (fastest) | runs | achieved | of the limit |\n|---|---|---|---|---|")
    small = [0, 0.0]
    for ms, fastest, share, runs, gflops, gbytes, name in kernels:
        if float(ms) < LEAST_SHARE * in_all:
            small = [small[0] + 1, small[1] + float(ms)]
            continue
        achieved = f"{gflops} GFLOP/s" if int(gflops) > 0 else f"{gbytes} GB/s"
        print(f"| {name} | {float(ms):.2f} ({float(fastest):.2f}) | {runs} | {achieved} | {share}% |")
    if small[0]:
        print(f"| {small[0]} others of less than {LEAST_SHARE:.0%} each | {small[1]:.2f} | | | |")
    print()


main()
