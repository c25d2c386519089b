#!/usr/bin/env python3
"""What rounds of local SGD save over a slow link, and what they cost in loss: a GPT of 4 layers x 128, two workers in
network namespaces of their own whose links tc's token buckets shape both ways, 4 logical shards.

  bench/local_sgd_bench.py TEXT [--rate 20mbit] [--steps 400] [--inner 1 10 50]

TEXT: a text file, such as tinyshakespeare. First every job runs a few rounds with one worker and without a link: the
weights over the link must be the same, bit for bit. Then it is timed over the link, from a round's end to a later one.
The losses are those of --steps steps, on this host: a link does not show in them. Needs root, ip and tc."""
import argparse
import pathlib
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests/support"))
sys.path.insert(0, str(HERE))
from cluster import Cluster, FINAL  # noqa: E402
from compression_bench import gpt  # noqa: E402
from hosts import Hosts  # noqa: E402

WORKERS = 2


def shape(hosts, number, rate):
    """What leaves the host, and what comes to it."""
    name = hosts.name_of(number)
    bucket = f"root tbf rate {rate} burst 64kb latency 50ms".split()
    subprocess.run(["tc", "-n", name, "qdisc", "add", "dev", "eth0", *bucket], check=True)
    subprocess.run(["tc", "qdisc", "add", "dev", f"{name}h", *bucket], check=True)


def spec(cluster, steps, inner, workers):
    rounds = {"local_sgd": {"inner_steps": inner}} if inner else {}
    return gpt(cluster.folder / "text.txt", steps) | rounds | {
        "elastic": {"logical_shards": 4, "recovery_budget": "30s"}, "checkpoint": {"every_steps": 1_000_000},
        "resources": {"min_workers": workers, "max_workers": workers}}


def done(job):
    if job["state"] != "SUCCEEDED":
        raise SystemExit(f"{job['name']}: {job}")
    return job["result"]


def timed(cluster, job_spec):
    """Its result, and seconds a step."""
    job_id, seen = cluster.submit(job_spec), []
    while (job := cluster.job(job_id))["state"] not in FINAL:
        step = job["progress"].get("step", 0)
        if 0 < step < job_spec["steps"] and (not seen or step > seen[-1][0]):
            seen.append((step, time.monotonic()))
        time.sleep(0.01)
    (first, begin), (last, end) = seen[0], seen[-1]
    return done(job), (end - begin) / (last - first)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--rate", default="20mbit")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--inner", type=int, nargs="*", default=[1, 10, 50])
    arguments = parser.parse_args()
    reason = Hosts.available() or ("" if shutil.which("tc") else "no tc (Debian: iproute2)")
    if reason:
        print(f"skipped: {reason}")
        return
    hosts = Hosts()
    local = Cluster(workers=WORKERS, slots=1)
    linked = Cluster(workers=0, slots=1, coordinator_args=["--link-address", hosts.address])
    try:
        for cluster in (local, linked):  # where specs may read files
            shutil.copy(arguments.text, cluster.folder / "text.txt")
        for _ in range(WORKERS):
            number = hosts.add()
            shape(hosts, number, arguments.rate)
            linked.start_worker(env={"LEPTON_COLLECTIVES_TRANSPORT": "tcp"}, prefix=hosts.command(number),
                                args=["--data-address", hosts.address_of(number)])
        linked.wait_for_workers(WORKERS)
        print(f"| {arguments.rate} | ms a sample | as fast | validation loss, {arguments.steps} steps | train loss |\n"
              "|---|---|---|---|---|", flush=True)
        plain = None
        for inner in [0, *arguments.inner]:
            few = 30 if inner < 2 else max(80, 4 * inner + inner // 2)
            result, seconds = timed(linked, spec(linked, few, inner, WORKERS))
            alone = done(local.wait_job(local.submit(spec(local, few, inner, 1)), timeout=600))
            if alone["weights_sha256"] != result["weights_sha256"]:
                raise SystemExit(f"inner_steps {inner}: other weights over the link")
            whole = done(local.wait_job(local.submit(spec(local, arguments.steps, inner, WORKERS)),
                                        timeout=1800))["metrics"]
            plain = plain or seconds
            print(f"| {f'inner_steps {inner}' if inner else 'every step together'} | {1000 * seconds / 16:.2f} | "
                  f"{plain / seconds:.1f}x | {whole['validation/loss']:.3f} | {whole['train/loss']:.3f} |", flush=True)
    finally:
        linked.stop()
        local.stop()
        hosts.close()


if __name__ == "__main__":
    main()
