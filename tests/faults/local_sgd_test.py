#!/usr/bin/env python3
"""Rounds of local SGD under real deaths: a rank that dies, hangs, leaves or joins within a round costs no
restart and no step, and the weights are those of a calm run on one rank, bit for bit."""
import os
import pathlib
import signal
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import elastic_test  # noqa: E402
from cluster import main, wait_until  # noqa: E402

ROUND = 50
SECONDS = 2.5


class Rounds(elastic_test.ElasticTest):
    calm, epochs = None, None

    def spec(self, high=4, budget=2):
        spec = elastic_test.elastic_spec(1, high, checkpoint={"every_steps": 400})
        spec["elastic"]["recovery_budget"] = f"{budget}s"
        spec |= {"local_sgd": {"inner_steps": ROUND}, "clip_norm": 1.0}
        if Rounds.epochs is None:
            Rounds.epochs = self.cluster.epochs_lasting(SECONDS, spec | {"resources": {"max_workers": 1}})
        return spec | {"epochs": Rounds.epochs}

    def calm_digest(self):
        if Rounds.calm is None:
            job = self.cluster.wait_job(self.cluster.submit(self.spec(high=1)))
            self.assertEqual(job["state"], "SUCCEEDED", job)
            Rounds.calm = job["result"]["weights_sha256"]
        return Rounds.calm

    def begin(self, ranks=4, **fields):
        job_id = self.cluster.submit(self.spec(**fields))
        wait_until(lambda: len(self.alive(job_id)) >= ranks and
                   self.cluster.job(job_id)["progress"]["step"] > 0, 20, "the first round")
        return job_id


class Killed(Rounds):
    def test_one_after_another_in_mid_round(self):
        job_id = self.begin()
        kills = self.kill_one_after_another(job_id, times=3, pause=0.2)
        job = self.finish(job_id)
        self.assertGreaterEqual(kills, 2, "the run is too short for this test")
        for one in job["recoveries"]:
            self.assertTrue(one["step"] % ROUND == 0 or one["step"] == job["result"]["steps"], one)


class Moved(Rounds):
    def test_a_stop_a_join_and_a_drain(self):
        job_id = self.begin()
        pid = self.alive(job_id)[1]["pid"]
        os.kill(pid, signal.SIGSTOP)  # its seat is taken again: a join
        job = self.recovered(job_id, 1)
        self.assertEqual(job["recoveries"][0]["reason_code"], "HUNG", job["recoveries"])
        self.cluster.call("POST", "/v1/workers/w2:drain")
        job = self.finish(job_id)
        print([r["reason_code"] for r in job["recoveries"]], flush=True)


class LongRound(Rounds):
    """One step of a round that takes long: its rank is waited for, and one that stands still is not."""
    workers = 2

    def hurt(self, name, fault, budget):
        self.cluster.start_worker(name, env={"LEPTON_TEST_TRAIN_FAULT": fault})
        self.cluster.wait_for_workers(3)
        job = self.finish(self.cluster.submit(self.spec(high=3, budget=budget)))
        self.cluster.kill(self.cluster.workers[-1])
        wait_until(lambda: all(w["state"] != "UP" for w in self.cluster.items("/v1/workers")
                               if w["id"] == name), 20, f"{name} is lost")
        return job

    def test_a_slow_rank_is_waited_for_and_one_that_hangs_is_named_with_its_step(self):
        # Three seconds more in each of its shards, of which it has two or three, with a budget of two.
        job = self.hurt("slow", f"slow@{ROUND + 20}", budget=2)
        self.assertNotIn("HUNG", [r["reason_code"] for r in job.get("recoveries", [])])
        job = self.hurt("stuck", f"hang@{ROUND + 20}", budget=2)
        one = next(r for r in job["recoveries"] if r["reason_code"] == "HUNG")
        self.assertRegex(one["cause"], rf"on worker stuck: hung: its training thread stands still in step {ROUND + 20}")
        self.assertEqual(one["step"], 2 * ROUND, "the round that it hung in")


if __name__ == "__main__":
    main()
