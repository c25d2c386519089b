#!/usr/bin/env python3
"""Small versions of scripts/examples through `lepton run`, with one and with two workers: the same
weights, and models that have learnt something."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import ROOT, lepton, main  # noqa: E402

EXAMPLES = ROOT / "scripts/examples"
DATA = pathlib.Path(os.environ.get("LEPTON_TEST_DATA", ROOT.parent / "shared/data"))
SHAKESPEARE = DATA / "text/tinyshakespeare.txt"


class ExamplesTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lepton-test."))
        self.addCleanup(shutil.rmtree, self.folder, True)

    def example(self, name, **changes):
        """An example's text with some lines replaced, beside where its relative paths lead."""
        text = (EXAMPLES / name).read_text()
        for old, new in changes.items():
            lines = [line for line in text.splitlines() if line.startswith(old + ":")]
            self.assertEqual(len(lines), 1, f"{name}: {old}")
            text = text.replace(lines[0], f"{old}: {new}")
        path = EXAMPLES / f".test-{self.id().rsplit('.', 1)[1]}.yaml"
        path.write_text(text)
        self.addCleanup(path.unlink)
        return path

    def run_example(self, path, workers, slots=1):
        done = lepton("run", path, "--workers", workers, "--slots", slots, "-o", "json", "--out",
                      self.folder / f"out{workers}", cwd=self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout.strip().splitlines()[-1])

    def on_one_and_two_workers(self, path):
        one, two = self.run_example(path, 1, 2), self.run_example(path, 2)
        self.assertEqual(two["workers"], 2)
        self.assertEqual(one["weights_sha256"], two["weights_sha256"])
        for key, value in one["metrics"].items():
            if "second" not in key:
                self.assertEqual(two["metrics"][key], value, key)
        return one["metrics"]

    def test_digits_as_pictures_with_a_residual_network(self):
        metrics = self.on_one_and_two_workers(self.example("digits-resnet.yaml"))
        self.assertGreater(metrics["test/accuracy"], 0.95)

    def test_digits_as_pictures_with_a_vision_transformer(self):
        metrics = self.on_one_and_two_workers(self.example("digits-vit.yaml"))
        self.assertGreater(metrics["test/accuracy"], 0.95)

    def test_a_language_model_on_a_text_file(self):
        metrics = self.on_one_and_two_workers(self.example("text-gpt.yaml", epochs=6))
        self.assertLess(metrics["validation/perplexity"], 60)
        self.assertAlmostEqual(metrics["test/perplexity"], 2.718281828459045 ** metrics["test/loss"],
                               delta=1e-6 * metrics["test/perplexity"])

    def test_lines_of_source_into_languages(self):
        lines = subprocess.run([EXAMPLES / "make_lines.sh", "150"], capture_output=True, text=True,
                               check=True).stdout
        (self.folder / "lines.csv").write_text(lines)
        path = self.example("lines-classify.yaml", epochs=4,
                            dataset=f"{{uri: '{self.folder}/lines.csv', text: line, "
                                    "label: language, tokenizer: bytes, context: 48}")
        metrics = self.on_one_and_two_workers(path)
        self.assertGreater(metrics["test/accuracy"], 0.45)  # of four languages

    def test_every_example_is_a_valid_spec(self):
        """Those that need data or a model which is not there are refused for that alone."""
        for path in sorted(EXAMPLES.glob("*.yaml")):
            if path.name.startswith("."):
                continue
            done = lepton("submit", path, "--dry-run", "--coordinator", "http://127.0.0.1:9",
                          cwd=self.folder)
            self.assertIn("no coordinator", done.stderr, path.name)

    @unittest.skipUnless(SHAKESPEARE.exists(), f"{SHAKESPEARE} is not there")
    def test_a_language_model_learns_plays(self):
        spec = {"kind": "train", "name": "plays", "loss": "next_token", "steps": 80, "seed": 1,
                "dataset": {"uri": f"file://{SHAKESPEARE}", "tokenizer": "bytes", "context": 64,
                            "split": {"train": 0.98, "validation": 0.01}},
                "model": {"arch": "transformer", "layers": 2, "heads": 2, "width": 64},
                "optimizer": {"lr": 0.002, "decay": "matrices"}, "clip_norm": 1,
                "schedule": {"name": "cosine", "warmup_steps": 10}, "batch_size": 16,
                "checkpoint": {"every_steps": 1000}, "elastic": {"logical_shards": 2}}
        path = self.folder / "plays.json"
        path.write_text(json.dumps(spec))
        metrics = self.on_one_and_two_workers(path)
        # Of ln 256 = 5.5; the frequencies of characters alone give 3.3; seeds differ by 0.03.
        self.assertLess(metrics["validation/loss"], 3.1)


if __name__ == "__main__":
    main()
