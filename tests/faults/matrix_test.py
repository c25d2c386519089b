#!/usr/bin/env python3
"""Every fault in every phase of an elastic job's life, one cell of the table at a time: the job ends in
its first attempt with the undisturbed weights, and never stands still for longer than the budget and the
lease allow. By default one cell of each fault, so that each phase is met too; all with LEPTON_MATRIX=all
(scripts/check.sh chaos). LEPTON_MATRIX=corrupt runs that fault in every phase."""
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import Cluster, FINAL, main, train_spec, wait_until  # noqa: E402
from hosts import Hosts  # noqa: E402

BUDGET_S, LEASE_S = 2, 1
RANKS = 4


def spec(most):
    return train_spec(model={"hidden": [128, 128]}, epochs=60, checkpoint={"every_steps": 300},
                      resources={"min_workers": 1, "max_workers": most},
                      elastic={"logical_shards": 8, "recovery_budget": f"{BUDGET_S}s"},
                      restart={"max": 20, "backoff": "50ms"})


class Bench:
    """A pool on which cells run one after another; what a cell has broken is made whole."""

    def __init__(self):
        self.hosts = None if Hosts.available() else Hosts()
        args = ["--link-address", self.hosts.address] if self.hosts else []
        self.cluster = Cluster(workers=0, slots=1, coordinator_args=args, lease=f"{LEASE_S}s")
        self.host_of = {}  # worker's name -> host number
        self.disks = []    # small ones, of a worker each
        self.mend()
        job = self.cluster.wait_job(self.cluster.submit(spec(1)))
        self.digest = job["result"]["weights_sha256"]

    def close(self):
        self.cluster.stop()
        for disk in self.disks:
            subprocess.run(["umount", disk], capture_output=True)
        if self.hosts:
            self.hosts.close()

    def faults_of(self, worker_id):
        """The folder by whose files its links are hurt."""
        return self.cluster.folder / f"faults-{worker_id}"

    def disk_of(self, worker_id):
        return self.cluster.folder / f"disk-{worker_id}"

    def start_worker(self, address=None, prefix=()):
        name = f"w{len(self.cluster.workers)}"
        self.faults_of(name).mkdir()
        self.disk_of(name).mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", self.disk_of(name)],
                          capture_output=True).returncode == 0:
            self.disks.append(self.disk_of(name))
        args = ["--data-dir", self.disk_of(name) / "data"] + (["--data-address", address] if address else [])
        return self.cluster.start_worker(name, args=args, prefix=prefix, env={
            "LEPTON_COLLECTIVES_TRANSPORT": "tcp", "LEPTON_TEST_LINK_FAULTS": str(self.faults_of(name))})

    def mend(self):
        for worker in self.cluster.workers:
            if worker.poll() is None and worker.lepton_name in self.host_of:
                self.hosts.heal(self.host_of[worker.lepton_name])
        for worker in self.cluster.workers:
            (self.disk_of(worker.lepton_name) / "filler").unlink(missing_ok=True)
            for fault in self.faults_of(worker.lepton_name).iterdir():
                fault.unlink(missing_ok=True)
        while len([w for w in self.cluster.workers if w.poll() is None]) < RANKS:
            if not self.hosts:
                self.start_worker()
            elif not self.cluster.workers:
                self.start_worker(self.hosts.address)
            else:
                number = self.hosts.add()
                worker = self.start_worker(self.hosts.address_of(number), self.hosts.command(number))
                self.host_of[worker.lepton_name] = number
        # A job is over in two seconds: a worker that still ends a task of the one before would miss it.
        def idle(worker):
            return worker["state"] == "UP" and worker["slots_used"] == 0
        wait_until(lambda: sum(map(idle, self.cluster.items("/v1/workers"))) == RANKS, 20, "the whole pool, idle")
        # A link that was cut may be silent for seconds more, until its host sends again what was lost.
        needs_all = train_spec(epochs=1, resources={"min_workers": RANKS, "max_workers": RANKS})
        self.cluster.wait_job(self.cluster.submit(needs_all), timeout=30)
        wait_until(lambda: sum(map(idle, self.cluster.items("/v1/workers"))) == RANKS, 20, "the whole pool, idle")


# ---- the faults: of a task ----
def kill(bench, task):
    os.kill(task["pid"], signal.SIGKILL)


def hang(bench, task):
    os.kill(task["pid"], signal.SIGSTOP)


def cut_off(bench, task):
    bench.hosts.cut(bench.host_of[task["worker_id"]])


def cut_off_one_way(bench, task):
    bench.hosts.cut(bench.host_of[task["worker_id"]], one_way=True)


def coordinator_dies(bench, task):
    bench.cluster.kill(bench.cluster.coordinator)
    bench.cluster.start_coordinator()


def slow_link(bench, task):
    """For a second and a half what its worker sends takes three milliseconds more."""
    slow = bench.faults_of(task["worker_id"]) / "slow"
    slow.touch()
    threading.Timer(1.5, lambda: slow.unlink(missing_ok=True)).start()


def corrupt(bench, task):
    (bench.faults_of(task["worker_id"]) / "corrupt").touch()


def full_disk(bench, task):
    """Of the worker that writes the checkpoints."""
    leader = min(tasks(bench, task["task_id"].split(".")[0]), key=lambda t: t["rank"])
    with open(bench.disk_of(leader["worker_id"]) / "filler", "wb", 0) as filler:
        try:
            while True:
                filler.write(b"x" * 4096)
        except OSError:
            pass


# ---- the phases: the task to hurt, at the moment when it is in it ----
def tasks(bench, job_id, states=("PLACED", "STARTED")):
    return [t for t in bench.cluster.job(job_id)["tasks"] if t["state"] in states and t["pid"] > 0]


def whole(bench, job_id):
    def ready():
        job = bench.cluster.job(job_id)
        return job["group"]["ranks"] == RANKS and not job["group"]["regrouping"] and job["progress"]["step"] > 0
    wait_until(ready, 20, "the whole gang's steps", 0.005)
    return sorted(tasks(bench, job_id, ("STARTED",)), key=lambda t: t["rank"])


def able(bench, found):
    """One that can be cut off, if any can be: not the first worker's."""
    return next((t for t in reversed(found) if t["worker_id"] in bench.host_of or not bench.hosts), None)


def init(bench, job_id):
    return wait_until(lambda: able(bench, tasks(bench, job_id)), 20, "a process", 0.002)


def step(bench, job_id):
    return able(bench, whole(bench, job_id))


def join(bench, job_id):
    known = whole(bench, job_id)
    os.kill(able(bench, known)["pid"], signal.SIGKILL)
    old = {t["task_id"] for t in known}
    return wait_until(lambda: next((t for t in tasks(bench, job_id) if t["task_id"] not in old), None), 20,
                      "a joiner", 0.002)


def checkpoint(bench, job_id):
    known = whole(bench, job_id)
    before = len(bench.cluster.items(f"/v1/jobs/{job_id}/checkpoints"))
    wait_until(lambda: len(bench.cluster.items(f"/v1/jobs/{job_id}/checkpoints")) > before, 20, "one", 0.002)
    return able(bench, known)


def drain(bench, job_id):
    known = whole(bench, job_id)
    goes = known[1]["worker_id"]
    worker = next(w for w in bench.cluster.workers if w.poll() is None and w.lepton_name == goes)
    if worker is bench.cluster.workers[0]:  # stays
        goes = known[2]["worker_id"]
        worker = next(w for w in bench.cluster.workers if w.poll() is None and w.lepton_name == goes)
    worker.send_signal(signal.SIGTERM)
    return able(bench, [t for t in known if t["worker_id"] != goes])


FAULTS = (kill, hang, cut_off, cut_off_one_way, coordinator_dies, slow_link, corrupt, full_disk)
PHASES = (init, step, join, checkpoint, drain)


class Matrix(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.bench = Bench()

    @classmethod
    def tearDownClass(cls):
        cls.bench.close()

    def cell(self, fault, phase):
        bench = self.bench
        bench.mend()
        job_id = bench.cluster.submit(spec(RANKS))
        victim = phase(bench, job_id)
        fault(bench, victim)
        # The ledger begins when a lease runs out; what counts is how long no step is committed.
        moved, longest, last, deadline = time.monotonic(), 0.0, None, time.monotonic() + 60
        while True:
            job = bench.cluster.job(job_id)
            now = (job["state"], job["progress"]["step"])
            if now != last:
                longest, moved, last = max(longest, time.monotonic() - moved), time.monotonic(), now
            if job["state"] in FINAL:
                break
            self.assertLess(time.monotonic(), deadline, job)
            time.sleep(0.02)
        self.assertEqual(job["state"], "SUCCEEDED", job)
        self.assertEqual(job["attempt"], 1, job)
        self.assertEqual(job["result"]["weights_sha256"], bench.digest)
        self.assertLess(longest, BUDGET_S + LEASE_S + 1, job.get("recoveries"))
        if fault is full_disk and phase in (init, step):  # before a checkpoint that is due
            told = [e["message"] for e in bench.cluster.items(f"/v1/jobs/{job_id}/events")]
            self.assertTrue(any("No space left" in one for one in told), told)
        if fault is corrupt:
            self.assertFalse((bench.faults_of(victim["worker_id"]) / "corrupt").exists(), "nothing was hurt")
            told = [e["reason_code"] for e in bench.cluster.items(f"/v1/jobs/{job_id}/events")]
            self.assertIn("CORRUPT", told)
        return longest

    def test_every_fault_in_every_phase(self):
        wanted = os.environ.get("LEPTON_MATRIX", "")
        bench = self.bench
        for i, fault in enumerate(FAULTS):
            for j, phase in enumerate(PHASES):
                if wanted != "all" and wanted != fault.__name__ and (wanted or (i + 2 * j) % 5 != 0):
                    continue
                if fault is full_disk and not bench.disks:
                    print("full_disk: needs the right to mount a tmpfs", flush=True)
                    continue
                if self.bench.hosts is None and fault in (cut_off, cut_off_one_way):
                    print(f"{fault.__name__} x {phase.__name__}: no network namespaces here", flush=True)
                    continue
                with self.subTest(fault=fault.__name__, phase=phase.__name__):
                    begin = time.monotonic()
                    longest = self.cell(fault, phase)
                    print(f"{fault.__name__:16} x {phase.__name__:10} no step for at most {longest:.2f} s, "
                          f"{time.monotonic() - begin:.1f} s", flush=True)


if __name__ == "__main__":
    main()
