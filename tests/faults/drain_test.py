#!/usr/bin/env python3
"""Workers are drained and ranks get SIGTERM, one, both of a pair and all at once, also while their
group is broken: with the whole state on each rank (stage 0) and with slices of it (parallel.zero 1
to 3) no committed step is lost, and the weights are those of the undisturbed run.

A gate in one rank's step (LEPTON_TEST_TRAIN_FAULT=gate@...) holds the moment: the others wait for it in
the reduction, or, when one of them has died, for the next group."""
import concurrent.futures
import functools
import os
import pathlib
import signal
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import elastic_test  # noqa: E402
from cluster import Cluster, FINAL, main, wait_until  # noqa: E402

STAGES = [int(s) for s in os.environ.get("LEPTON_DRAIN_STAGES", "0,1,2,3").split(",")]
GATE_STEP = 30


def drain_spec(stage, high=4, low=1):
    spec = elastic_test.elastic_spec(low, high, epochs=10, clip_norm=1.0, checkpoint={"every_steps": 100_000})
    # Eight blocks of the norm: two stripes, of which four ranks have slices.
    return spec | {"model": {"hidden": [400, 256]}, "gradients": {"bucket_bytes": 65536},
                   "parallel": {"zero": stage}}


def each_stage(*stages):
    """The test, once for each stage, with a cluster of its own."""
    def wrap(test):
        @functools.wraps(test)
        def run(self):
            for stage in [s for s in STAGES if s in (stages or STAGES)]:
                with self.subTest(stage=stage):
                    self.cluster = Cluster(workers=0, slots=1)
                    try:
                        test(self, stage)
                    except BaseException:
                        for log in sorted(self.cluster.folder.glob("*.log")):
                            print(f"---- stage {stage}: {log.name}\n{self.cluster.log(log.name)}", flush=True)
                        raise
                    finally:
                        self.cluster.stop()
        return run
    return wrap


class Drained(unittest.TestCase):
    """Four ranks, one of them behind a gate; buddies are half the gang apart: r0 and r2, r1 and r3."""
    calm = {}

    def calm_digest(self):
        if not Drained.calm:
            cluster = Cluster(workers=1, slots=1)
            try:
                job = cluster.wait_job(cluster.submit(drain_spec(0, high=1)))
                Drained.calm = {"digest": job["result"]["weights_sha256"], "steps": job["result"]["steps"]}
            finally:
                cluster.stop()
        return Drained.calm

    def at_the_gate(self, stage, low=1, spares=0):
        """A job of four ranks, of which that on worker "gated" stands in the gate."""
        self.gate = self.cluster.folder / "gate"
        for name in ("w0", "w1", "w2"):
            self.cluster.start_worker(name)
        self.cluster.start_worker("gated", env={"LEPTON_TEST_TRAIN_FAULT": f"gate@{GATE_STEP}:{self.gate}"})
        self.cluster.wait_for_workers(4)
        job_id = self.cluster.submit(drain_spec(stage, low=low))
        wait_until(lambda: pathlib.Path(f"{self.gate}.reached").exists(), 30, "the gate")
        ranks = {t["worker_id"]: t for t in self.cluster.job(job_id)["tasks"] if t["state"] == "STARTED"}
        self.assertEqual(len(ranks), 4)
        for number in range(spares):
            self.cluster.start_worker(f"spare{number}")
        # The gated rank's buddy, and the other two, which are a pair.
        by_rank = sorted(ranks.values(), key=lambda t: t["rank"])
        gated = ranks["gated"]["rank"]
        self.buddy = by_rank[(gated + 2) % 4]
        self.pair = [by_rank[(gated + 1) % 4], by_rank[(gated + 3) % 4]]
        self.gated = ranks["gated"]
        self.all = by_rank
        return job_id

    def drain(self, *tasks):
        """All at once."""
        with concurrent.futures.ThreadPoolExecutor() as pool:
            calls = [pool.submit(self.cluster.call, "POST", f"/v1/workers/{t['worker_id']}:drain") for t in tasks]
        for call in calls:
            self.assertIn(call.result()[0], (200, 202))

    def open(self):
        self.gate.touch()

    def left_group(self, job_id, *tasks):
        """They are out of the group that broke, and wait for the next."""
        for task in tasks:
            wait_until(lambda: "is over" in self.log(task) or self.cluster.job(job_id)["state"] in FINAL, 20,
                       f"rank {task['rank']} out of its group")

    def log(self, task):
        job_id = task["task_id"].split(".")[0]
        return "\n".join(one["line"] for one in self.cluster.items(f"/v1/jobs/{job_id}/logs")
                         if one["task_id"] == task["task_id"])

    def finish(self, job_id, attempt=1):
        job = self.cluster.wait_job(job_id, timeout=90)
        self.assertEqual(job["state"], "SUCCEEDED", job)
        self.assertEqual(job["attempt"], attempt, job)
        self.assertEqual({"digest": job["result"]["weights_sha256"], "steps": job["result"]["steps"]},
                         self.calm_digest())
        return job

    def finish_elsewhere(self, job_id, committed):
        """All have gone: other workers go on where they stopped."""
        wait_until(lambda: self.cluster.items(f"/v1/jobs/{job_id}/checkpoints"), 30, "a checkpoint")
        wait_until(lambda: self.cluster.job(job_id)["state"] in ("QUEUED", "RECOVERING") or
                   self.cluster.job(job_id)["state"] in FINAL, 30, "the ranks' end")
        self.assertGreaterEqual(self.cluster.items(f"/v1/jobs/{job_id}/checkpoints")[-1]["step"], committed)
        for number in range(2):
            self.cluster.start_worker(f"other{number}")
        return self.finish(job_id, attempt=2)


class One(Drained):
    @each_stage()
    def test_one(self, stage):
        job_id = self.at_the_gate(stage)
        self.drain(self.pair[0])
        self.open()
        job = self.finish(job_id)
        self.assertIn("RANK_LEAVES", [r["reason_code"] for r in job["recoveries"]])


class Pair(Drained):
    @each_stage()
    def test_both_buddies_at_once(self, stage):
        job_id = self.at_the_gate(stage)
        self.drain(*self.pair)
        self.open()
        self.finish(job_id)

    @each_stage()
    def test_all_but_one_at_once(self, stage):
        job_id = self.at_the_gate(stage)
        self.drain(self.gated, *self.pair)
        self.open()
        self.finish(job_id)

    @each_stage()
    def test_one_is_drained_and_its_buddy_dies(self, stage):
        job_id = self.at_the_gate(stage)
        self.drain(self.pair[0])
        os.kill(self.pair[1]["pid"], signal.SIGKILL)
        self.open()
        self.finish(job_id)

    @each_stage()
    def test_both_get_sigterm_while_their_group_is_broken(self, stage):
        job_id = self.at_the_gate(stage)
        os.kill(self.buddy["pid"], signal.SIGKILL)
        self.left_group(job_id, *self.pair)
        for task in self.pair:
            os.kill(task["pid"], signal.SIGTERM)
        self.open()
        self.finish(job_id)

    @each_stage(1, 2, 3)
    def test_below_the_least_others_take_their_places(self, stage):
        job_id = self.at_the_gate(stage, low=4, spares=2)
        self.cluster.wait_for_workers(6)
        self.drain(*self.pair)
        self.open()
        self.finish(job_id)


class All(Drained):
    @each_stage()
    def test_all_at_once(self, stage):
        job_id = self.at_the_gate(stage)
        self.drain(*self.all)
        self.open()
        self.finish_elsewhere(job_id, GATE_STEP)

    @each_stage()
    def test_all_while_their_group_is_broken(self, stage):
        job_id = self.at_the_gate(stage)
        os.kill(self.buddy["pid"], signal.SIGKILL)
        self.left_group(job_id, *self.pair)
        self.drain(*self.all)
        self.open()
        self.finish_elsewhere(job_id, GATE_STEP - 1)

    @each_stage()
    def test_a_death_below_the_least(self, stage):
        """Not a drain, but the same end: nobody may go on, and none has the state alone."""
        job_id = self.at_the_gate(stage, low=4)
        self.cluster.kill(next(w for w in self.cluster.workers
                               if w.lepton_name == self.buddy["worker_id"]))
        self.open()
        wait_until(lambda: self.cluster.items(f"/v1/jobs/{job_id}/checkpoints"), 30, "a checkpoint")
        self.assertGreaterEqual(self.cluster.items(f"/v1/jobs/{job_id}/checkpoints")[-1]["step"],
                                GATE_STEP - 1)
        self.cluster.start_worker("other")
        self.finish(job_id, attempt=2)


if __name__ == "__main__":
    main()
