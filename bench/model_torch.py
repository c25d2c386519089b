#!/usr/bin/python3
"""Models forward and in training, ours against PyTorch's, on the same work in one run.

usage: model_torch.py [build/release/bench/model_bench] [MODEL ...]

For each model (mlp, resnet18, gpt; see model_bench.cc) and precision: both sides first answer the same
batch with the same weights and take five steps from there, and their logits and losses must agree; then
rounds time them in turn. Forward, PyTorch's batch norm uses its running statistics, and its weights are
bf16 before the clock starts, as ours are.
Prints medians, the median ratio of the rounds, and peak resident memory. All cores on both sides.
Then how long a process takes from its start until its first step begins, weights in memory; and what
part of the GPT's bf16 step bare oneDNN needs for the step's products alone, where gemm_bench is beside
model_bench.
PyTorch needs an optimised BLAS to be a fair peer (Debian: libopenblas0-pthread); with the reference
one it is fifty times slower.
"""

import math
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import goals
import numpy as np
import torch
import torch.nn.functional as F

# What bench/README.md wants of each: of PyTorch's speed, of our own f32's, of PyTorch's memory, and of a start.
FASTER, BF16_FASTER, MEMORY, START_MS = 1.5, 3, 0.5, 150
OF_BARE_PRODUCTS = 60  # percent
ROUNDS, STEPS = 5, {"mlp": 20, "resnet18": 3, "gpt": 3}
BLAS = "/usr/lib/x86_64-linux-gnu/libblas.so.3"


def mlp(p, x, training):
    for i in range(3):
        x = F.linear(x, p[f"layers.{i}.weight"].t(), p[f"layers.{i}.bias"])
        if i < 2:
            x = F.relu(x)
    return x


class Resnet:
    """In training batch norm moves its running statistics as a module would."""

    def __call__(self, p, x, training):
        self.p, self.training = p, training
        x = F.relu(self.conv_norm("resnet.embedder.embedder.", x, 1, 1))
        for stage in range(4):
            for block in range(2):
                name = f"resnet.encoder.stages.{stage}.layers.{block}."
                stride = 2 if stage > 0 and block == 0 else 1
                y = F.relu(self.conv_norm(name + "layer.0.", x, stride, 1))
                y = self.conv_norm(name + "layer.1.", y, 1, 1)
                if name + "shortcut.convolution.weight" in p:
                    x = self.conv_norm(name + "shortcut.", x, stride, 0)
                x = F.relu(x + y)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return F.linear(x, p["classifier.1.weight"], p["classifier.1.bias"])

    def conv_norm(self, name, x, stride, pad):
        x = F.conv2d(x, self.p[name + "convolution.weight"], stride=stride, padding=pad)
        n = name + "normalization."
        return F.batch_norm(x, self.p[n + "running_mean"].detach(),
                            self.p[n + "running_var"].detach(), self.p[n + "weight"],
                            self.p[n + "bias"], training=self.training, momentum=0.1)


def gpt(p, tokens, training):
    heads, width = 6, 384
    b, t = tokens.shape
    wte = p["transformer.wte.weight"]
    x = F.embedding(tokens, wte) + p["transformer.wpe.weight"][:t]
    masks = {kind: torch.full((t, t), -math.inf, dtype=kind).triu(1)
             for kind in (torch.float32, torch.bfloat16)}

    def dense(name, x):  # GPT-2 keeps these weights [in, out]
        return F.linear(x, p[name + ".weight"].t(), p[name + ".bias"])

    def norm(name, x):
        return F.layer_norm(x, (width,), p[name + ".weight"], p[name + ".bias"])

    for i in range(6):
        n = f"transformer.h.{i}."
        q, k, v = dense(n + "attn.c_attn", norm(n + "ln_1", x)).split(width, 2)
        q, k, v = (z.view(b, t, heads, width // heads).transpose(1, 2) for z in (q, k, v))
        a = q @ k.transpose(-2, -1) / math.sqrt(width // heads)
        y = F.softmax(a + masks[a.dtype], -1).to(v.dtype) @ v
        x = x + dense(n + "attn.c_proj", y.transpose(1, 2).reshape(b, t, width))
        x = x + dense(n + "mlp.c_proj", F.gelu(dense(n + "mlp.c_fc", norm(n + "ln_2", x))))
    return F.linear(norm("transformer.ln_f", x), p.get("head", wte))


MODELS = {"mlp": mlp, "resnet18": Resnet(), "gpt": gpt}


class Torch:
    def __init__(self, model, precision, folder, data=True):
        self.forward = MODELS[model]
        flat = torch.from_numpy(np.fromfile(os.path.join(folder, "weights.bin"), dtype=np.float32))
        self.params, at = {}, 0
        for line in open(os.path.join(folder, "weights.txt")):
            name, *shape = line.split()
            shape = [int(extent) for extent in shape]
            size = math.prod(shape)
            running = ".running_" in name
            self.params[name] = flat[at:at + size].reshape(shape).clone().requires_grad_(not running)
            at += size
        if data:
            self.read_batch(model, folder)
        self.trained = [p for p in self.params.values() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-3, weight_decay=0.01)
        self.bf16 = precision == "bf16"

    def read_batch(self, model, folder):
        shape = {"mlp": (256, 784), "resnet18": (64, 3, 32, 32), "gpt": (12, 256)}[model]
        kind = np.int32 if model == "gpt" else np.float32
        x = np.fromfile(os.path.join(folder, "x.bin"), dtype=kind).reshape(shape)
        self.x = torch.from_numpy(x.astype(np.int64) if model == "gpt" else x)
        self.y = torch.from_numpy(
            np.fromfile(os.path.join(folder, "y.bin"), dtype=np.int32).astype(np.int64))

    def logits(self, params, training):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
            return self.forward(params, self.x, training)

    def step(self, clip=None):
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.logits(self.params, training=True)
        loss = F.cross_entropy(logits.float().flatten(0, -2), self.y)
        loss.backward()
        # Our step also measures the gradient's norm, to stop on what is not finite.
        if clip is None:
            torch.norm(torch.stack([torch.norm(p.grad) for p in self.trained]))
        else:
            torch.nn.utils.clip_grad_norm_(self.trained, clip)
        self.optimizer.step()
        return loss.item()

    def ready(self):
        """Products and convolutions find their weights in the type that they compute in."""
        self.given = dict(self.params)
        if not self.bf16:
            return
        normed = [name for name in self.params if ".running_" in name]
        norms = {name.rsplit(".", 1)[0] for name in normed}
        for name, value in self.params.items():
            layer = name.rsplit(".", 1)[0]
            if layer in norms or ".ln_" in name or ".wpe." in name:
                continue
            narrow = value.detach().to(torch.bfloat16)
            # The embedding's rows are the stream, which stays f32.
            self.given["head" if ".wte." in name else name] = narrow

    def infer(self):
        with torch.no_grad():
            return self.logits(self.given, training=False)


def check(bench, model, precision, folder):
    subprocess.run([bench, model, precision, "check", folder], check=True)
    ours = [float(line) for line in open(os.path.join(folder, "losses.txt"))]
    peer = Torch(model, precision, folder)
    peer.ready()
    answers = peer.infer().float().flatten()
    apart = torch.from_numpy(np.fromfile(os.path.join(folder, "logits.bin"), np.float32)) - answers
    if not apart.abs().max() <= (0.05 if precision == "bf16" else 1e-3) * answers.abs().max():
        sys.exit(f"{model} {precision}: logits differ by {apart.abs().max()}, the largest is "
                 f"{answers.abs().max()}")
    theirs = [peer.step() for _ in ours]
    tolerance = 0.05 if precision == "bf16" else 2e-3
    for step, (a, b) in enumerate(zip(ours, theirs)):
        if not abs(a - b) <= tolerance * max(abs(b), 0.1):
            sys.exit(f"{model} {precision}: losses differ at step {step}: ours {ours}, "
                     f"PyTorch's {theirs}")


def time_torch(model, precision, folder, what):
    peer = Torch(model, precision, folder)
    if what == "forward":
        peer.ready()
    run = peer.step if what == "step" else peer.infer
    for _ in range(2):
        run()
    times = []
    for _ in range(STEPS[model]):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times), peak_mib()


def peak_mib():
    # Not ru_maxrss, which begins with that of the process that started this one.
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024


def time_torch_apart(model, precision, folder, what):
    """In a process of its own, so that its memory is its own."""
    out = subprocess.run([sys.executable, __file__, "--torch", model, precision, folder, what],
                         check=True, capture_output=True, text=True).stdout.split()
    return float(out[0]), float(out[1])


def time_ours(bench, model, precision, what):
    lines = subprocess.run([bench, model, precision, what, str(STEPS[model])], check=True,
                           capture_output=True, text=True).stdout.split("\n")
    times = [float(line) for line in lines if line and not line.startswith("peak")]
    peak = [float(line.split()[1]) for line in lines if line.startswith("peak")][0]
    return statistics.median(times), peak


def start_torch_apart(model, precision, folder):
    """Milliseconds until the first step begins. Both processes read the same clock."""
    begin = time.monotonic()
    out = subprocess.run([sys.executable, __file__, "--torch-start", model, precision, folder],
                         check=True, capture_output=True, text=True).stdout
    return 1e3 * (float(out) - begin)


def start_ours(bench, model, precision):
    return float(subprocess.run([bench, model, precision, "start"], check=True, capture_output=True,
                                text=True).stdout.split()[0])


def of_bare_products(bench, step_ms):
    gemm_bench = pathlib.Path(bench).parent / "gemm_bench"
    if not gemm_bench.exists():
        return
    out = subprocess.run([gemm_bench, "3"], check=True, capture_output=True, text=True,
                         env=os.environ | {"OMP_WAIT_POLICY": "passive"}).stdout
    bare = float(re.search(r"step of the GPT, bf16: .*oneDNN ([0-9.]+) ms", out)[1])
    goals.at_least("gpt step bf16: bare products of it, percent", 100 * bare / step_ms, OF_BARE_PRODUCTS)


def main():
    arguments = sys.argv[1:]
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if arguments[:1] == ["--torch"]:
        print(*time_torch(*arguments[1:]))
        return
    if arguments[:1] == ["--torch-start"]:
        peer = Torch(*arguments[1:])
        print(time.monotonic(), flush=True)
        peer.step()
        return
    bench = arguments[0] if arguments else "build/release/bench/model_bench"
    models = arguments[1:] or list(MODELS)
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads; "
          f"BLAS {os.path.realpath(BLAS)}", flush=True)
    for model in models:
        medians = {}
        with tempfile.TemporaryDirectory() as folder:
            for precision in ("f32", "bf16"):
                check(bench, model, precision, folder)
                for what in ("forward", "step"):
                    rounds = [(time_ours(bench, model, precision, what),
                               time_torch_apart(model, precision, folder, what))
                              for _ in range(ROUNDS if model == "mlp" else 3)]
                    ratios = [theirs[0] / ours[0] for ours, theirs in rounds]
                    ours, theirs = (statistics.median(r[i][0] for r in rounds) for i in (0, 1))
                    our_mib, their_mib = (max(r[i][1] for r in rounds) for i in (0, 1))
                    medians[precision, what] = ours
                    print(f"{model:9} {what:8} {precision:5}: ours {ours:.2f} ms, PyTorch {theirs:.2f} "
                          f"ms: {statistics.median(ratios):.2f}x as fast "
                          f"({min(ratios):.2f}-{max(ratios):.2f}); resident {our_mib:.0f} : "
                          f"{their_mib:.0f} MiB", flush=True)
                    goals.at_least(f"{model} {what} {precision} : PyTorch's speed",
                                   statistics.median(ratios), FASTER)
                    goals.at_most(f"{model} {what} {precision} : PyTorch's memory", our_mib / their_mib, MEMORY)
            starts = [(start_ours(bench, model, "bf16"), start_torch_apart(model, "bf16", folder))
                      for _ in range(ROUNDS)]
            ours, theirs = (statistics.median(s[i] for s in starts) for i in (0, 1))
            print(f"{model:9} start    bf16 : ours {ours:.0f} ms, PyTorch {theirs:.0f} ms", flush=True)
            goals.at_most(f"{model} start, ms", ours, START_MS)
        for what in ("forward", "step"):
            goals.at_least(f"{model} {what} bf16 : f32's speed, ours",
                           medians["f32", what] / medians["bf16", what], BF16_FASTER)
        if model == "gpt":
            of_bare_products(bench, medians["bf16", "step"])


if __name__ == "__main__":
    main()
