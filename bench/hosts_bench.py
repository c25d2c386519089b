#!/usr/bin/env python3
"""All-reduce and reduce-scatter among several ranks on each of several hosts: hierarchical against every rank giving
every other its part, or with two numbers of connections between ranks. A host is a network namespace, whose link tc
shapes both ways; its ranks share memory. Needs root, ip and tc; without them it says so and ends.

  bench/hosts_bench.py [--hosts 2] [--ranks 2] [--rate 1gbit] [--bench build/release/bench/hosts_bench]
  bench/hosts_bench.py --lanes 1 4 [--ranks 1] [--rate none] [--flow-rate 200mbit]

--ranks: of a host; --rate: of its link, both ways; --flow-rate: of each connection, as clouds and switches limit it."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile

from overlap_bench import Network


def bench(binary, hosts, ranks, rate, flow_rate, lanes):
    with Network(hosts, rate, flow_rate) as network, tempfile.TemporaryDirectory() as folder:
        processes = [
            subprocess.Popen(
                ["ip", "netns", "exec", network.namespace(host), binary, str(host * ranks + rank),
                 str(hosts * ranks), network.address(host), str(host), folder] + lanes)
            for host in range(hosts) for rank in range(ranks)]
        codes = [process.wait(timeout=580) for process in processes]
        if any(codes):
            raise SystemExit(f"ranks ended with {codes}")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rate", default="1gbit")
    parser.add_argument("--flow-rate")
    parser.add_argument("--lanes", nargs=2, default=[])
    parser.add_argument("--bench", default="build/release/bench/hosts_bench")
    arguments = parser.parse_args()
    if os.geteuid() != 0 or not shutil.which("tc"):
        print("skipped: shaping a network needs root and tc (Debian: iproute2)")
        return 0
    limits = f"{arguments.rate} a host" + (f", {arguments.flow_rate} a connection" if arguments.flow_rate else "")
    print(f"{arguments.hosts} hosts of {arguments.ranks} ranks, {limits}", flush=True)
    rate = None if arguments.rate == "none" else arguments.rate
    bench(arguments.bench, arguments.hosts, arguments.ranks, rate, arguments.flow_rate, arguments.lanes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
