#!/usr/bin/python3
"""docs/models.md: every command in it runs, in its order, and does what the text says."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import DATA, LEPTON, ROOT, ClusterTest, lepton, main, train_spec  # noqa: E402
from huggingface_test import make_inputs  # noqa: E402


class Models(ClusterTest):
    workers = 2

    def export_onnx(self, script):
        """The document's own script where PyTorch is, else an ONNX file of ours."""
        folder = self.cluster.folder
        (folder / "export.py").write_text(script)
        done = subprocess.run(["/usr/bin/python3", "export.py"], cwd=folder, capture_output=True, text=True)
        if done.returncode == 0:
            return
        self.assertIn("No module named 'torch'", done.stderr)
        print("docs_test: no PyTorch here: the ONNX file is not its export", file=sys.stderr)
        (folder / "first.json").write_text(json.dumps(train_spec(name="first", epochs=1)))
        self.assertEqual(lepton("run", "first.json", "--onnx", cwd=folder).returncode, 0)
        shutil.copy(folder / "lepton-runs/first/model.onnx", folder / "digits.onnx")

    def test_every_command_of_the_document_runs(self):
        folder = self.cluster.folder
        make_inputs(folder)
        shutil.copy(DATA / "digits.csv", folder)
        env = {**os.environ, "MODEL": str(folder / "body"), "LEPTON_COORDINATOR": self.cluster.url,
               "PATH": f"{pathlib.Path(LEPTON).parent}:{os.environ['PATH']}"}
        said = ""
        document = (ROOT / "docs/models.md").read_text()
        blocks = re.findall(r"^```(sh|python)\n(.*?)^```", document, re.DOTALL | re.MULTILINE)
        self.assertGreaterEqual(len(blocks), 8)
        for language, text in blocks:
            if language == "python":
                self.export_onnx(text)
                continue
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", text], cwd=folder, env=env,
                                  capture_output=True, text=True, timeout=120)
            self.assertEqual(done.returncode, 0, f"{text}\n{done.stdout}{done.stderr}")
            said += done.stdout
        self.assertIn("model reviews sha256:", said)
        self.assertIn("job ask SUCCEEDED workers=2 file=predictions.jsonl rows=80", said)
        self.assertIn("job test SUCCEEDED", said)
        tuned, checked = (json.loads((folder / "lepton-runs" / name / "job.json").read_text())
                          for name in ("reviews", "check"))
        self.assertGreater(tuned["result"]["metrics"]["test/accuracy"], 0.9)
        self.assertEqual(checked["metrics"]["test/loss"], tuned["result"]["metrics"]["test/loss"])
        digits = json.loads((folder / "lepton-runs/digits/manifest.json").read_text())
        self.assertGreater(digits["metrics"]["test/accuracy"], 0.9)
        self.assertEqual(len((folder / "nightly/predictions.csv").read_text().splitlines()), 81)
        self.assertTrue((folder / "reviews-folder/model.safetensors").exists())
        self.assertEqual((folder / "reviews-pulled/manifest.json").read_bytes(),
                         (folder / "lepton-runs/reviews/manifest.json").read_bytes())


if __name__ == "__main__":
    main()
