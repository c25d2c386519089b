#!/usr/bin/env python3
"""A bit flips in one rank's parameters: it is named with its tensor in the step in which it happens,
and removed; the weights are those of the undisturbed run. Two ranks cannot say who is right: the job
fails, and says so."""
import pathlib
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import Cluster, lepton, main, train_spec, wait_until  # noqa: E402

STEP = 40
TENSOR = "layers.2.bias"


def spec(workers, **fields):
    fields.setdefault("checkpoint", {"every_steps": STEP})
    return train_spec(model={"hidden": [128, 128]}, epochs=12,
                      resources={"min_workers": min(2, workers), "max_workers": workers},
                      elastic={"logical_shards": 8, "recovery_budget": "4s"}, **fields)


class Divergence(unittest.TestCase):
    def run_it(self, workers, fault=None, at=1, **fields):
        """One worker a rank; `fault` in the process of the worker whose number is `at`."""
        cluster = Cluster(workers=0, slots=1)
        self.addCleanup(cluster.stop)
        for i in range(workers):
            hurt = fault is not None and i == at
            cluster.start_worker(env={"LEPTON_TEST_TRAIN_FAULT": fault} if hurt else None)
        cluster.wait_for_workers(workers)
        job_id = cluster.submit(spec(workers, **fields))
        job = cluster.wait_job(job_id)
        return cluster, job

    @classmethod
    def setUpClass(cls):
        cls.calm = None

    def calm_digest(self):
        if Divergence.calm is None:
            _, job = self.run_it(1)
            Divergence.calm = job["result"]["weights_sha256"]
        return Divergence.calm

    def check_removed(self, cluster, job, step, worker):
        self.assertEqual(job["state"], "SUCCEEDED", job)
        self.assertEqual(job["attempt"], 1, "no restart")
        self.assertEqual(job["result"]["weights_sha256"], self.calm_digest())
        one = next(r for r in job["recoveries"] if r["reason_code"] == "DIVERGED")
        print({k: one[k] for k in one if k.endswith("_ms") and k != "time_ms"}, one["cause"], flush=True)
        self.assertRegex(one["cause"], rf"rank \d+ on worker {worker}: DATA_LOSS: its parameters are "
                                       rf"not those of \d of the \d ranks at step {step}: {TENSOR} differs")
        self.assertEqual(one["step"], step, "the step in flight was done again, not lost")
        events = cluster.get(f"/v1/jobs/{job['id']}/events")["items"]
        told = [e for e in events if e["reason_code"] == "DIVERGED"]
        self.assertTrue(any(TENSOR in e["message"] and worker in e["message"] for e in told), events)
        _, metrics = cluster.call("GET", "/metrics")
        self.assertRegex(metrics, r'lepton_diverged_ranks_total\{outcome="removed"\} 1')
        shown = lepton("describe", job["id"], "--coordinator", cluster.url).stdout
        self.assertRegex(shown, rf"DIVERGED.*{TENSOR} differs")

    def test_a_flipped_bit_is_found_in_its_own_step(self):
        cluster, job = self.run_it(3, f"flip@{STEP}", at=1)
        self.check_removed(cluster, job, STEP, "w1")

    def test_a_bit_that_flips_behind_the_update_is_found_in_the_next_step(self):
        # In the leader, which has just written a checkpoint of what it holds.
        cluster, job = self.run_it(3, f"late@{STEP}", at=0)
        self.check_removed(cluster, job, STEP + 1, "w0")

    def test_two_ranks_fail_clearly(self):
        cluster, job = self.run_it(2, f"flip@{STEP + 2}")
        self.assertEqual(job["state"], "FAILED", job)
        self.assertEqual(job["reason_code"], "DIVERGED")
        self.assertEqual(job["error_code"], "DATA_LOSS")
        self.assertRegex(job["error"], rf"the 2 ranks do not hold the same parameters at step {STEP + 2}"
                                       rf".*no majority.*{TENSOR} differs; last good checkpoint: step {STEP} ")


if __name__ == "__main__":
    main()
