#!/usr/bin/env python3
"""Ports in use, a second coordinator, a read-only and a full disk: refused or reported, never lost. A slow disk is waited
for."""
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import Cluster, LEPTON, lepton, main, train_spec, wait_until  # noqa: E402


def mount(folder, options):
    return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder],
                          capture_output=True).returncode == 0


class Start(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="lepton-test.")

    def tearDown(self):
        subprocess.run(["umount", self.folder], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def test_a_port_in_use_is_named(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            for flags in (("--http-port", port, "--link-port", 0), ("--http-port", 0, "--link-port", port)):
                done = lepton("coordinator", "--data-dir", f"{self.folder}/data", *flags, timeout=20)
                self.assertEqual(done.returncode, 1)
                self.assertIn(str(port), done.stderr)

    def test_a_second_coordinator_on_the_same_folder_is_refused(self):
        cluster = Cluster(workers=0, folder=self.folder)
        try:
            done = lepton("coordinator", "--data-dir", cluster.data, "--http-port", 0, "--link-port", 0,
                          timeout=20)
            self.assertEqual(done.returncode, 1)
            self.assertIn(str(cluster.coordinator.pid), done.stderr)
            self.assertEqual(cluster.call("GET", "/healthz")[0], 200)
        finally:
            cluster.stop()

    def test_a_read_only_folder_is_named(self):
        if not mount(self.folder, "ro,size=1m"):
            self.skipTest("needs the right to mount a tmpfs")
        done = lepton("coordinator", "--data-dir", f"{self.folder}/data", "--http-port", 0,
                      "--link-port", 0, timeout=20)
        self.assertEqual(done.returncode, 1)
        self.assertIn("Read-only file system", done.stderr)

    def test_a_worker_without_a_coordinator_to_join_says_so(self):
        done = lepton("worker", "--join", self.folder, timeout=20)
        self.assertEqual(done.returncode, 1)
        self.assertIn("--join", done.stderr)


class FullDisk(unittest.TestCase):
    def test_submissions_are_refused_and_what_was_acknowledged_stays(self):
        folder = tempfile.mkdtemp(prefix="lepton-test.")
        if not mount(folder, "size=96m"):
            shutil.rmtree(folder)
            self.skipTest("needs the right to mount a tmpfs")
        cluster = Cluster(workers=0, folder=folder)
        try:
            kept = cluster.submit(train_spec(name="kept"))
            with open(f"{folder}/filler", "wb") as filler:
                try:
                    while True:
                        filler.write(b"x" * 65536)
                        filler.flush()
                except OSError:
                    pass

            def refused():
                # The journal may have allocated ahead: large records use that up soon.
                status, problem = cluster.call("POST", "/v1/jobs", train_spec(
                    labels={f"pad{i}": "y" * 4000 for i in range(60)}))
                return problem if status >= 400 else None
            problem = wait_until(refused, 30, "the full disk's answer", 0)
            self.assertEqual((problem["code"], problem["status"]), ("RESOURCE_EXHAUSTED", 507), problem)
            status, problem = cluster.call("GET", "/readyz")
            self.assertEqual(status, 503)
            self.assertIn("the journal cannot be written", problem["detail"])
            failures = re.search(r"^lepton_journal_failures_total (\d+)$", cluster.call("GET", "/metrics")[1], re.M)
            self.assertGreater(int(failures[1]), 0)
            self.assertEqual(cluster.job(kept)["name"], "kept")  # reads go on
            acknowledged = {job["id"] for job in cluster.items("/v1/jobs?limit=1000")}
            os.unlink(f"{folder}/filler")

            def accepted():
                return cluster.call("POST", "/v1/jobs", train_spec(name="after"))[0] == 201
            wait_until(accepted, 30, "submissions once there is room again", 0.2)
            self.assertEqual(cluster.call("GET", "/readyz")[0], 200)
            cluster.kill(cluster.coordinator)
            cluster.start_coordinator()
            after = {job["id"] for job in cluster.items("/v1/jobs?limit=1000")}
            self.assertLessEqual(acknowledged, after)
        finally:
            cluster.stop()
            subprocess.run(["umount", folder], capture_output=True)
            shutil.rmtree(folder, ignore_errors=True)


class SlowDisk(unittest.TestCase):
    def test_a_model_and_checkpoints_that_take_long_to_store_break_no_group(self):
        library = pathlib.Path(LEPTON).parent / "tests/faults/liblepton_slow_disk.so"
        if not library.exists():
            self.skipTest(f"needs {library}, which is built with all tests")
        cluster = Cluster(workers=0, slots=1)
        try:
            for name in ("a", "b"):
                cluster.start_worker(name, env={"LD_PRELOAD": str(library), "LEPTON_TEST_MS_PER_MIB": "400"})
            cluster.wait_for_workers(2)
            # 16 MiB of weights, 48 of a checkpoint in two slices: 6 and 10 s, where a group may stand still for 3.
            job = cluster.wait_job(cluster.submit(train_spec(
                epochs=1, model={"hidden": [2000, 2000]}, checkpoint={"every_steps": 15},
                resources={"max_workers": 2}, elastic={"logical_shards": 2, "recovery_budget": "1s"})), timeout=150)
            events = [(e["reason_code"], e["message"]) for e in cluster.items(f"/v1/jobs/{job['id']}/events")]
            self.assertEqual((job["state"], job["attempt"]), ("SUCCEEDED", 1), events)
            self.assertTrue({reason for reason, _ in events}.isdisjoint({"GROUP_BROKEN", "HUNG", "RANK_LOST"}), events)
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
