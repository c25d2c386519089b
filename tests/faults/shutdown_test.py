#!/usr/bin/env python3
"""SIGTERM and SIGINT stop a pool within 5 s and leave no process and no shared memory behind."""
import os
import pathlib
import signal
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import Cluster, long_spec, main, wait_until  # noqa: E402


class Shutdown(unittest.TestCase):
    def stops(self, sig):
        segments = set(os.listdir("/dev/shm"))
        cluster = Cluster(workers=2)
        try:
            job_id = cluster.submit(long_spec(resources={"min_workers": 2, "max_workers": 2}))
            cluster.wait_step(job_id, 10)
            begin = time.monotonic()
            for process in [*cluster.workers, cluster.coordinator]:
                process.send_signal(sig)
            statuses = [p.wait(8) for p in [*cluster.workers, cluster.coordinator]]
            self.assertLess(time.monotonic() - begin, 5)
            self.assertEqual(statuses, [0, 0, 0])
            wait_until(lambda: not cluster.processes(f"--task {job_id}."), 2, "no task is left")
            self.assertEqual({n for n in set(os.listdir("/dev/shm")) - segments if "lepton" in n}, set())
        finally:
            cluster.stop()

    def test_sigterm(self):
        self.stops(signal.SIGTERM)

    def test_sigint(self):
        self.stops(signal.SIGINT)

    def test_a_killed_pool_leaves_no_task_and_no_shared_memory(self):
        segments = set(os.listdir("/dev/shm"))
        cluster = Cluster(workers=2)
        try:
            job_id = cluster.submit(long_spec(resources={"min_workers": 2, "max_workers": 2}))
            cluster.wait_step(job_id, 10)
            for process in [*cluster.workers, cluster.coordinator]:
                cluster.kill(process)
            wait_until(lambda: not cluster.processes(f"--task {job_id}."), 3, "tasks die with their workers")
            self.assertEqual({n for n in set(os.listdir("/dev/shm")) - segments if "lepton" in n}, set())
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
