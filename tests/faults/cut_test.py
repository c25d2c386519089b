#!/usr/bin/env python3
"""Two workers of an elastic job cannot reach each other, both ways or one, though all else can: within
the recovery budget one of the two goes, both are named, the others go on undisturbed; the one that went
does other work meanwhile and comes back once the link is whole. And one that cannot reach the coordinator,
though its peers can: they go on without it when its lease is over. Needs network namespaces."""
import os
import pathlib
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import Cluster, FINAL, main, train_spec, wait_until  # noqa: E402
from hosts import Hosts, start_workers  # noqa: E402

BUDGET_S, LEASE_S = 2, 2
RANKS = 3
LASTS_S = 20  # of one rank's work: a cut, the other work, a try by the cut link and the way back take about 12


def spec(most, epochs):
    return train_spec(model={"hidden": [128, 128]}, epochs=epochs, checkpoint={"every_steps": 20000},
                      resources={"min_workers": 1, "max_workers": most},
                      elastic={"logical_shards": 6, "recovery_budget": f"{BUDGET_S}s"},
                      restart={"max": 3, "backoff": "100ms"})


class Cut(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        reason = Hosts.available()
        if reason:
            raise unittest.SkipTest(reason)
        cls.hosts = Hosts()
        cls.cluster = Cluster(workers=0, slots=1, coordinator_args=["--link-address", cls.hosts.address],
                              lease=f"{LEASE_S}s")
        cls.host_of = start_workers(cls.hosts, cls.cluster, RANKS)
        cls.epochs = cls.cluster.epochs_lasting(LASTS_S, spec(1, epochs=1))
        calm = cls.cluster.wait_job(cls.cluster.submit(spec(1, cls.epochs)), timeout=120)
        cls.digest = calm["result"]["weights_sha256"]

    @classmethod
    def tearDownClass(cls):
        cls.cluster.stop()
        cls.hosts.close()

    def tearDown(self):
        for job in self.cluster.items("/v1/jobs"):
            if job["state"] not in FINAL:
                print([e["message"] for e in self.cluster.items(f"/v1/jobs/{job['id']}/events")][-20:], flush=True)
                self.cluster.call("POST", f"/v1/jobs/{job['id']}:cancel")

    def group(self, job_id, ranks):
        def ready():
            job = self.cluster.job(job_id)
            self.assertNotIn(job["state"], FINAL, "too short for this test")
            return (job["group"]["ranks"] == ranks and not job["group"]["regrouping"] and
                    job["progress"]["step"] > 0 and job)
        return wait_until(ready, 30, f"a group of {ranks}")

    def told(self, job_id):
        return [e["message"] for e in self.cluster.items(f"/v1/jobs/{job_id}/events")
                if e["reason_code"] == "UNREACHABLE" and "may try again" in e["message"]]

    def one_goes_and_comes_back(self, one_way):
        job_id = self.cluster.submit(spec(RANKS, self.epochs))
        self.group(job_id, RANKS)
        tasks = sorted((t for t in self.cluster.job(job_id)["tasks"] if t["state"] == "STARTED"),
                       key=lambda t: t["rank"])
        one, other = tasks[1]["worker_id"], tasks[2]["worker_id"]
        cut = time.monotonic()
        self.hosts.cut_between(self.host_of[one], self.host_of[other], one_way)
        try:
            before = self.cluster.job(job_id)["recovery_count"]
            job = wait_until(lambda: (lambda j: j if j["recovery_count"] > before else None)(
                self.cluster.job(job_id)), 20, "the others go on")
            took = time.monotonic() - cut
            told = self.told(job_id)
            print(f"{'one way' if one_way else 'both ways'}: the next step {took:.2f} s after the cut; {told}",
                  flush=True)
            self.assertLess(took, 2 * BUDGET_S)  # seen by polling, beside three other processes
            self.assertEqual(job["group"]["ranks"], RANKS - 1)
            self.assertEqual(job["recoveries"][-1]["reason_code"], "UNREACHABLE")
            self.assertIn(f"worker {one}", told[0])
            self.assertIn(f"on worker {other} leaves", told[0])
            # The excluded worker takes other work...
            small = self.cluster.wait_job(self.cluster.submit(train_spec(epochs=1)))
            self.assertEqual(small["state"], "SUCCEEDED", small)
            # ...and what tries to come back by the cut link disturbs nobody.
            wait_until(lambda: len(self.told(job_id)) >= 2, 15, "a try by the cut link")
            self.assertEqual(self.cluster.job(job_id)["recovery_count"], before + 1)
        finally:
            self.hosts.heal_between(self.host_of[one], self.host_of[other])
        self.group(job_id, RANKS)
        job = self.cluster.wait_job(job_id, timeout=180)
        self.assertEqual(job["state"], "SUCCEEDED", job)
        self.assertEqual(job["attempt"], 1, job)
        self.assertEqual(job["result"]["weights_sha256"], self.digest)

    def one_loses_the_coordinator(self, one_way):
        job_id = self.cluster.submit(spec(RANKS, self.epochs))
        job = self.group(job_id, RANKS)
        tasks = sorted((t for t in self.cluster.job(job_id)["tasks"] if t["state"] == "STARTED"),
                       key=lambda t: t["rank"])
        victim = tasks[1]
        others = {t["pid"] for t in tasks if t is not victim}
        number, cut = self.host_of[victim["worker_id"]], time.monotonic()
        self.hosts.cut_from_bridge(number, one_way)
        try:
            before = job["recovery_count"]
            job = wait_until(lambda: (lambda j: j if j["recovery_count"] > before else None)(
                self.cluster.job(job_id)), 20, "the others go on")
            took = time.monotonic() - cut
            print(f"from the coordinator {'one way' if one_way else 'both ways'}: the next step {took:.2f} s after "
                  f"the cut: {job['recoveries'][-1]['cause']}", flush=True)
            self.assertLess(took, LEASE_S + 2 * BUDGET_S)  # seen by polling, as above
            self.assertEqual(job["group"]["ranks"], RANKS - 1)
            self.assertIn(f"worker {victim['worker_id']}", job["recoveries"][-1]["cause"])
            self.assertEqual({t["pid"] for t in self.cluster.job(job_id)["tasks"] if t["state"] == "STARTED"}, others)
        finally:
            self.hosts.heal_from_bridge(number)
        # A new rank: what the old one held is of no group, and it hears so.
        self.group(job_id, RANKS)
        now = {t["pid"] for t in self.cluster.job(job_id)["tasks"] if t["state"] == "STARTED"}
        self.assertLess(others, now)
        wait_until(lambda: not os.path.exists(f"/proc/{victim['pid']}"), 10, "the end of a rank without a group")
        job = self.cluster.wait_job(job_id, timeout=180)
        self.assertEqual(job["state"], "SUCCEEDED", job)
        self.assertEqual(job["attempt"], 1, job)
        self.assertEqual(job["result"]["weights_sha256"], self.digest)

    def test_a_cut_from_the_coordinator_both_ways(self):
        self.one_loses_the_coordinator(one_way=False)

    def test_a_cut_from_the_coordinator_one_way(self):
        self.one_loses_the_coordinator(one_way=True)

    def test_a_cut_both_ways(self):
        self.one_goes_and_comes_back(one_way=False)

    def test_a_cut_one_way(self):
        self.one_goes_and_comes_back(one_way=True)


if __name__ == "__main__":
    main()
