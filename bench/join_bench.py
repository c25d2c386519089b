#!/usr/bin/env python3
"""What a joiner costs those that train: every step while it gets the state and is let in, against the median
step without. A GPT on three workers, which a fourth joins and leaves again and again; the text is this
repository's own.

  bench/join_bench.py [--joins 5] [--large] [--rate 1gbit] [--compression bf16] [--context 128]
                      [--zero 3] [--steps]

--large: 6 layers x 384, 10.8 million parameters, instead of 4 x 128. --rate: workers in network namespaces of
their own, whose links tc's token buckets shape both ways; needs root, ip and tc. A release build ($LEPTON for
another binary, to compare)."""
import argparse
import pathlib
import signal
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests/support"))
import goals  # noqa: E402
from cluster import Cluster, FINAL, wait_until  # noqa: E402
from hosts import Hosts  # noqa: E402

STEPS_AFTER = 12  # all of a join is in them


def shape(hosts, number, rate):
    """What leaves the host, and what comes to it; a bucket lets a whole offloaded packet through at once."""
    bucket = f"root tbf rate {rate} burst 256kb latency 20ms".split()
    subprocess.run(["tc", "-n", hosts.name_of(number), "qdisc", "add", "dev", "eth0", *bucket], check=True)
    subprocess.run(["tc", "qdisc", "add", "dev", f"{hosts.name_of(number)}h", *bucket], check=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--joins", type=int, default=5)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--rate", default="")
    parser.add_argument("--compression", default="none")
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--zero", type=int, default=0, choices=range(4), help="parallel.zero")
    parser.add_argument("--steps", action="store_true", help="print each step's milliseconds")
    return parser.parse_args()


def spec(text, options):
    layers, width = (6, 384) if options.large else (4, 128)
    return {"kind": "train", "name": "join", "loss": "next_token",
            "dataset": {"uri": f"file://{text}", "format": "text", "tokenizer": "bytes",
                        "context": options.context},
            "model": {"arch": "transformer", "style": "gpt2", "layers": layers, "heads": 4, "width": width},
            "optimizer": {"name": "adamw", "lr": 0.001}, "gradients": {"compression": options.compression},
            "parallel": {"zero": options.zero}, "batch_size": 12, "steps": 1_000_000, "seed": 3,
            "checkpoint": {"every_steps": 10_000_000},
            "resources": {"min_workers": 1, "max_workers": 4},
            "elastic": {"logical_shards": 12, "recovery_budget": "30s"}}


class Gang:
    def __init__(self, options):
        reason = Hosts.available() if options.rate else ""
        if reason:
            raise SystemExit(f"skipped: {reason}")
        self.rate = options.rate
        self.hosts = Hosts() if self.rate else None
        self.cluster = Cluster(workers=0, slots=1, coordinator_args=(
            ["--link-address", self.hosts.address] if self.hosts else []))
        for count in range(3):
            self.add()
        self.cluster.wait_for_workers(3)
        text = self.cluster.folder / "text.txt"
        docs = "".join(p.read_text(errors="replace") for p in sorted((HERE.parent / "docs").rglob("*.md")))
        text.write_text(10 * docs)  # no epoch ends meanwhile: its evaluation would count as a slow step
        self.job_id = self.cluster.submit(spec(text, options))

    def close(self):
        self.cluster.stop()
        if self.hosts:
            self.hosts.close()

    def add(self):
        if not self.hosts:
            return self.cluster.start_worker()
        number = self.hosts.add()
        shape(self.hosts, number, self.rate)
        return self.cluster.start_worker(env={"LEPTON_COLLECTIVES_TRANSPORT": "tcp"},
                                         prefix=self.hosts.command(number),
                                         args=["--data-address", self.hosts.address_of(number)])

    def job(self):
        view = self.cluster.job(self.job_id)
        assert view["state"] not in FINAL, view
        return view

    def step_ms(self, until):
        """Of each step until `until(job)`; of some together, where reports come less often."""
        times, (step, began) = [], (None, 0)
        while True:
            job = self.job()
            now, at = time.monotonic(), job["progress"]["step"]
            if step is None:
                step, began = at, now
            if at > step:
                times += [1000 * (now - began) / (at - step)] * (at - step)
                step, began = at, now
                if until(job):
                    return times[1:]  # the first had begun before
            time.sleep(0.005)

    def some_steps(self, count):
        first = self.job()["progress"]["step"]
        return self.step_ms(lambda job: job["progress"]["step"] > first + count)

    def join(self):
        """A step for each while a worker joins, the ledger's entry, and the worker."""
        before = self.job()["recovery_count"]
        worker = self.add()

        def entry_of(job):
            return next((r for r in job.get("recoveries", [])[before:] if r["reason_code"] == "RANK_JOINS"), None)

        def joined(job):
            entry = entry_of(job)
            return entry and job["progress"]["step"] >= entry["step"] + STEPS_AFTER
        return self.step_ms(joined), entry_of(self.job()), worker


def main():
    options = arguments()
    gang = Gang(options)
    try:
        gang.cluster.wait_step(gang.job_id, 5, timeout=120)
        alone, during, joins, restored = gang.some_steps(10), [], [], 0
        for _ in range(options.joins):
            steps, entry, worker = gang.join()
            if options.steps:
                print(" ".join(f"{ms:.0f}" for ms in steps), f"joined in step {entry['step']}", flush=True)
            during += steps
            joins.append(sum(entry[k] for k in ("agree_ms", "rebuild_ms", "restore_ms", "first_commit_ms")))
            restored = entry["restored_bytes"]
            gang.cluster.kill(worker, signal.SIGTERM)
            wait_until(lambda: gang.job()["group"]["ranks"] == 3, 60, "three ranks")
            alone += gang.some_steps(6)
        median = statistics.median(alone)
        during.sort()
        p99 = during[min(len(during) - 1, int(0.99 * len(during)))]
        print(f"{'large' if options.large else 'small'}, {options.rate or 'one host'}, {options.compression}, context "
              f"{options.context}, zero {options.zero}: a step of three: median {median:.0f} ms; {restored / 1e6:.0f} MB of state, "
              f"{options.joins} joins: the first step with a joiner, median {statistics.median(joins):.0f} ms, worst "
              f"{max(joins):.0f} ms, {max(joins) / median:.2f} x; {len(during)} steps from a worker's start to {STEPS_AFTER} "
              f"behind its join: median {statistics.median(during):.0f} ms, p99 {p99:.0f} ms")
        goals.at_most("p99 of the steps during a join : median step", p99 / median, 2)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{error}: {error.stderr}")
    finally:
        gang.close()


main()
