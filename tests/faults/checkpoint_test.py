#!/usr/bin/env python3
"""All ranks die while a checkpoint is on its way: one that was cut short is never chosen, however much of it is there.
The job starts again from the one before, and ends with the weights of the undisturbed run.

Gates in steps (LEPTON_TEST_TRAIN_FAULT=gate@...) stand before the checkpoint that is hurt and behind it."""
import os
import pathlib
import re
import signal
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import Cluster, main, train_spec, wait_until  # noqa: E402

RANKS, EVERY = 4, 40
BEFORE, BEHIND = 60, 100  # steps with a gate: a checkpoint, the gate, another, the gate


def spec(stage, ranks=RANKS):
    return train_spec(model={"hidden": [400, 256]}, epochs=6, checkpoint={"every_steps": EVERY}, clip_norm=1.0,
                      gradients={"bucket_bytes": 65536}, parallel={"zero": stage},
                      resources={"min_workers": ranks, "max_workers": ranks}, elastic={"logical_shards": 8},
                      restart={"max": 5, "backoff": "50ms"})


class CutShort(unittest.TestCase):
    def setUp(self):
        # A worker that is stopped for a while is not lost.
        self.cluster = Cluster(workers=0, slots=1, lease="20s")
        self.addCleanup(self.cluster.stop)
        for number in range(RANKS):
            self.start_worker(f"w{number}")
        self.open(BEFORE, BEHIND)
        job = self.cluster.wait_job(self.cluster.submit(spec(0, ranks=1)))
        self.digest = job["result"]["weights_sha256"]

    def start_worker(self, name):
        gates = [f"gate@{step}:{self.gate(step)}" for step in (BEFORE, BEHIND)]
        return self.cluster.start_worker(name, env={
            "LEPTON_TEST_TRAIN_FAULT": ",".join([*gates, f"slice:{self.holds_slice(name)}"])})

    def gate(self, step):
        return self.cluster.folder / f"gate{step}"

    def holds_slice(self, worker_id):
        return self.cluster.folder / f"slice-{worker_id}"

    def open(self, *steps):
        for step in steps:
            self.gate(step).touch()

    def reached(self, path):
        wait_until(pathlib.Path(f"{path}.reached").exists, 30, f"{path.name}.reached")

    def begin(self, stage):
        """A job with a checkpoint that stands in the first gate, and its tasks by rank."""
        for path in (*self.cluster.folder.glob("gate*"), *self.cluster.folder.glob("slice-*")):
            path.unlink()
        self.job_id = self.cluster.submit(spec(stage))
        self.reached(self.gate(BEFORE))
        self.cluster.wait_checkpoint(self.job_id)
        self.assertEqual(self.checkpoints(), [EVERY])
        tasks = sorted(self.cluster.job(self.job_id)["tasks"], key=lambda t: t["rank"])
        self.assertEqual(len(tasks), RANKS)
        return tasks

    def checkpoints(self):
        return [c["step"] for c in self.cluster.items(f"/v1/jobs/{self.job_id}/checkpoints")]

    def log(self, task_id):
        return "\n".join(one["line"] for one in self.cluster.items(f"/v1/jobs/{self.job_id}/logs")
                         if one["task_id"] == task_id)

    def wait_for_slices(self, tasks):
        for task in tasks:
            wait_until(lambda: f"checkpoint of step {2 * EVERY}, slice" in self.log(task["task_id"]), 30,
                       f"the slice of rank {task['rank']}")

    def kill_all(self, tasks):
        self.assertEqual(self.checkpoints(), [EVERY])
        for sig in (signal.SIGSTOP, signal.SIGKILL):
            for task in tasks:
                os.kill(task["pid"], sig)
        self.open(BEFORE, BEHIND)

    def goes_on_from_the_one_before(self):
        job = self.cluster.wait_job(self.job_id, timeout=90)
        events = self.cluster.items(f"/v1/jobs/{self.job_id}/events")
        self.assertEqual(job["state"], "SUCCEEDED", events)
        self.assertEqual(job["attempt"], 2, events)
        self.assertEqual(job["result"]["weights_sha256"], self.digest)
        first = re.search(r"steps (\d+) to", self.log(f"{self.job_id}.a2.r0"))
        self.assertEqual(int(first[1]), EVERY)
        self.assertIn(2 * EVERY, self.checkpoints())  # its steps were done again

    def test_one_of_which_a_part_is_not_written(self):
        for stage in (0, 1):
            with self.subTest(stage=stage):
                tasks = self.begin(stage)
                victim = tasks[0] if stage == 0 else tasks[1]  # the leader writes all that is not in slices
                hold = self.holds_slice(victim["worker_id"])
                hold.touch()
                self.open(BEFORE)
                self.reached(hold)
                if stage > 0:
                    self.wait_for_slices([t for t in tasks if t is not victim])
                self.kill_all(tasks)
                hold.unlink()
                self.goes_on_from_the_one_before()

    def test_one_of_which_a_slice_is_lost_with_its_worker(self):
        tasks = self.begin(1)
        victim = tasks[-1]
        worker = next(w for w in self.cluster.workers if w.lepton_name == victim["worker_id"])
        os.kill(worker.pid, signal.SIGSTOP)  # its task's slice comes no further than its disk
        self.open(BEFORE)
        self.reached(self.gate(BEHIND))
        self.wait_for_slices([t for t in tasks if t is not victim])
        time.sleep(0.5)  # the leader's word of which slices there are has come, too
        self.kill_all(tasks)
        self.cluster.kill(worker)
        self.start_worker(victim["worker_id"])
        self.goes_on_from_the_one_before()


if __name__ == "__main__":
    main()
