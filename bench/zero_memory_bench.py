#!/usr/bin/env python3
"""What a rank holds with parallel.zero 0 to 3, process by process: an MLP whose weights are most of
what there is. Of every rank the peak resident set (VmHWM of its process), and of rank 0 what it says that it
keeps; the stages' weights are compared first.
  bench/zero_memory_bench.py [layers] [width] [ranks]      # a release build"""
import pathlib
import re
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests/support"))
from cluster import FINAL, Cluster, train_spec  # noqa: E402

LAYERS = int(sys.argv[1]) if len(sys.argv) > 1 else 32
WIDTH = int(sys.argv[2]) if len(sys.argv) > 2 else 768
RANKS = int(sys.argv[3]) if len(sys.argv) > 3 else 4
STAGES, STEPS = [0, 1, 2, 3], 12
MB = 1e6


def spec(stage):
    return train_spec(model={"hidden": [WIDTH] * LAYERS}, steps=STEPS, epochs=1, batch_size=32,
                      resources={"min_workers": RANKS, "max_workers": RANKS},
                      elastic={"logical_shards": RANKS}, parallel={"zero": stage})


def peaks(cluster, job_id):
    """By process: the most that it had resident while it trained, and at any time."""
    training, ever = {}, {}
    while cluster.job(job_id)["state"] not in FINAL:
        step = cluster.job(job_id)["progress"]["step"]
        for pid in cluster.processes("--task "):
            try:
                text = pathlib.Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            found = re.search(r"VmHWM:\s+(\d+) kB", text)
            if found:
                ever[pid] = int(found[1]) * 1024
                if step < STEPS:
                    training[pid] = ever[pid]
        time.sleep(0.01)
    return sorted(training.values()), sorted(ever.values())


cluster = Cluster(workers=RANKS, slots=1)
try:
    digests, rows = {}, []
    for stage in STAGES:
        job_id = cluster.submit(spec(stage))
        training, ever = peaks(cluster, job_id)
        job = cluster.job(job_id)
        assert job["state"] == "SUCCEEDED", job
        digests[stage] = job["result"]["weights_sha256"]
        metrics = job["result"]["metrics"]
        kept = {k[6:-6]: v for k, v in metrics.items() if k.startswith("rank0/")}
        rows.append((stage, training, ever, kept, metrics["samples_per_second"]))
    assert len(set(digests.values())) == 1, digests
    print(f"{LAYERS} layers of {WIDTH}, {RANKS} ranks; MB; all stages end with the same weights")
    for stage, training, ever, kept, rate in rows:
        print(f"zero {stage}: resident at most {max(training) / MB:.0f} (with the result's writing {max(ever) / MB:.0f}); "
              + ", ".join(f"{k} {v / MB:.1f}" for k, v in kept.items()) + f"; {rate:.0f} samples/s")
    base = max(rows[0][1])
    print("of stage 0's: " + ", ".join(f"{max(t) / base:.2f}" for _, t, _, _, _ in rows))
finally:
    cluster.stop()
