#!/usr/bin/env python3
"""Ranks that hang while gradients travel in slices (parallel.zero 2), and weights too (3), where the others wait
in the middle of their passes: they are told from slow ones and removed as with the whole state on each rank."""
import os
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import elastic_test  # noqa: E402
from cluster import Cluster, main, wait_until  # noqa: E402
from drain_test import Drained, drain_spec  # noqa: E402

STAGES = [int(s) for s in os.environ.get("LEPTON_DRAIN_STAGES", "0,2,3").split(",")]
STEP = 30


class Hung(Drained):
    def run_hurt(self, stage, fault, budget_s, meanwhile=None):
        """Three ranks, of which the one on worker "hurt" has the fault; the job's end."""
        self.cluster = Cluster(workers=2, slots=1)
        self.addCleanup(self.cluster.stop)
        self.cluster.start_worker("hurt", env={"LEPTON_TEST_TRAIN_FAULT": fault.format(self.cluster.folder)})
        self.cluster.wait_for_workers(3)
        spec = drain_spec(stage, high=3, low=2)
        spec["elastic"]["recovery_budget"] = f"{budget_s}s"
        job_id = self.cluster.submit(spec)
        if meanwhile:
            meanwhile(job_id)
        job = self.finish(job_id)
        self.cluster.stop()
        return job

    def removed(self, job):
        print([(one["reason_code"], one["total_ms"], one["cause"]) for one in job["recoveries"]], flush=True)
        return next(one for one in job["recoveries"] if one["reason_code"] == "HUNG")

    def test_a_training_thread_that_hangs_in_its_step(self):
        for stage in STAGES:
            with self.subTest(stage=stage):
                one = self.removed(self.run_hurt(stage, f"hang@{STEP}", elastic_test.BUDGET_S))
                self.assertRegex(one["cause"], rf"on worker hurt: hung: its training thread stands still in step {STEP}")
                self.assertLess(one["total_ms"], elastic_test.BUDGET_S * 1000)

    def test_a_process_that_is_stopped(self):
        def stop(job_id):
            gate = wait_until(lambda: pathlib.Path(f"{self.cluster.folder}/gate.reached").exists(), 30, "the gate")
            self.assertTrue(gate)
            pid = next(t["pid"] for t in self.cluster.job(job_id)["tasks"] if t["worker_id"] == "hurt")
            os.kill(pid, signal.SIGSTOP)
        for stage in STAGES:
            with self.subTest(stage=stage):
                one = self.removed(self.run_hurt(stage, f"gate@{STEP}:{{}}/gate", elastic_test.BUDGET_S, stop))
                self.assertLess(one["total_ms"], elastic_test.BUDGET_S * 1000)

    def test_one_that_stalls_behind_its_step_where_nobody_but_its_peers_can_see_it(self):
        for stage in STAGES:
            with self.subTest(stage=stage):
                job = self.run_hurt(stage, f"stall@{STEP}", 1)
                self.assertEqual(self.removed(job)["step"], STEP + 1)


if __name__ == "__main__":
    main()
