#!/usr/bin/env python3
"""A distillation whose ranks die, in the student's loop and in the baseline behind it, goes on with those
that live: the student's weights and all figures are those of one undisturbed rank."""
import os
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import ClusterTest, FINAL, main, train_spec, wait_until  # noqa: E402

FIGURES = ("test/accuracy", "teacher/accuracy", "student_alone/accuracy", "validation/loss")


class ElasticDistill(ClusterTest):
    workers, slots = 3, 1

    def spec(self, most):
        return train_spec(kind="distill", teacher="digits", model={"hidden": [32]}, epochs=150,
                          checkpoint={"every_steps": 1000},
                          resources={"min_workers": 1, "max_workers": most},
                          elastic={"logical_shards": 6, "recovery_budget": "4s"})

    def kill_one(self, job_id):
        alive = [t for t in self.cluster.job(job_id)["tasks"] if t["state"] == "STARTED" and t["pid"] > 0]
        os.kill(alive[0]["pid"], signal.SIGKILL)

    def outcome(self, job):
        self.assertEqual(job["state"], "SUCCEEDED", job)
        metrics = job["result"]["metrics"]
        return job["result"]["weights_sha256"], {name: metrics[name] for name in FIGURES}

    def test_ranks_that_die_cost_neither_a_restart_nor_bits(self):
        self.cluster.train()
        calm = self.outcome(self.cluster.wait_job(self.cluster.submit(self.spec(1)), timeout=120))
        job_id = self.cluster.submit(self.spec(3))
        self.cluster.wait_step(job_id, 20)
        self.kill_one(job_id)

        def in_the_baseline():
            job = self.cluster.job(job_id)
            self.assertNotIn(job["state"], FINAL, job)
            return job["metrics"].get("student_alone/step", 0) > 0
        wait_until(in_the_baseline, 60, "the baseline", 0.01)
        self.kill_one(job_id)
        job = self.cluster.wait_job(job_id, timeout=120)
        self.assertEqual(self.outcome(job), calm)
        self.assertEqual(job["attempt"], 1, "no restart")
        print([(one["reason_code"], one["step"], one["ranks"]) for one in job["recoveries"]], flush=True)
        self.assertIn("RANK_LOST", [one["reason_code"] for one in job["recoveries"]])


if __name__ == "__main__":
    main()
