#!/usr/bin/env python3
"""A transformer whose layers are divided over ranks (parallel.tensor): a rank that is killed, or hangs, ends its
peers' step, the job goes on from its newest checkpoint, and its weights are those of the calm run."""
import collections
import os
import pathlib
import random
import re
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import Cluster, ClusterTest, main, wait_until  # noqa: E402

SECONDS = 4
BUDGET_S = 2


class Divided(ClusterTest):
    workers, slots = 4, 1

    def spec(self, cluster=None, **fields):
        text = (cluster or self.cluster).folder / "fox.txt"
        text.write_text("the quick brown fox jumps over the lazy dog. " * 60)
        return {"kind": "train", "name": "fox", "loss": "next_token", "epochs": 50, "batch_size": 16, "seed": 3,
                "model": {"arch": "transformer", "layers": 2, "heads": 4, "width": 32, "dropout": 0.1},
                "dataset": {"uri": f"file://{text}", "tokenizer": "bytes", "context": 32},
                "optimizer": {"lr": 0.003}, "clip_norm": 1.0, "checkpoint": {"every_steps": 20},
                "parallel": {"tensor": 2}, "resources": {"max_workers": 4},
                "elastic": {"recovery_budget": f"{BUDGET_S}s"},
                "restart": {"max": 5, "backoff": "50ms"}} | fields

    def done(self, job_id):
        job = self.cluster.wait_job(job_id, timeout=90)
        self.assertEqual(job["state"], "SUCCEEDED", job)
        return job

    def alive(self, job_id):
        return [t for t in self.cluster.job(job_id)["tasks"] if t["state"] == "STARTED"]

    def restarts(self):
        """As /metrics counts them: by reason, and how long they took together."""
        _, text = self.cluster.call("GET", "/metrics")
        found = re.findall(r'^lepton_restart(?:s_total{reason="(\w+)"}|_seconds_(sum|count)) (\S+)$', text, re.M)
        return collections.defaultdict(float, {a or b: float(value) for a, b, value in found})

    def hurt(self, sig):
        """Any rank gets the signal behind a checkpoint; the job's end, which must have the calm run's bits."""
        spec = self.spec()
        spec["epochs"] = self.cluster.epochs_lasting(SECONDS, spec)
        calm = self.done(self.cluster.submit(spec))
        self.assertEqual(calm["attempt"], 1)
        job_id = self.cluster.submit(spec)
        dice = random.Random(int(os.environ.get("LEPTON_TEST_SEED", "7")))
        self.cluster.wait_checkpoint(job_id)
        before = self.restarts()
        victim = dice.choice(wait_until(lambda: (lambda a: a if len(a) == 4 else None)(self.alive(job_id)), 20,
                                        "all ranks"))
        os.kill(victim["pid"], sig)
        # Well before a collective's time-out of 30 s, of which the victim's mate is in one.
        wait_until(lambda: self.cluster.job(job_id)["attempt"] == 2, 10, "another attempt")
        job = self.done(job_id)
        self.assertEqual(job["result"]["weights_sha256"], calm["result"]["weights_sha256"])
        self.assertEqual(job["result"]["steps"], calm["result"]["steps"])
        restarts = [one for one in job["recoveries"] if one["restart"]]
        self.assertEqual(len(restarts), 1, job["recoveries"])
        after = self.restarts()
        reason = restarts[0]["reason_code"]
        self.assertEqual(after[reason] - before[reason], 1, after)
        self.assertEqual(after["count"] - before["count"], 1, after)
        self.assertAlmostEqual(after["sum"] - before["sum"], restarts[0]["total_ms"] / 1000, delta=0.01)
        return victim, self.cluster.items(f"/v1/jobs/{job_id}/events")

    def test_a_killed_rank_costs_the_steps_since_the_checkpoint_and_no_bit(self):
        self.hurt(signal.SIGKILL)

    def test_a_stopped_rank_is_named_and_removed_within_the_budget(self):
        victim, events = self.hurt(signal.SIGSTOP)
        hung = [e["message"] for e in events if e["reason_code"] == "HUNG"]
        print(hung, flush=True)
        self.assertTrue(hung, events)
        found = re.search(r"rank (\d) on worker (\w+): hung: no sign of life for (\d+) ms: killed", hung[0])
        self.assertTrue(found, hung)
        self.assertEqual(found[2], victim["worker_id"])
        self.assertLess(int(found[3]), BUDGET_S * 1000)

    def test_a_rank_whose_thread_stands_still_is_named_and_removed_within_the_budget(self):
        c = Cluster(workers=3, slots=1)
        self.addCleanup(c.stop)
        hurt = c.start_worker("hurt", env={"LEPTON_TEST_TRAIN_FAULT": "hang@30"})
        c.wait_for_workers(4)
        job_id = c.submit(self.spec(c, epochs=20))
        wait_until(lambda: c.job(job_id)["attempt"] >= 2, 30, "another attempt")
        c.kill(hurt)  # where it would hang again
        c.start_worker("spare")
        job = c.wait_job(job_id, timeout=90)
        self.assertEqual(job["state"], "SUCCEEDED", job)
        hung = [e["message"] for e in c.items(f"/v1/jobs/{job_id}/events") if e["reason_code"] == "HUNG"]
        print(hung, flush=True)
        found = re.search(r"rank \d on worker hurt: hung: its training thread stands still in step 30, "
                          r"though its process answers, for (\d+) ms", hung[0])
        self.assertTrue(found, hung)
        self.assertLess(int(found[1]), BUDGET_S * 1000)
        calm = c.wait_job(c.submit(self.spec(c, epochs=20)), timeout=90)
        self.assertEqual(job["result"]["weights_sha256"], calm["result"]["weights_sha256"])

    def test_a_rank_that_is_slow_is_waited_for_as_long_as_it_moves(self):
        c = Cluster(workers=3, slots=1)
        self.addCleanup(c.stop)
        gate = c.folder / "gate"
        c.start_worker("slow", env={"LEPTON_TEST_TRAIN_FAULT": f"gate@5:{gate}"})
        c.wait_for_workers(4)
        job_id = c.submit(self.spec(c, epochs=4))
        wait_until(lambda: pathlib.Path(f"{gate}.reached").exists(), 30, "the gate")
        time.sleep(36)  # the others may not move for 30 s, if this one does not either
        gate.touch()
        job = c.wait_job(job_id, timeout=90)
        self.assertEqual((job["state"], job["attempt"]), ("SUCCEEDED", 1), job)


if __name__ == "__main__":
    main()
