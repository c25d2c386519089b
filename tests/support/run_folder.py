"""Tests of `lepton run`: each in a folder of its own, and how they start it under mpirun."""
import json
import os
import pathlib
import shutil
import tempfile
import unittest

from cluster import train_spec

MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none"]
if os.geteuid() == 0:
    MPIRUN.insert(1, "--allow-run-as-root")


class RunFolder(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lepton-run."))

    def tearDown(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def spec(self, **fields):
        path = self.folder / "job.yaml"
        path.write_text(json.dumps(train_spec(**fields)))
        return path
