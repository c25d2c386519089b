#!/usr/bin/env python3
"""Seeded schedules of faults on a whole pool of 1 to 8 workers: ranks die, hang and pause; workers die,
are drained (by SIGTERM and through the API), join, and are cut off, both ways and one; the coordinator
is killed and started again. The jobs keep the whole state on each rank, or slices of it (parallel.zero 1
to 3), some so much of it that joiners get it beside the others' steps. Every one ends in its first attempt
with the digest of the undisturbed run, and has used each example once an epoch. It may be a later one
only where the last rank that had some slice or the state went before others could have what it had, within a budget
and a lease of another; then the events say so, and of ten seeds that is one.
What a seed does is drawn before anything runs, kinds from one deck for all seeds, so that ten seeds have each of
them; that each took place, and left its reason in some ledger, is asserted.
LEPTON_CHAOS_SEEDS=100 runs more, LEPTON_CHAOS_FIRST=7 begins there."""
import collections
import dataclasses
import itertools
import os
import pathlib
import random
import signal
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import Cluster, FINAL, main, train_spec, wait_until  # noqa: E402
from hosts import Hosts  # noqa: E402

FIRST = int(os.environ.get("LEPTON_CHAOS_FIRST", "1"))
SEEDS = int(os.environ.get("LEPTON_CHAOS_SEEDS", "10"))
FAULTS = 5
BUDGET_S, LEASE_S = 2, 1


def spec(workers, zero=0, large=False):
    """`large`: a model of eight blocks of the norm, whose slices have several owners."""
    job = train_spec(model={"hidden": [128, 128]}, epochs=90, checkpoint={"every_steps": 500},
                     resources={"min_workers": 1, "max_workers": workers},
                     elastic={"logical_shards": 8, "recovery_budget": f"{BUDGET_S}s"},
                     restart={"max": 20, "backoff": "50ms"})
    if large:
        job |= {"model": {"hidden": [400, 256]}, "epochs": 60, "clip_norm": 1.0,
                "gradients": {"bucket_bytes": 65536}, "parallel": {"zero": zero}}
    return job


@dataclasses.dataclass
class Fault:
    share: float   # of the job's steps
    kind: str      # a method of Pool
    victim: int    # among those that are there then, counted around
    wait: float    # seconds until a coordinator is back
    one_way: bool  # of a cut
    short: bool    # a cut that nobody need notice


# Several of what there is more to find by.
KINDS = ("kill_rank", "kill_rank", "hang_rank", "pause_rank", "kill_worker", "drain_worker", "drain_by_api",
         "drain_by_api", "join", "join", "join", "kill_coordinator", "cut_off", "cut_off")


# By these a rank goes, with what it holds.
LOSSES = {"kill_rank", "hang_rank", "kill_worker", "drain_worker", "drain_by_api", "cut_off"}


def kinds_of(seed):
    """From decks that are dealt out to the seeds one after another."""
    kinds = []
    for card in range((seed - 1) * FAULTS, seed * FAULTS):
        deck = list(KINDS)
        random.Random(card // len(deck)).shuffle(deck)
        kinds.append(deck[card % len(deck)])
    return kinds


class Plan:
    """All that a seed decides."""

    def __init__(self, seed):
        dice = random.Random(seed)
        self.size = dice.randint(1, 8)
        self.zero, self.large = dice.choice(((0, False), (0, True), (1, True), (2, True), (3, True)))
        shares = sorted(dice.uniform(0.02, 0.85) for _ in range(FAULTS))
        self.faults = [Fault(share, kind, dice.randrange(4096), dice.uniform(0, 0.3), dice.random() < 0.5,
                             dice.random() < 0.5) for share, kind in zip(shares, kinds_of(seed))]


class Pool:
    """One run: a cluster, its job, and what hurts them."""

    def __init__(self, seed, hosts):
        self.plan = Plan(seed)
        self.hosts = hosts
        self.size, self.zero, self.large = self.plan.size, self.plan.zero, self.plan.large
        # Over shared memory a cut cable would hurt nobody.
        self.env = {"LEPTON_COLLECTIVES_TRANSPORT": "tcp"} if hosts else None
        args = ["--link-address", hosts.address] if hosts else []
        self.cluster = Cluster(workers=0, slots=1, coordinator_args=args, lease=f"{LEASE_S}s")
        self.host_of = {}  # worker's process id -> host number, of those that can be cut
        self.stopped = []
        for _ in range(self.size):
            self.start_worker()
        self.cluster.wait_for_workers(self.size)
        # A pool of one gets a second rank with its second worker, and can lose it.
        self.job_id = self.cluster.submit(spec(max(2, self.size), self.zero, self.large))
        self.done = collections.Counter()
        self.losses = []  # (begin, end) of each

    def close(self):
        for pid in self.stopped:
            self.signal(pid, signal.SIGCONT)
        self.cluster.stop()

    @staticmethod
    def signal(pid, sig):
        try:
            os.kill(pid, sig)
        except ProcessLookupError:
            pass

    # ---- what there is ----
    def job(self):
        return self.cluster.job(self.job_id)

    def ranks(self):
        """Those of a group that trains; none while it is changing."""
        job = self.job()
        if job["state"] in FINAL or job["group"]["regrouping"]:
            return []
        return [t for t in job["tasks"] if t["state"] == "STARTED" and t["pid"] > 0]

    def workers(self):
        return [w for w in self.cluster.workers if w.poll() is None]

    def spare(self, fault):
        """A worker beside the first one, with a rank that others can do without."""
        ranks = {t["worker_id"] for t in self.settled_ranks()}
        able = [w for w in self.workers()[1:] if w.lepton_name in ranks]
        return able[fault.victim % len(able)] if able and len(ranks) > 1 else None

    def settled_ranks(self):
        """Those of the group that goes on from what was before, unless that takes long."""
        deadline = time.monotonic() + 3
        while not (ranks := self.ranks()) and self.job()["state"] not in FINAL and time.monotonic() < deadline:
            time.sleep(0.02)
        return sorted(ranks, key=lambda task: task["rank"])

    # ---- the faults: true when there was something to hurt ----
    def kill_rank(self, fault):
        ranks = self.settled_ranks()
        if len(ranks) < 2:
            return False
        victim = ranks[fault.victim % len(ranks)]
        self.signal(victim["pid"], signal.SIGKILL)
        # Else the next fault may take who seems to be one of two: nobody would be left to go on.
        wait_until(lambda: victim["task_id"] not in {t["task_id"] for t in self.job()["tasks"]
                                                     if t["state"] == "STARTED"}, 20, "a death noticed")
        return True

    def hang_rank(self, fault):
        ranks = self.settled_ranks()
        if len(ranks) < 2:
            return False
        self.stopped.append(ranks[fault.victim % len(ranks)]["pid"])
        self.signal(self.stopped[-1], signal.SIGSTOP)
        return True

    def pause_rank(self, fault):
        ranks = self.settled_ranks()
        if not ranks:
            return False
        pid = ranks[fault.victim % len(ranks)]["pid"]
        self.signal(pid, signal.SIGSTOP)
        time.sleep(0.3)
        self.signal(pid, signal.SIGCONT)
        return True

    def kill_worker(self, fault):
        worker = self.spare(fault)
        if worker is None:
            return False
        self.cluster.kill(worker)
        return True

    def drain_worker(self, fault):
        worker = self.spare(fault)
        if worker is None:
            return False
        self.cluster.kill(worker, signal.SIGTERM)
        return True

    def drain_by_api(self, fault):
        worker = self.spare(fault)
        if worker is None:
            return False
        status, body = self.cluster.call("POST", f"/v1/workers/{worker.lepton_name}:drain")
        assert status in (200, 202), body
        return True

    def join(self, fault):
        if len(self.workers()) >= 8:
            return False
        self.start_worker()
        return True

    def start_worker(self):
        if self.hosts is None or not self.workers():
            address = ["--data-address", self.hosts.address] if self.hosts else []
            self.cluster.start_worker(env=self.env, args=address)
        else:
            number = self.hosts.add()
            worker = self.cluster.start_worker(
                env=self.env, args=["--data-address", self.hosts.address_of(number)],
                prefix=self.hosts.command(number))
            self.host_of[worker.pid] = number

    def kill_coordinator(self, fault):
        self.cluster.kill(self.cluster.coordinator)
        time.sleep(fault.wait)
        self.cluster.start_coordinator()
        return True

    def cut_off(self, fault):
        worker = self.spare(fault)
        if worker is None or worker.pid not in self.host_of:
            return False
        number = self.host_of[worker.pid]
        self.hosts.cut(number, one_way=fault.one_way)
        # Or until it is lost.
        time.sleep(0.3 if fault.short else LEASE_S + 0.7)
        self.hosts.heal(number)
        return True

    def run(self):
        for fault in self.plan.faults:
            while True:
                job = self.job()
                if job["state"] in FINAL:
                    return job
                total = job["progress"].get("total_steps") or 0
                if total and job["progress"]["step"] >= fault.share * total:
                    break
                time.sleep(0.02)
            begin = time.monotonic()
            if getattr(self, fault.kind)(fault):
                self.done[fault.kind] += 1
                if fault.kind in LOSSES:
                    self.losses.append((begin, time.monotonic()))
        return wait_until(lambda: (lambda j: j if j["state"] in FINAL else None)(self.job()), 60,
                          "the job's end", 0.1)


class ChaosOnAPool(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        reason = Hosts.available()
        if reason:
            print(f"without partitions: {reason}", flush=True)
        cls.partitions = not reason
        cls.impossible = set() if cls.partitions else {"cut_off"}
        cls.told = {"RANK_LOST", "HUNG", "RANK_LEAVES", "RANK_JOINS"}
        calm = Cluster(workers=1, slots=1)
        cls.calm, cls.used = {}, {}
        try:
            for large in (False, True):
                job = calm.wait_job(calm.submit(spec(1, large=large)))
                result, epochs = job["result"], job["spec"]["epochs"]
                cls.calm[large] = (result["weights_sha256"], result["steps"])
                rows = job["progress"]["samples"] // epochs
                assert rows > 1000, job
                cls.used[large] = (epochs * rows, str(epochs * rows * (rows - 1) // 2))
        finally:
            calm.stop()

    def may_restart(self, pool):
        """Nobody had some slice, or the state, any more: two went before others could have what they held."""
        if not any(begin - end < BUDGET_S + LEASE_S for (_, end), (begin, _) in itertools.pairwise(pool.losses)):
            return False
        why = "both buddies" if pool.zero else "no rank has the training state"
        return pool.large and any(why in event["message"] for event in
                                  pool.cluster.items(f"/v1/jobs/{pool.job_id}/events"))

    def test_any_schedule_ends_with_the_undisturbed_weights(self):
        total, stages, reasons = collections.Counter(), collections.Counter(), collections.Counter()
        restarts = 0
        for seed in range(FIRST, FIRST + SEEDS):
            with self.subTest(seed=seed):
                begin = time.monotonic()
                hosts = Hosts() if self.partitions else None
                pool = Pool(seed, hosts)
                try:
                    job = pool.run()
                    self.assertEqual(job["state"], "SUCCEEDED", job)
                    self.assertEqual((job["result"]["weights_sha256"], job["result"]["steps"]),
                                     self.calm[pool.large])
                    self.assertEqual((job["progress"]["samples"], job["progress"]["sample_ids"]),
                                     self.used[pool.large])
                    restarted = job["attempt"] > 1
                    if restarted:
                        self.assertTrue(self.may_restart(pool), "no restart")
                    restarts += restarted
                    total += pool.done
                    reasons.update(one["reason_code"] for one in job.get("recoveries", []))
                    stages[f"{'large' if pool.large else 'small'} zero {pool.zero}"] += 1
                    print(f"seed {seed}: {pool.size} workers, zero {pool.zero}{' large' if pool.large else ''}, {dict(pool.done)}, "
                          f"{job['recovery_count']} recoveries{', a restart' if restarted else ''}, "
                          f"{time.monotonic() - begin:.1f} s", flush=True)
                except AssertionError:
                    print(f"seed {seed}: {pool.size} workers, zero {pool.zero}, {dict(pool.done)}")
                    print(*pool.cluster.items(f"/v1/jobs/{pool.job_id}/events"), sep="\n")
                    for log in sorted(pool.cluster.folder.glob("*.log")):
                        print(f"---- {log.name}\n{pool.cluster.log(log.name)}", flush=True)
                    raise
                finally:
                    pool.close()
                    if hosts:
                        hosts.close()
        print(f"in all: {dict(total)}, ledgers: {dict(reasons)}, jobs: {dict(stages)}", flush=True)
        self.assertGreater(sum(total.values()), 2 * SEEDS)
        self.assertLessEqual(restarts, max(1, SEEDS // 10))
        if SEEDS >= 10:
            self.assertEqual({kind for kind in KINDS if total[kind] == 0} - self.impossible, set(), "never took place")
            self.assertLessEqual(self.told, set(reasons))


if __name__ == "__main__":
    main()
