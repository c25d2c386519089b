#!/usr/bin/env python3
"""What a joiner costs those that train: the step in which it is let in, from where the old group parted
to the commit, against the median step. A GPT of 4 layers x 128 on three workers, which a fourth joins
and leaves again and again; the text is this repository's own.
  bench/join_bench.py [joins] [large]      # a release build; large: 6 layers x 384, 10.8 million parameters"""
import pathlib
import signal
import statistics
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests/support"))
from cluster import Cluster, FINAL, wait_until  # noqa: E402

JOINS = int(sys.argv[1]) if len(sys.argv) > 1 else 10
LAYERS, WIDTH = (6, 384) if "large" in sys.argv else (4, 128)


def spec(text):
    return {"kind": "train", "name": "join", "loss": "next_token",
            "dataset": {"uri": f"file://{text}", "format": "text", "tokenizer": "bytes", "context": 128},
            "model": {"arch": "transformer", "style": "gpt2", "layers": LAYERS, "heads": 4, "width": WIDTH},
            "optimizer": {"name": "adamw", "lr": 0.001},
            "batch_size": 12, "steps": 1_000_000, "seed": 3, "checkpoint": {"every_steps": 10_000_000},
            "resources": {"min_workers": 1, "max_workers": 4}, "elastic": {"logical_shards": 12}}


def step_ms(cluster, job):
    """Of one step, over some seconds."""
    first, begin = cluster.job(job)["progress"]["step"], time.monotonic()
    time.sleep(2 if WIDTH == 128 else 10)
    return 1000 * (time.monotonic() - begin) / max(1, cluster.job(job)["progress"]["step"] - first)


cluster = Cluster(workers=3, slots=1)
try:
    text = cluster.folder / "text.txt"
    text.write_text("".join(p.read_text(errors="replace") for p in sorted((HERE.parent / "docs").rglob("*.md"))))
    job = cluster.submit(spec(text))
    cluster.wait_step(job, 5)
    steps, joins, restored = [step_ms(cluster, job)], [], 0
    for _ in range(JOINS):
        before = cluster.job(job)["recovery_count"]
        worker = cluster.start_worker()

        def joined():
            view = cluster.job(job)
            assert view["state"] not in FINAL, view
            return next((r for r in view.get("recoveries", [])[before:] if r["reason_code"] == "RANK_JOINS"), None)
        entry = wait_until(joined, 60, "a join")
        joins.append(sum(entry[k] for k in ("agree_ms", "rebuild_ms", "restore_ms", "first_commit_ms")))
        restored = entry["restored_bytes"]
        steps.append(step_ms(cluster, job))
        cluster.kill(worker, signal.SIGTERM)
        wait_until(lambda: cluster.job(job)["group"]["ranks"] == 3, 30, "three ranks")
    median = statistics.median(steps)
    print(f"a step: median {median:.1f} ms; the step of a join, {restored} bytes of state: median "
          f"{statistics.median(joins):.1f}, worst of {JOINS} {max(joins):.1f} ms")
    print(f"ratio {max(joins) / median:.2f}")
finally:
    cluster.stop()
