#!/usr/bin/env python3
"""A link that is slow is named by its two ends, and no other, nor any where all is well or where a rank is what is
slow. Needs network namespaces and tc."""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import Cluster, DIES_WITH_US, FINAL, main, train_spec, wait_until  # noqa: E402
from hosts import Hosts, start_workers  # noqa: E402

BUDGET_S = 2
WINDOW_S = 2 * BUDGET_S  # collectives/transport/link_rates.h
RANKS = 3
RATE, RATE_MB = "3mbit", 0.375


class SlowLink(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        reason = Hosts.available() or ("" if shutil.which("tc") else "no tc here (Debian: iproute2)")
        if reason:
            raise unittest.SkipTest(reason)
        cls.hosts = Hosts()
        cls.cluster = Cluster(workers=0, slots=1, coordinator_args=["--link-address", cls.hosts.address], lease="5s")
        cls.host_of = start_workers(cls.hosts, cls.cluster, RANKS)

    @classmethod
    def tearDownClass(cls):
        cls.cluster.stop()
        cls.hosts.close()

    def start(self):
        """A job of all workers that lasts until the test is over; its tasks by rank."""
        job_id = self.cluster.submit(train_spec(
            model={"hidden": [400, 256]}, epochs=500_000, checkpoint={"every_steps": 1_000_000},
            resources={"min_workers": RANKS, "max_workers": RANKS},
            elastic={"logical_shards": 6, "recovery_budget": f"{BUDGET_S}s"}))
        self.addCleanup(self.end, job_id)
        wait_until(lambda: self.cluster.job(job_id)["progress"]["step"] > 0, 30, "the first steps")
        return job_id, sorted(self.cluster.job(job_id)["tasks"], key=lambda t: t["rank"])

    def end(self, job_id):
        self.cluster.call("POST", f"/v1/jobs/{job_id}:cancel")
        self.cluster.wait_job(job_id, FINAL)

    def told(self, job_id):
        return [e["message"] for e in self.cluster.items(f"/v1/jobs/{job_id}/events")
                if e["reason_code"] == "SLOW" and "link" in e["message"]]

    def test_no_link_is_named_where_all_are_well(self):
        job_id, _ = self.start()
        time.sleep(3 * WINDOW_S)
        self.assertEqual(self.told(job_id), [])

    def test_the_slow_one_is_named_with_its_rate_and_that_of_the_others_and_nothing_else_happens(self):
        job_id, tasks = self.start()
        one, other = tasks[2]["worker_id"], tasks[1]["worker_id"]
        self.hosts.slow_between(self.host_of[one], self.host_of[other], RATE)
        self.addCleanup(self.hosts.speed_up, self.host_of[one])
        wait_until(lambda: self.told(job_id), 10 * WINDOW_S, "the link's name")
        time.sleep(2 * WINDOW_S)
        told = self.told(job_id)
        print(told, flush=True)
        for message in told:
            named = re.search(rf"the link from rank 2 on worker {one} to rank 1 on worker {other} is slow: it gives "
                              r"([0-9.]+) MB/s, that rank's others ([0-9.]+) MB/s", message)
            self.assertIsNotNone(named, message)
            # Less what headers take; more where the link was fast for a part of those budgets.
            self.assertGreater(float(named[1]), RATE_MB / 2, message)
            self.assertGreater(float(named[2]), 4 * float(named[1]), message)
        self.assertEqual(len(told), 1, told)  # and then not for ten budgets
        job = self.cluster.job(job_id)
        self.assertEqual((job["state"], job["attempt"], job["recovery_count"]), ("RUNNING", 1, 0), job)

    def hogs(self, count, cpus):
        """So many processes that compute on those cores until the test is over."""
        for _ in range(count):
            hog = subprocess.Popen([*DIES_WITH_US, "sh", "-c", "while :; do :; done"])
            self.addCleanup(hog.wait)
            self.addCleanup(hog.kill)
            os.sched_setaffinity(hog.pid, cpus)

    def test_no_link_is_named_where_all_ranks_wait_for_cores(self):
        job_id, _ = self.start()
        cpus = os.sched_getaffinity(0)
        self.hogs(2 * len(cpus), cpus)
        time.sleep(3 * WINDOW_S)
        self.assertEqual(self.told(job_id), [])

    def test_a_rank_that_waits_for_its_core_is_no_slow_link(self):
        job_id, tasks = self.start()
        core = {min(os.sched_getaffinity(0))}
        for thread in pathlib.Path(f"/proc/{tasks[2]['pid']}/task").iterdir():
            os.sched_setaffinity(int(thread.name), core)
        self.hogs(3, core)
        time.sleep(3 * WINDOW_S)
        self.assertEqual(self.told(job_id), [])

    def test_a_rank_that_is_slow_itself_is_no_slow_link(self):
        job_id, tasks = self.start()
        over = threading.Event()

        def brake():
            while not over.is_set():
                for sig, seconds in ((signal.SIGSTOP, 0.2), (signal.SIGCONT, 0.02)):
                    os.kill(tasks[2]["pid"], sig)
                    over.wait(seconds)
            os.kill(tasks[2]["pid"], signal.SIGCONT)
        thread = threading.Thread(target=brake)
        thread.start()
        try:
            time.sleep(4 * WINDOW_S)
        finally:
            over.set()
            thread.join()
        self.assertEqual(self.told(job_id), [])


if __name__ == "__main__":
    main()
