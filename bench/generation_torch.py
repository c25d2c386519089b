#!/usr/bin/python3
"""A language model goes on, ours against PyTorch's, on the same weights in one run.

usage: generation_torch.py [build/release/bench/generation_bench] [TEXTS ...]

GPT-2's smallest size, prompts of 128 tokens, 64 tokens more, each the likeliest; for 1 and 16 texts at
once (or TEXTS) and f32 and bf16. PyTorch keeps keys and values in tensors of their final size, computes
logits of the last position only, and has its weights in the type it computes in before the clock starts.
Each token of either side must be the likeliest for f32 weights, of all that was written before it, but for
what its precision rounds (LIMITS): else nothing is printed, and the status is 1. Rounds time both sides in
turn. Prints medians of the time in which all texts get one token more, of the time to read the prompts, and
peak resident memory.
PyTorch needs an optimised BLAS to be a fair peer (see model_torch.py).
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
import torch.nn.functional as F

ROUNDS, PROMPT, TOKENS = 3, 128, 64
LAYERS, HEADS, WIDTH = 12, 12, 768
# How much less likely than the likeliest a token may be, in its logit (of which a text's spread by 1 or so):
# the worst, and the mean of a text's.
LIMITS = {"f32": (1e-3, 1e-5), "bf16": (0.3, 0.02)}


def weights(folder, kind):
    flat = np.fromfile(os.path.join(folder, "weights.bin"), dtype=np.float32)
    parameters, at = {}, 0
    for line in open(os.path.join(folder, "weights.txt")):
        name, *shape = line.split()
        shape = [int(extent) for extent in shape]
        size = math.prod(shape)
        tensor = torch.from_numpy(flat[at:at + size].reshape(shape)).clone()
        at += size
        # GPT-2 keeps these [in, out]; linear wants the other.
        if len(shape) == 2 and ".h." in name:
            tensor = tensor.t().contiguous()
        parameters[name] = tensor.to(kind)
    return parameters


class Decoder:
    def __init__(self, parameters, texts, room):
        self.p, self.length = parameters, 0
        kind = parameters["transformer.wte.weight"].dtype
        shape = (LAYERS, texts, HEADS, room, WIDTH // HEADS)
        self.keys, self.values = torch.zeros(shape, dtype=kind), torch.zeros(shape, dtype=kind)

    def norm(self, name, x):
        return F.layer_norm(x, (WIDTH,), self.p[name + ".weight"], self.p[name + ".bias"])

    def dense(self, name, x):
        return F.linear(x, self.p[name + ".weight"], self.p[name + ".bias"])

    # The logits behind the last token, or behind each of the last `places`.
    def extend(self, tokens, places=1):
        b, t = tokens.shape
        begin, end = self.length, self.length + t
        wte = self.p["transformer.wte.weight"]
        x = F.embedding(tokens, wte) + self.p["transformer.wpe.weight"][begin:end]
        mask = torch.full((t, end), -math.inf, dtype=x.dtype).triu(begin + 1) if t > 1 else None
        for i in range(LAYERS):
            name = f"transformer.h.{i}."
            qkv = self.dense(name + "attn.c_attn", self.norm(name + "ln_1", x))
            q, k, v = (part.view(b, t, HEADS, -1).transpose(1, 2) for part in qkv.split(WIDTH, 2))
            self.keys[i, :, :, begin:end] = k
            self.values[i, :, :, begin:end] = v
            scores = q @ self.keys[i, :, :, :end].transpose(2, 3) / math.sqrt(WIDTH // HEADS)
            if mask is not None:
                scores = scores + mask
            y = scores.softmax(-1) @ self.values[i, :, :, :end]
            x = x + self.dense(name + "attn.c_proj", y.transpose(1, 2).reshape(b, t, WIDTH))
            y = F.gelu(self.dense(name + "mlp.c_fc", self.norm(name + "ln_2", x)), approximate="tanh")
            x = x + self.dense(name + "mlp.c_proj", y)
        self.length = end
        logits = F.linear(self.norm("transformer.ln_f", x[:, -places:]), wte).float()
        return logits[:, 0] if places == 1 else logits


def torch_side(folder, precision, prompts):
    parameters = weights(folder, torch.bfloat16 if precision == "bf16" else torch.float32)
    with torch.no_grad():
        for warm in (True, False):
            decoder = Decoder(parameters, len(prompts), PROMPT + TOKENS)
            ids, logits, times = torch.tensor(prompts), [], []
            new = ids
            for token in range(TOKENS):
                begin = time.perf_counter()
                logits = decoder.extend(new)
                times.append((time.perf_counter() - begin) * 1e3)
                new = logits.argmax(1, keepdim=True)
                ids = torch.cat([ids, new], 1)
                if warm and token == 1:
                    break
    peak = next(int(line.split()[1]) // 1024 for line in open("/proc/self/status")
                if line.startswith("VmHWM:"))
    return times[0], statistics.median(times[1:]), peak, ids.tolist()


def our_side(binary, folder, precision, texts):
    lines = subprocess.run([binary, precision, str(texts), str(PROMPT), str(TOKENS), folder],
                           check=True, capture_output=True, text=True).stdout.splitlines()
    figures = [float(line.split()[1]) for line in lines[:3]]
    return (*figures, [[int(token) for token in line.split()] for line in lines[3:]])


def misses(folder, texts):
    """By text, the worst and the mean by which its tokens are less likely than the likeliest."""
    parameters, found = weights(folder, torch.float32), []
    with torch.no_grad():
        for text in texts:
            ids = torch.tensor([text])
            logits = Decoder(parameters, 1, len(text)).extend(ids[:, :-1], TOKENS)[0]
            written = logits.gather(1, ids[0, PROMPT:, None])[:, 0]
            less = logits.max(1).values - written
            found.append((less.max().item(), less.mean().item()))
    return found


def check(folder, precision, side, texts):
    np.savetxt(os.path.join(folder, "texts.txt"), texts, fmt="%d")
    worst, mean = (max(part) for part in zip(*in_process("--check", folder)))
    if not (worst <= LIMITS[precision][0] and mean <= LIMITS[precision][1]):
        sys.exit(f"{precision}: {side} writes tokens that are less likely than others: by {worst:.3g}, "
                 f"in a text by {mean:.3g} on average; may be {LIMITS[precision]}")


def in_process(*arguments):
    """PyTorch's side in a process of its own, so that peaks are each one's."""
    out = subprocess.run([sys.executable, os.path.abspath(__file__), *arguments],
                         check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1])


def main():
    if sys.argv[1:2] == ["--torch"]:
        folder, precision = sys.argv[2:4]
        prompts = np.loadtxt(os.path.join(folder, "prompts.txt"), dtype=int, ndmin=2).tolist()
        print(json.dumps(torch_side(folder, precision, prompts)))
        return
    if sys.argv[1:2] == ["--check"]:
        texts = np.loadtxt(os.path.join(sys.argv[2], "texts.txt"), dtype=int, ndmin=2).tolist()
        print(json.dumps(misses(sys.argv[2], texts)))
        return
    binary = sys.argv[1] if len(sys.argv) > 1 else "build/release/bench/generation_bench"
    counts = [int(count) for count in sys.argv[2:]] or [1, 16]
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("f32", "bf16"):
            for texts in counts:
                ratios, ours, theirs = [], [], []
                for _ in range(ROUNDS):
                    ours.append(our_side(binary, folder, precision, texts))
                    prompts = [text[:PROMPT] for text in ours[-1][3]]
                    np.savetxt(os.path.join(folder, "prompts.txt"), prompts, fmt="%d")
                    theirs.append(in_process("--torch", folder, precision))
                    if len(ours) == 1:
                        check(folder, precision, "Lepton", ours[0][3])
                        check(folder, precision, "PyTorch", theirs[0][3])
                    ratios.append(theirs[-1][1] / ours[-1][1])
                same = sum(a == b for a, b in zip(ours[0][3], theirs[0][3]))
                median = lambda side, i: statistics.median(run[i] for run in side)
                print(f"{precision} {texts:2} texts: a token {median(ours, 1):.2f} ms, PyTorch "
                      f"{median(theirs, 1):.2f} ms ({statistics.median(ratios):.2f}x); prompts "
                      f"{median(ours, 0):.0f}, {median(theirs, 0):.0f} ms; peak {median(ours, 2):.0f}, "
                      f"{median(theirs, 2):.0f} MiB; {same} of {texts} texts the same", flush=True)


if __name__ == "__main__":
    main()
