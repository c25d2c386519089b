#!/usr/bin/env python3
"""Seeded schedules of faults on a whole pool of 1 to 8 workers: ranks die, hang and pause; workers die,
are drained (SIGTERM), join, and are cut off, both ways and one; the coordinator is killed and started
again. Every one ends in its first attempt with the digest of the undisturbed run: every step's
examples were used exactly once. With the state in slices (parallel.zero 3) both buddies of one may be lost,
which an event says; then the job goes on from its last checkpoint, to the same digest.
LEPTON_CHAOS_SEEDS=100 runs more, LEPTON_CHAOS_FIRST=7 begins there."""
import collections
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
LEASE_S = 1


def spec(workers, sliced=False):
    """Sliced: six blocks of the norm, which ranks have as their slices."""
    return train_spec(model={"hidden": [256 if sliced else 128] * 2}, epochs=45 if sliced else 90,
                      checkpoint={"every_steps": 500}, parallel={"zero": 3 if sliced else 0},
                      resources={"min_workers": 1, "max_workers": workers},
                      elastic={"logical_shards": 8, "recovery_budget": "2s"},
                      restart={"max": 20, "backoff": "50ms"})


class Pool:
    """One run: a cluster, its job, and the dice that hurt them."""

    def __init__(self, seed, hosts, sliced):
        self.dice = random.Random(seed)
        self.hosts = hosts
        self.size = self.dice.randint(1, 8)
        # Over shared memory a cut cable would hurt nobody.
        self.env = {"LEPTON_COLLECTIVES_TRANSPORT": "tcp"} if hosts else None
        args = ["--link-address", hosts.address] if hosts else []
        self.cluster = Cluster(workers=0, slots=1, coordinator_args=args, lease=f"{LEASE_S}s")
        self.host_of = {}  # worker's process id -> host number, of those that can be cut
        self.stopped = []
        for _ in range(self.size):
            self.join()
        self.cluster.wait_for_workers(self.size)
        self.job_id = self.cluster.submit(spec(self.size, sliced))
        self.done = collections.Counter()

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

    def spare(self):
        """A worker beside the first one, with a rank that others can do without."""
        ranks = {t["worker_id"] for t in self.ranks()}
        able = [w for w in self.workers()[1:] if w.lepton_name in ranks]
        return self.dice.choice(able) if able and len(ranks) > 1 else None

    # ---- the faults: true when there was something to hurt ----
    def kill_rank(self):
        ranks = self.ranks()
        if len(ranks) < 2:
            return False
        victim = self.dice.choice(ranks)
        self.signal(victim["pid"], signal.SIGKILL)
        # Else the next fault may take who seems to be one of two: nobody would be left to go on.
        wait_until(lambda: victim["task_id"] not in {t["task_id"] for t in self.job()["tasks"]
                                                     if t["state"] == "STARTED"}, 20, "a death noticed")
        return True

    def hang_rank(self):
        ranks = self.ranks()
        if len(ranks) < 2:
            return False
        self.stopped.append(self.dice.choice(ranks)["pid"])
        self.signal(self.stopped[-1], signal.SIGSTOP)
        return True

    def pause_rank(self):
        ranks = self.ranks()
        if not ranks:
            return False
        pid = self.dice.choice(ranks)["pid"]
        self.signal(pid, signal.SIGSTOP)
        time.sleep(0.3)
        self.signal(pid, signal.SIGCONT)
        return True

    def kill_worker(self):
        worker = self.spare()
        if worker is None:
            return False
        self.cluster.kill(worker)
        return True

    def drain_worker(self):
        worker = self.spare()
        if worker is None:
            return False
        self.cluster.kill(worker, signal.SIGTERM)
        return True

    def join(self):
        if len(self.workers()) >= 8:
            return False
        if self.hosts is None or not self.workers():
            address = ["--data-address", self.hosts.address] if self.hosts else []
            self.cluster.start_worker(env=self.env, args=address)
        else:
            number = self.hosts.add()
            worker = self.cluster.start_worker(
                env=self.env, args=["--data-address", self.hosts.address_of(number)],
                prefix=self.hosts.command(number))
            self.host_of[worker.pid] = number
        return True

    def kill_coordinator(self):
        self.cluster.kill(self.cluster.coordinator)
        time.sleep(self.dice.uniform(0, 0.3))
        self.cluster.start_coordinator()
        return True

    def cut_off(self):
        worker = self.spare()
        if worker is None or worker.pid not in self.host_of:
            return False
        number = self.host_of[worker.pid]
        self.hosts.cut(number, one_way=self.dice.random() < 0.5)
        # For a moment that nobody need notice, or until it is lost.
        time.sleep(self.dice.choice([0.3, LEASE_S + 0.7]))
        self.hosts.heal(number)
        return True

    KINDS = (kill_rank, kill_rank, hang_rank, pause_rank, kill_worker, drain_worker, join, join,
             kill_coordinator, cut_off, cut_off)

    def run(self):
        shares = sorted(self.dice.uniform(0.02, 0.85) for _ in range(FAULTS))
        kinds = [self.dice.choice(self.KINDS) for _ in range(FAULTS)]
        for share, kind in zip(shares, kinds):
            while True:
                job = self.job()
                if job["state"] in FINAL:
                    return job
                total = job["progress"].get("total_steps") or 0
                if total and job["progress"]["step"] >= share * total:
                    break
                time.sleep(0.02)
            if kind(self):
                self.done[kind.__name__] += 1
        return wait_until(lambda: (lambda j: j if j["state"] in FINAL else None)(self.job()), 60,
                          "the job's end", 0.1)


class ChaosOnAPool(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        reason = Hosts.available()
        if reason:
            print(f"without partitions: {reason}", flush=True)
        cls.partitions = not reason
        calm = Cluster(workers=1, slots=1)
        try:
            cls.calm = []
            for sliced in (False, True):
                job = calm.wait_job(calm.submit({**spec(1, sliced), "parallel": {"zero": 0}}))
                cls.calm.append((job["result"]["weights_sha256"], job["result"]["steps"]))
        finally:
            calm.stop()

    def test_any_schedule_ends_with_the_undisturbed_weights(self):
        total = self.run_seeds(range(FIRST, FIRST + SEEDS))
        self.assertGreater(sum(total.values()), SEEDS)

    def test_so_it_does_with_the_state_in_slices(self):
        self.run_seeds(range(FIRST, FIRST + (SEEDS + 3) // 4), sliced=True)

    def lost_buddies(self, pool):
        events = pool.cluster.get(f"/v1/jobs/{pool.job_id}/events")["items"]
        return any("both buddies: going on from the last checkpoint" in e["message"] for e in events)

    def run_seeds(self, seeds, sliced=False):
        total = collections.Counter()
        for seed in seeds:
            with self.subTest(seed=seed):
                begin = time.monotonic()
                hosts = Hosts() if self.partitions else None
                pool = Pool(seed, hosts, sliced)
                try:
                    job = pool.run()
                    self.assertEqual(job["state"], "SUCCEEDED", job)
                    self.assertEqual(job["result"]["weights_sha256"], self.calm[sliced][0])
                    self.assertEqual(job["result"]["steps"], self.calm[sliced][1])
                    if not sliced or not self.lost_buddies(pool):
                        self.assertEqual(job["attempt"], 1, "no restart")
                    total += pool.done
                    print(f"{'in slices, ' if sliced else ''}seed {seed}: {pool.size} workers, {dict(pool.done)}, "
                          f"{job['recovery_count']} recoveries, {time.monotonic() - begin:.1f} s", flush=True)
                except AssertionError:
                    print(f"seed {seed}: {pool.size} workers, {dict(pool.done)}")
                    for log in sorted(pool.cluster.folder.glob("*.log")):
                        print(f"---- {log.name}\n{pool.cluster.log(log.name)}", flush=True)
                    raise
                finally:
                    pool.close()
                    if hosts:
                        hosts.close()
        print(f"in all: {dict(total)}", flush=True)
        return total


if __name__ == "__main__":
    main()
