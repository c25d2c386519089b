#!/usr/bin/env python3
"""Every fault in every phase of an elastic job's life, one cell of the table at a time: the fault takes place,
the job ends in its first attempt with the undisturbed weights, and never stands still for longer than the budget
and, where that must run out first, the lease allow. By default one cell of each fault, of which half are its
usual one and half have their turn on the day of the commit that is tested: within sixteen days all cells have it.
All with LEPTON_MATRIX=all (scripts/check.sh chaos). LEPTON_MATRIX=corrupt runs that fault in every phase,
LEPTON_MATRIX=join every fault in that phase, LEPTON_MATRIX=kill:commit,hang:join two cells."""
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import Cluster, FINAL, ROOT, main, train_spec, wait_until  # noqa: E402
from hosts import Hosts  # noqa: E402

BUDGET_S, LEASE_S = 2, 1
MOST_CELLS = 12  # on the same workers, but for a fault's last ones
COME_BACK_S = 3  # for a worker to find a new coordinator
RANKS = 4
SLOWED = 200


def spec(most, zero=0):
    """Of a model whose state a joiner gets beside some steps, in pieces."""
    return train_spec(model={"hidden": [400, 256]}, epochs=24, checkpoint={"every_steps": 120}, clip_norm=1.0,
                      gradients={"bucket_bytes": 65536}, parallel={"zero": zero},
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
        # Room for what the cache keeps of all cells' jobs: it deletes nothing that was used within five minutes.
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", self.disk_of(name)],
                          capture_output=True).returncode == 0:
            self.disks.append(self.disk_of(name))
        args = ["--data-dir", self.disk_of(name) / "data"] + (["--data-address", address] if address else [])
        return self.cluster.start_worker(name, args=args, prefix=prefix, env={
            "LEPTON_COLLECTIVES_TRANSPORT": "tcp", "LEPTON_TEST_LINK_FAULTS": str(self.faults_of(name)),
            "LEPTON_TEST_TRAIN_FAULT": ",".join(f"{kind}:{self.faults_of(name)}/{kind}" for kind in
                                                ("commit", "piece", "slice", "device"))})

    def stop_at(self, task, hold, mark):
        """Its rank stands where `hold` says, until let_go()."""
        (self.faults_of(task["worker_id"]) / hold).touch()
        wait_until((self.faults_of(task["worker_id"]) / mark).exists, 20, mark, 0.002)

    def let_go(self, task):
        for hold in ("hold", "commit", "piece", "slice"):
            (self.faults_of(task["worker_id"]) / hold).unlink(missing_ok=True)

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


def slowed(bench, task):
    """How many of its worker's sends took longer so far."""
    mark = bench.faults_of(task["worker_id"]) / "slowed"
    return mark.stat().st_size if mark.exists() else 0


def slow_link(bench, task):
    """So many times what its worker sends takes three milliseconds more."""
    slow = bench.faults_of(task["worker_id"]) / "slow"
    slow.touch()

    def end():
        deadline = time.monotonic() + 20
        while slowed(bench, task) < SLOWED and time.monotonic() < deadline:
            time.sleep(0.01)
        slow.unlink(missing_ok=True)
    threading.Thread(target=end, daemon=True).start()


def corrupt(bench, task):
    (bench.faults_of(task["worker_id"]) / "corrupt").touch()


def device_error(bench, task):
    """Until the cell is over, so that whoever is started there again meets it, too."""
    (bench.faults_of(task["worker_id"]) / "device").touch()


def full_disk(bench, task):
    """Of the worker that writes the checkpoints."""
    leader = min(tasks(bench, task["task_id"].split(".")[0]), key=lambda t: t["rank"])
    with open(bench.disk_of(leader["worker_id"]) / "filler", "wb", 0) as filler:
        for size in (1 << 20, 4096):
            try:
                while filler.write(b"x" * size) == size:
                    pass
            except OSError:
                pass


# ---- and the coordinator dies while they last ----
def hang_and_coordinator(bench, task):
    hang(bench, task)
    coordinator_dies(bench, task)


def cut_off_and_coordinator(bench, task):
    cut_off(bench, task)
    coordinator_dies(bench, task)


def slow_link_and_coordinator(bench, task):
    slow_link(bench, task)
    coordinator_dies(bench, task)


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


def allreduce(bench, job_id):
    """Between two sends of one: its peers have some of what it sends, and wait for the rest."""
    victim = able(bench, whole(bench, job_id))
    bench.stop_at(victim, "hold", "held")
    return victim


def commit(bench, job_id):
    """All have the sum, and its peers may have stepped by it already."""
    victim = able(bench, whole(bench, job_id))
    bench.stop_at(victim, "commit", "commit.reached")
    return victim


def join(bench, job_id):
    """It has some of the state, and more is on its way to it beside the step."""
    while True:
        old = able(bench, whole(bench, job_id))
        (bench.faults_of(old["worker_id"]) / "piece").touch()
        stands = bench.faults_of(old["worker_id"]) / "piece.reached"
        os.kill(old["pid"], signal.SIGKILL)
        steps = []

        def stands_or_has_all():
            job = bench.cluster.job(job_id)
            assert job["state"] not in FINAL, "too short for this test"
            gone = old["task_id"] not in {t["task_id"] for t in tasks(bench, job_id)}
            if gone and job["group"]["ranks"] == RANKS and not job["group"]["regrouping"]:
                steps.append(job["progress"]["step"])
            return stands.exists() or (steps and steps[-1] > steps[0] + 50)
        wait_until(stands_or_has_all, 20, "a joiner", 0.005)
        if stands.exists():
            return next(t for t in tasks(bench, job_id) if t["worker_id"] == old["worker_id"])
        # Its first steps were followed by an evaluation, before which all have all of the state.


def join_slices(bench, job_id):
    """The same of a state of which each rank has slices."""
    return join(bench, job_id)


def checkpoint(bench, job_id):
    """The others have written their slices, or do; steps go on."""
    victim = able(bench, whole(bench, job_id))
    bench.stop_at(victim, "slice", "slice.reached")
    return victim


def drain(bench, job_id):
    known = whole(bench, job_id)
    goes = known[1]["worker_id"]
    worker = next(w for w in bench.cluster.workers if w.poll() is None and w.lepton_name == goes)
    if worker is bench.cluster.workers[0]:  # stays
        goes = known[2]["worker_id"]
        worker = next(w for w in bench.cluster.workers if w.poll() is None and w.lepton_name == goes)
    worker.send_signal(signal.SIGTERM)
    return able(bench, [t for t in known if t["worker_id"] != goes])


PHASES = (init, step, allreduce, commit, join, join_slices, checkpoint, drain)
ZERO = {join_slices: 1, checkpoint: 1}  # parallel.zero: each rank has a slice, and writes it
# And the phase of its cell by default.
FAULTS = {kill: commit, hang: join, cut_off: drain, cut_off_one_way: step, coordinator_dies: checkpoint,
          slow_link: step, corrupt: init, full_disk: step, device_error: step, hang_and_coordinator: allreduce,
          cut_off_and_coordinator: step, slow_link_and_coordinator: commit}
CUTS = (cut_off, cut_off_one_way, cut_off_and_coordinator)
# Nobody's lease has to end before it is known.
AT_ONCE = (kill, hang, slow_link, corrupt, full_disk, device_error)
# By which reason a job's events, or those of the worker, say that it took place.
TOLD = {kill: {"RANK_LOST"}, hang: {"HUNG"}, hang_and_coordinator: {"HUNG"}, corrupt: {"CORRUPT"},
        device_error: {"DEVICE_FAILED"},
        cut_off: {"RANK_LOST", "UNREACHABLE"}, cut_off_one_way: {"RANK_LOST", "UNREACHABLE"},
        cut_off_and_coordinator: {"RANK_LOST", "UNREACHABLE"}}


def day_of_the_commit():
    """So that a run of the same commit is the same; outside of a repository, today."""
    found = subprocess.run(["git", "-C", str(ROOT), "log", "-1", "--format=%ct"], capture_output=True, text=True)
    return int(found.stdout.strip() or time.time()) // 86400


def cells_of(day):
    """One of each fault: its usual one every second day, and all the others in turn."""
    cells = []
    for number, (fault, usual) in enumerate(FAULTS.items()):
        turn, others = divmod(day + number, 2)
        cells.append((fault, PHASES[turn % len(PHASES)] if others else usual))
    return cells


class Turns(unittest.TestCase):
    def test_within_sixteen_days_all_cells_have_theirs(self):
        met = {cell for day in range(2 * len(PHASES)) for cell in cells_of(20_000 + day)}
        self.assertEqual(met, {(fault, phase) for fault in FAULTS for phase in PHASES})
        usual = sum(cell in FAULTS.items() for cell in cells_of(20_000))
        self.assertGreaterEqual(usual, len(FAULTS) // 2)


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
        job_id = bench.cluster.submit(spec(RANKS, ZERO.get(phase, 0)))
        victim = phase(bench, job_id)
        before = bench.cluster.job(job_id)
        self.assertNotIn(before["state"], FINAL, "nothing to hurt")
        heard = max(e["seq"] for e in bench.cluster.items(f"/v1/jobs/{job_id}/events"))
        fault(bench, victim)
        bench.let_go(victim)
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
        silence = 0 if fault in AT_ONCE else COME_BACK_S if fault is cut_off_and_coordinator else LEASE_S
        self.assertLess(longest, BUDGET_S + 0.5 + silence, job.get("recoveries"))
        self.check_took_place(fault, phase, victim, job, len(before["tasks"]), heard)
        return longest

    def check_took_place(self, fault, phase, victim, job, known, heard):
        bench = self.bench
        events = [e for e in bench.cluster.items(f"/v1/jobs/{job['id']}/events") if e["seq"] > heard]
        reasons = {e["reason_code"] for e in events}
        # One that is no member yet is replaced without a word, or awaited by nobody until the job is over.
        missed = len(job["tasks"]) > known or job["group"]["ranks"] < RANKS
        unseen = phase is init and fault is not corrupt and missed
        if fault in TOLD and not unseen:
            self.assertTrue(reasons & TOLD[fault], events)
        if fault is corrupt:
            self.assertRegex(bench.cluster.call("GET", "/metrics")[1], r"\nlepton_collectives_corrupt_total [1-9]")
        full = any("No space left" in e["message"] for e in events)
        if fault is not full_disk:
            self.assertFalse(full, events)
        elif phase in (init, step, allreduce, commit, checkpoint):  # before one that is due, or is written
            self.assertTrue(full, events)
        if fault in (slow_link, slow_link_and_coordinator):
            self.assertGreaterEqual(slowed(bench, victim), SLOWED)
            if phase in (step, allreduce, commit):  # waited for, and no reason to do anything
                self.assertEqual(job["recovery_count"], 0, events)

    def test_every_fault_in_every_phase(self):
        wanted = set(filter(None, os.environ.get("LEPTON_MATRIX", "").split(",")))
        bench = self.bench
        turns = cells_of(day_of_the_commit())
        if not wanted:
            print("LEPTON_MATRIX=" + ",".join(f"{fault.__name__}:{phase.__name__}" for fault, phase in turns), flush=True)
        done = 0
        for fault in FAULTS:
            # What jobs leave would fill the small disks.
            if done >= MOST_CELLS:
                bench.close()
                bench, done = Bench(), 0
                type(self).bench = bench
            for phase in PHASES:
                names = {"all", fault.__name__, phase.__name__, f"{fault.__name__}:{phase.__name__}"}
                if not wanted & names if wanted else (fault, phase) not in turns:
                    continue
                if fault is full_disk and not bench.disks:
                    print("full_disk: needs the right to mount a tmpfs", flush=True)
                    continue
                if self.bench.hosts is None and fault in CUTS:
                    print(f"{fault.__name__} x {phase.__name__}: no network namespaces here", flush=True)
                    continue
                done += 1
                with self.subTest(fault=fault.__name__, phase=phase.__name__):
                    begin = time.monotonic()
                    try:
                        longest = self.cell(fault, phase)
                    except AssertionError:
                        print("workers:", bench.cluster.items("/v1/workers"))
                        for log in sorted(bench.cluster.folder.glob("*.log")):
                            print(f"---- {log.name}\n{bench.cluster.log(log.name)}", flush=True)
                        raise
                    print(f"{fault.__name__:25} x {phase.__name__:10} no step for at most {longest:.2f} s, "
                          f"{time.monotonic() - begin:.1f} s", flush=True)


if __name__ == "__main__":
    main()
