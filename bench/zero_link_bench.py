#!/usr/bin/env python3
"""What a step takes by the stage of parallel.zero and by pieces of a shard (accumulate), over links that are slow: an
MLP whose weights are most of what there is, several ranks on each of several hosts. A host is a network namespace
with one worker, whose link tc's token buckets shape both ways; its ranks share memory.

  bench/zero_link_bench.py [--hosts 2] [--ranks 2] [--rate 1gbit] [--stages 0 1 2 3] [--accumulate 1 4]
                           [--layers 16] [--width 512] [--steps 40] [--rounds 3]

--ranks: of a host. All stages must end with the same weights. The bytes are all that leaves a
host during a job, by its steps: state at its start and end, reports and logs too. Needs root, ip and tc."""
import argparse
import pathlib
import shutil
import statistics
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests/support"))
sys.path.insert(0, str(HERE))
from cluster import Cluster, train_spec  # noqa: E402
from hosts import Hosts  # noqa: E402
from local_sgd_bench import shape, timed  # noqa: E402


def sent(hosts, number):
    """Bytes that have left the host."""
    name = hosts.name_of(number)
    return int(pathlib.Path(f"/sys/class/net/{name}h/statistics/rx_bytes").read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rate", default="1gbit")
    parser.add_argument("--stages", type=int, nargs="*", default=[0, 1, 2, 3])
    parser.add_argument("--accumulate", type=int, nargs="*", default=[1, 4])
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    reason = Hosts.available() or ("" if shutil.which("tc") else "no tc (Debian: iproute2)")
    if reason:
        print(f"skipped: {reason}")
        return
    ranks = arguments.hosts * arguments.ranks
    hosts = Hosts()
    cluster = Cluster(workers=0, slots=1, coordinator_args=["--link-address", hosts.address])

    def spec(stage, pieces):
        return train_spec(model={"hidden": [arguments.width] * arguments.layers}, steps=arguments.steps, epochs=1,
                          batch_size=8 * ranks * pieces, accumulate=pieces, checkpoint={"every_steps": 1_000_000},
                          resources={"min_workers": ranks, "max_workers": ranks},
                          elastic={"logical_shards": ranks}, parallel={"zero": stage})

    try:
        numbers = []
        for _ in range(arguments.hosts):
            numbers.append(hosts.add())
            shape(hosts, numbers[-1], arguments.rate)
            cluster.start_worker(slots=arguments.ranks, prefix=hosts.command(numbers[-1]),
                                 env={"LEPTON_COLLECTIVES_HOST": f"host{numbers[-1]}"},
                                 args=["--data-address", hosts.address_of(numbers[-1])])
        cluster.wait_for_workers(arguments.hosts)
        print(f"{arguments.hosts} hosts of {arguments.ranks} ranks, {arguments.rate}, {arguments.layers} layers of "
              f"{arguments.width}\n| accumulate | zero | ms a step | MB a step from a host, all told |\n|---|---|---|---|",
              flush=True)
        for pieces in arguments.accumulate:
            times, bytes_sent, weights = {}, {}, set()
            for _ in range(arguments.rounds):
                for stage in arguments.stages:
                    before = sent(hosts, numbers[0])
                    result, seconds = timed(cluster, spec(stage, pieces))
                    bytes_sent.setdefault(stage, []).append((sent(hosts, numbers[0]) - before) / arguments.steps)
                    times.setdefault(stage, []).append(seconds)
                    weights.add(result["weights_sha256"])
            if len(weights) != 1:
                raise SystemExit(f"accumulate {pieces}: the stages end with different weights")
            for stage in arguments.stages:
                print(f"| {pieces} | {stage} | {1000 * statistics.median(times[stage]):.0f} "
                      f"({1000 * min(times[stage]):.0f}-{1000 * max(times[stage]):.0f}) | "
                      f"{statistics.median(bytes_sent[stage]) / 1e6:.1f} |", flush=True)
    finally:
        cluster.stop()
        hosts.close()


if __name__ == "__main__":
    main()
