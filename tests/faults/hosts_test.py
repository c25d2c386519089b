#!/usr/bin/env python3
"""A gang on two hosts of two workers each (LEPTON_COLLECTIVES_HOST stands in for the host): its sums
go from host to host as partial sums. Deaths leave hosts of different sizes, and another joins; the
weights are those of one rank alone, bit for bit."""
import os
import pathlib
import signal
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import Cluster, FINAL, main, train_spec, wait_until  # noqa: E402


class TwoHosts(unittest.TestCase):
    def spec(self, low, high, **fields):
        return train_spec(model={"hidden": [256, 256]}, checkpoint={"every_steps": 100000},
                          resources={"min_workers": low, "max_workers": high},
                          elastic={"logical_shards": 8, "recovery_budget": "4s"}, **fields)

    def start_worker(self, host):
        return self.cluster.start_worker(f"{host}-{len(self.cluster.workers)}", slots=1,
                                         env={"LEPTON_COLLECTIVES_HOST": host})

    def setUp(self):
        self.cluster = Cluster(workers=0)
        self.addCleanup(self.cluster.stop)
        for host in "aabb":
            self.start_worker(host)
        self.cluster.wait_for_workers(4)

    def recovered(self, job_id, count, ranks):
        def there():
            job = self.cluster.job(job_id)
            alive = [t for t in job["tasks"] if t["state"] == "STARTED"]
            done = job["recovery_count"] >= count and not job["group"]["regrouping"]
            return job["state"] in FINAL or (done and len(alive) >= ranks)
        wait_until(there, 30, f"recovery {count}, {ranks} ranks")
        self.assertEqual(self.cluster.job(job_id)["state"], "RUNNING", "it ended too early")

    def test_the_bits_do_not_depend_on_hosts(self):
        c = self.cluster
        epochs = c.epochs_lasting(6, self.spec(4, 4))
        calm = c.wait_job(c.submit(self.spec(1, 1, epochs=epochs)), timeout=150)
        self.assertEqual(calm["state"], "SUCCEEDED", calm)
        job_id = c.submit(self.spec(1, 4, epochs=epochs))
        wait_until(lambda: c.job(job_id)["progress"]["step"] > 0 and len(
            [t for t in c.job(job_id)["tasks"] if t["state"] == "STARTED"]) == 4, 30, "four ranks")
        c.kill(c.workers[0])  # hosts of one and of two
        self.recovered(job_id, 1, 3)
        self.start_worker("a")
        self.recovered(job_id, 2, 4)
        victim = next(t for t in c.job(job_id)["tasks"]
                      if t["state"] == "STARTED" and t["worker_id"] == "b-3")
        os.kill(victim["pid"], signal.SIGKILL)
        job = c.wait_job(job_id, timeout=150)
        self.assertEqual(job["state"], "SUCCEEDED", job)
        self.assertEqual(job["attempt"], 1, "no restart")
        self.assertGreaterEqual(job["recovery_count"], 3)
        self.assertEqual(job["result"]["weights_sha256"], calm["result"]["weights_sha256"])


if __name__ == "__main__":
    main()
