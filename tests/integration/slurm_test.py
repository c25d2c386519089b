#!/usr/bin/env python3
"""The shipped batch scripts under a real two-node Slurm, which this test starts."""
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import LEPTON, ROOT, lepton, main, train_spec, wait_until  # noqa: E402
from slurm import Slurm, Unavailable  # noqa: E402


class SlurmTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        try:
            cls.slurm = Slurm()
        except Unavailable as reason:
            raise unittest.SkipTest(f"no Slurm here: {reason}")
        cls.slurm.env["LEPTON"] = LEPTON
        cls.slurm.env["LEPTON_HOST_ADDRESS"] = "127.0.0.1"  # both "nodes" are this machine

    @classmethod
    def tearDownClass(cls):
        cls.slurm.stop()

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lepton-test."))

    def tearDown(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def state(self, job):
        text = self.slurm.call("scontrol", "show", "job", job, check=False).stdout
        return next((w.split("=")[1] for w in text.split() if w.startswith("JobState=")), "?")

    def test_run_sbatch_runs_one_job_over_both_nodes(self):
        (self.folder / "job.yaml").write_text(json.dumps(train_spec(epochs=10)))
        submitted = self.slurm.call("sbatch", "--parsable", "-N", "2", ROOT / "scripts/slurm/run.sbatch",
                                    self.folder / "job.yaml", cwd=self.folder).stdout.strip()
        try:
            wait_until(lambda: self.state(submitted) in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"),
                       90, "the batch job's end", 0.2)
        finally:
            output = "".join(p.read_text() for p in self.folder.glob("slurm-*.out"))
        self.assertEqual(self.state(submitted), "COMPLETED", output)
        last = output.strip().splitlines()[-1]
        self.assertRegex(output, r"model \S+ sha256:[0-9a-f]{64} workers=2 steps=\d+", last)
        manifest = json.loads((self.folder / "lepton-runs/test/manifest.json").read_text())
        self.assertIn(manifest["weights_sha256"], output)

    def test_pool_sbatch_serves_others_and_stops_on_scancel(self):
        data = self.folder / "data"
        submitted = self.slurm.call("sbatch", "--parsable", "-N", "2", ROOT / "scripts/slurm/pool.sbatch",
                                    data, "--file-roots", ROOT, cwd=self.folder).stdout.strip()
        try:
            where = data / "coordinator.json"
            wait_until(where.exists, 40, "the pool's coordinator", 0.2)
            url = json.loads(where.read_text())["http"]

            def both():
                listed = lepton("worker", "ls", "-o", "json", "--coordinator", url)
                workers = json.loads(listed.stdout) if listed.returncode == 0 else []
                return len([w for w in workers if w["state"] == "UP"]) == 2
            wait_until(both, 30, "both nodes' workers", 0.2)
            spec = self.folder / "job.json"
            spec.write_text(json.dumps(train_spec(resources={"min_workers": 2, "max_workers": 2})))
            done = lepton("submit", "--wait", "--coordinator", url, spec)
            self.assertEqual(done.returncode, 0, done.stderr)
        finally:
            self.slurm.call("scancel", "--signal=TERM", "--batch", submitted, check=False)
            output = "".join(p.read_text() for p in self.folder.glob("slurm-*.out"))
            try:
                wait_until(lambda: self.state(submitted) not in ("RUNNING", "COMPLETING"), 30,
                           "the pool's end", 0.2)
            except AssertionError:
                self.slurm.call("scancel", submitted, check=False)
                raise AssertionError("the pool did not stop on SIGTERM:\n" + output)


if __name__ == "__main__":
    main()
