#!/usr/bin/env python3
"""How much of the gradients' exchange hides behind the backward pass, over a network of 1 Gbit/s.

Ranks live in network namespaces of their own, joined by a bridge; tc's token buckets (tbf) shape
both directions of every rank's link. Needs root, ip and tc; without them it says so and ends.
Each rank computes with one thread.

  bench/overlap_bench.py [--ranks 2 4] [--rate 1gbit] [--bench build/release/bench/overlap_bench]
                         [--work "6 384 256 4 bf16 3 5 1024"]

--work: layers, width, context, batch of a rank, precision, steps a measurement, rounds, and bucket
sizes in KiB, as bench/overlap_bench.cc takes them; 0 is the size that the steps measure."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile


def run(command, check=True):
    return subprocess.run(command.split(), check=check, capture_output=True, text=True)


# A flow is told by its two ports, as a switch does that has several ways: so many can be told apart.
FLOWS = 1024
FIRST_FLOW = 0x1000


def flow_limits(rate):
    """What tc is told, so that no connection gets more than `rate`."""
    # Of the packet: both ports, exclusive-or, which is the number of a class (classic BPF: opcode, jt, jf, k).
    port_bits = [(0x28, 34), (0x02, 0), (0x28, 36), (0x61, 0), (0xac, 0), (0x54, FLOWS - 1),
                 (0x04, 0x10000 + FIRST_FLOW), (0x16, 0)]
    program = ",".join([str(len(port_bits))] + [f"{opcode} 0 0 {k}" for opcode, k in port_bits])
    return "\n".join(
        ["qdisc add dev eth0 root handle 1: htb"] +
        [f"class add dev eth0 parent 1: classid 1:{FIRST_FLOW + flow:x} htb rate {rate} burst 256kb cburst 256kb "
         "quantum 60000" for flow in range(FLOWS)] +
        [f"filter add dev eth0 parent 1: protocol ip bpf bytecode '{program}'"])


class Network:
    """`ranks` namespaces on one bridge; 10.77.0.(rank + 1). Limits what a rank sends and gets (`rate`), or what each of
    its connections sends (`flow_rate`), where they are given."""

    def __init__(self, ranks, rate, flow_rate=None):
        self.ranks = ranks
        self.tag = f"lo{os.getpid() % 10000}"
        # A bucket of 256 KiB lets a whole offloaded packet through at once.
        shape = f"root tbf rate {rate} burst 256kb latency 20ms"
        run(f"ip netns add {self.tag}b")
        inside = f"ip netns exec {self.tag}b"
        run(f"{inside} ip link add br0 type bridge")
        run(f"{inside} ip link set br0 up")
        for rank in range(ranks):
            name = self.namespace(rank)
            run(f"ip netns add {name}")
            run(f"ip -n {name} link set lo up")
            run(f"ip -n {name} link add eth0 type veth peer name v{rank} netns {self.tag}b")
            run(f"ip -n {name} addr add {self.address(rank)}/24 dev eth0")
            run(f"ip -n {name} link set eth0 up")
            run(f"{inside} ip link set v{rank} master br0 up")
            if flow_rate:
                subprocess.run(["tc", "-n", name, "-batch", "-"], input=flow_limits(flow_rate), text=True, check=True)
            elif rate:
                run(f"tc -n {name} qdisc add dev eth0 {shape}")
            if rate:
                run(f"tc -n {self.tag}b qdisc add dev v{rank} {shape}")

    def namespace(self, rank):
        return f"{self.tag}r{rank}"

    @staticmethod
    def address(rank):
        return f"10.77.0.{rank + 1}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name in [self.namespace(rank) for rank in range(self.ranks)] + [f"{self.tag}b"]:
            run(f"ip netns del {name}", check=False)


def bench(binary, ranks, rate, work):
    with Network(ranks, rate) as network, tempfile.TemporaryDirectory() as folder:
        processes = [
            subprocess.Popen(
                ["ip", "netns", "exec", network.namespace(rank), binary, str(rank), str(ranks),
                 network.address(rank), folder] + work.split())
            for rank in range(ranks)]
        codes = [process.wait(timeout=580) for process in processes]
        if any(codes):
            raise SystemExit(f"ranks ended with {codes}")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--rate", default="1gbit")
    parser.add_argument("--bench", default="build/release/bench/overlap_bench")
    parser.add_argument("--work", default="")
    arguments = parser.parse_args()
    if os.geteuid() != 0 or not shutil.which("tc"):
        print("skipped: shaping a network needs root and tc (Debian: iproute2)")
        return 0
    for ranks in arguments.ranks:
        bench(arguments.bench, ranks, arguments.rate, arguments.work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
