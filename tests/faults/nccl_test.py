#!/usr/bin/env python3
"""Gangs with collectives: nccl whose ranks die and join: the others go on in place, and the weights are those of the
undisturbed run, bit for bit. The program is one with an emulated GPU and a stand-in for NCCL (lepton_emulated): what
the real ones do only a machine with GPUs shows."""
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import FINAL, LEPTON, ClusterTest, main, train_spec, wait_until  # noqa: E402

EMULATED = os.path.basename(LEPTON) == "lepton_emulated"


def spec(low=1, high=3, **fields):
    fields.setdefault("steps", 150)
    fields.setdefault("collectives", "nccl")
    return train_spec(model={"hidden": [16]}, batch_size=16,
                      resources={"min_workers": low, "max_workers": high, "device": "cuda"},
                      elastic={"logical_shards": 8, "recovery_budget": "4s"}, **fields)


@unittest.skipUnless(EMULATED, "needs the program with the emulated GPU: LEPTON=.../tests/faults/lepton_emulated")
class Nccl(ClusterTest):
    workers, slots = 3, 1

    @classmethod
    def setUpClass(cls):
        cls.letters = tempfile.mkdtemp(prefix="lepton-fake-nccl.", dir="/dev/shm")
        os.environ["LEPTON_FAKE_NCCL_FOLDER"] = cls.letters
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        shutil.rmtree(cls.letters, ignore_errors=True)

    def members(self, job_id):
        return [t for t in self.cluster.job(job_id)["tasks"] if t["state"] == "STARTED"]

    def digest(self):
        """Of the undisturbed run on one rank, which needs no NCCL."""
        job = self.cluster.wait_job(self.cluster.submit(spec(high=1)), timeout=120)
        self.assertEqual(job["state"], "SUCCEEDED", job)
        return job["result"]["weights_sha256"]

    def test_a_rank_is_killed_and_the_others_go_on_in_place_and_another_joins(self):
        job_id = self.cluster.submit(spec())
        self.cluster.wait_step(job_id, 5)
        before = self.members(job_id)
        self.assertEqual(len(before), 3)
        self.assertGreaterEqual(len(os.listdir(self.letters)), 1, "the stand-in was used")
        os.kill(before[1]["pid"], signal.SIGKILL)

        def joined():
            job = self.cluster.job(job_id)
            self.assertNotIn(job["state"], FINAL, "the run is too short for this test")
            return job if [r for r in job.get("recoveries", []) if r["reason_code"] == "RANK_JOINS"] else None
        job = wait_until(joined, 60, "a rank joins in its place")
        now = {t["pid"] for t in self.members(job_id)}
        self.assertLessEqual({before[0]["pid"], before[2]["pid"]}, now, "the same processes")
        os.kill(self.members(job_id)[0]["pid"], signal.SIGKILL)  # the leader
        job = self.cluster.wait_job(job_id, timeout=120)
        self.assertEqual(job["state"], "SUCCEEDED", job)
        self.assertEqual(job["attempt"], 1, "no restart")
        reasons = [r["reason_code"] for r in job.get("recoveries", [])]
        self.assertGreaterEqual(reasons.count("RANK_LOST"), 2, reasons)
        self.assertNotIn("GROUP_BROKEN", reasons)
        self.assertEqual(job["result"]["weights_sha256"], self.digest())

    def test_a_worker_that_shares_a_members_gpu_is_sent_away_and_the_others_do_not_notice(self):
        # Two workers more, of one GPU.
        for name in ("shares-a", "shares-b"):
            self.cluster.start_worker(name, env={"LEPTON_FAKE_GPU": "one"})
        self.cluster.wait_for_workers(5)
        job_id = self.cluster.submit(spec(high=5))
        wait_until(lambda: "same GPU" in self.events(job_id), 60, "the two are told apart")
        job = self.cluster.wait_job(job_id, timeout=120)
        self.assertEqual(job["state"], "SUCCEEDED", job)
        self.assertEqual(job["attempt"], 1, "no restart")
        self.assertEqual(job["result"]["weights_sha256"], self.digest())

    def events(self, job_id):
        return " ".join(e["message"] for e in self.cluster.items(f"/v1/jobs/{job_id}/events"))


if __name__ == "__main__":
    main()
