"""Hosts on paper that are real to a program: network namespaces on one bridge, whose links can be cut,
both ways or one, and slowed. Needs root and ip(8), for the latter tc(8)."""
import os
import subprocess


def run(*args, check=True):
    return subprocess.run([*map(str, args)], check=check, capture_output=True, text=True, timeout=20)


def ip(*args, check=True):
    return run("ip", *args, check=check)


class Hosts:
    """A bridge of this host's, and further hosts on it. Leaves nothing behind after close()."""

    def __init__(self):
        self.tag = f"lp{os.getpid() % 10000}"
        self.subnet = f"10.{64 + os.getpid() % 64}.{os.getpid() // 64 % 256}"
        self.address = f"{self.subnet}.1"
        self.names = []
        try:
            ip("link", "add", self.tag, "type", "bridge")
            ip("addr", "add", f"{self.address}/24", "dev", self.tag)
            ip("link", "set", self.tag, "up")
            self.close_host(self.add())  # namespaces are allowed, too
        except (OSError, subprocess.SubprocessError):
            self.close()
            raise

    @staticmethod
    def available():
        """Why there are none; empty when there are."""
        try:
            Hosts().close()
            return ""
        except (OSError, subprocess.SubprocessError) as error:
            return f"no network namespaces here: {getattr(error, 'stderr', '') or error}".strip()

    def add(self):
        """A new host's number; its address is address_of(number)."""
        number = len(self.names) + 2
        name = f"{self.tag}n{number}"
        self.names.append(name)
        ip("netns", "add", name)
        ip("link", "add", f"{name}h", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", f"{name}h", "master", self.tag, "up")
        ip("-n", name, "addr", "add", f"{self.address_of(number)}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")
        return number

    def address_of(self, number):
        return f"{self.subnet}.{number}"

    def name_of(self, number):
        return self.names[number - 2]

    def command(self, number):
        """What makes a command line run on it."""
        return ["ip", "netns", "exec", self.name_of(number)]

    def cut(self, number, one_way=False):
        """Nothing leaves it any more; unless one_way nothing reaches it either."""
        name = self.name_of(number)
        if one_way:
            for half in ("0/25", "128/25"):
                ip("-n", name, "route", "add", "blackhole", f"{self.subnet}.{half}")
        else:
            ip("link", "set", f"{name}h", "down")

    def heal(self, number):
        name = self.name_of(number)
        ip("link", "set", f"{name}h", "up")
        for half in ("0/25", "128/25"):
            ip("-n", name, "route", "del", "blackhole", f"{self.subnet}.{half}", check=False)

    def cut_between(self, one, other, one_way=False):
        """Nothing goes from `one` to `other` any more, nor back unless one_way; all else does."""
        pairs = [(one, other)] if one_way else [(one, other), (other, one)]
        for here, there in pairs:
            ip("-n", self.name_of(here), "route", "replace", "blackhole", f"{self.address_of(there)}/32")

    def heal_between(self, one, other):
        for here, there in ((one, other), (other, one)):
            ip("-n", self.name_of(here), "route", "del", "blackhole", f"{self.address_of(there)}/32",
               check=False)

    def cut_from_bridge(self, number, one_way=False):
        """Nothing goes from it to the bridge's own address any more, nor back unless one_way; all else does."""
        ip("-n", self.name_of(number), "route", "replace", "blackhole", f"{self.address}/32")
        if not one_way:
            ip("route", "replace", "blackhole", f"{self.address_of(number)}/32")

    def heal_from_bridge(self, number):
        ip("-n", self.name_of(number), "route", "del", "blackhole", f"{self.address}/32", check=False)
        ip("route", "del", "blackhole", f"{self.address_of(number)}/32", check=False)

    def slow_between(self, one, other, rate):
        """What goes from `one` to `other` gets no more than `rate` (tc's), nor waits for longer than some packets do;
        all else is as fast as before. Before anything was sent, if small packets are to be the rule."""
        name, device = self.name_of(one), ("dev", "eth0")
        ip("-n", name, "link", "set", *device, "gso_max_segs", 1)
        run("tc", "-n", name, "qdisc", "add", *device, "root", "handle", "1:", "htb")
        run("tc", "-n", name, "class", "add", *device, "parent", "1:", "classid", "1:1", "htb", "rate", rate,
            "burst", "16kb")
        run("tc", "-n", name, "qdisc", "add", *device, "parent", "1:1", "bfifo", "limit", "32kb")
        run("tc", "-n", name, "filter", "add", *device, "parent", "1:", "protocol", "ip", "u32", "match", "ip", "dst",
            f"{self.address_of(other)}/32", "flowid", "1:1")

    def speed_up(self, one):
        run("tc", "-n", self.name_of(one), "qdisc", "del", "dev", "eth0", "root")

    def close_host(self, number):
        ip("netns", "del", self.name_of(number), check=False)
        ip("link", "del", f"{self.name_of(number)}h", check=False)

    def close(self):
        for number in range(2, len(self.names) + 2):
            self.close_host(number)
        ip("link", "del", self.tag, check=False)


def start_workers(hosts, cluster, count):
    """One on each of so many new hosts, whose ranks talk over TCP. By its name the number of its host."""
    host_of = {}
    for _ in range(count):
        number = hosts.add()
        worker = cluster.start_worker(env={"LEPTON_COLLECTIVES_TRANSPORT": "tcp"}, prefix=hosts.command(number),
                                      args=["--data-address", hosts.address_of(number)])
        host_of[worker.lepton_name] = number
    cluster.wait_for_workers(count)
    return host_of
