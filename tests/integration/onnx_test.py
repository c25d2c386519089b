#!/usr/bin/python3
"""Models as ONNX files, in and out, through the command line: a run leaves one, another run starts
from it, a registered version is exported, downloaded and added again."""
import json
import pathlib
import shutil
import sys
import tempfile
import unittest
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import ROOT, ClusterTest, lepton, main, train_spec  # noqa: E402
from huggingface_test import ROWS, write_tokenizer  # noqa: E402

try:
    import onnx
except ImportError:
    onnx = None  # the public checker's part is left out, and says so


def check(path):
    if onnx is None:
        print("onnx_test: python3-onnx is not installed: no public checker", file=sys.stderr)
        return
    model = onnx.load(str(path))
    onnx.checker.check_model(model, full_check=True)  # by name it would write to the file
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert "batch" in [dim.dim_param for dim in dims], dims


class Onnx(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lepton-onnx."))

    def tearDown(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def run_spec(self, name, **fields):
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps(train_spec(name=name, **fields)))
        done = lepton("run", path, "--workers", 2, "--onnx", cwd=self.folder)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        out = self.folder / "lepton-runs" / name
        return out, json.loads((out / "manifest.json").read_text())

    def test_a_run_leaves_a_model_that_another_trains_on(self):
        out, first = self.run_spec("first", epochs=20)
        check(out / "model.onnx")
        shutil.copy(out / "model.onnx", self.folder / "start.onnx")
        out, second = self.run_spec("second", steps=5, model={"onnx": "start.onnx"},
                                    optimizer={"name": "sgd", "lr": 1e-6})
        check(out / "model.onnx")
        self.assertEqual(second["model"]["arch"], "onnx")
        self.assertEqual(second["feature_names"], first["feature_names"])
        self.assertEqual(second["classes"], first["classes"])
        self.assertAlmostEqual(second["metrics"]["test/accuracy"], first["metrics"]["test/accuracy"],
                               delta=0.02)

    def library_jobs(self, name, dataset, **fields):
        """Trains on from the golden, measures the model.onnx that is left, and has it answer."""
        start = ROOT / f"tests/golden/onnx/{name}/model.onnx"
        out, trained = self.run_spec(name, model={"onnx": str(start)}, dataset=dataset, batch_size=8,
                                     epochs=30, optimizer={"name": "adamw", "lr": 0.01}, **fields)
        check(out / "model.onnx")
        for kind, rest in (("evaluate", {}), ("batch", {"output": {"format": "jsonl"}})):
            path = self.folder / "job.yaml"
            path.write_text(json.dumps({"kind": kind, "name": f"{name}-{kind}", "dataset": dataset,
                                        "model": {"onnx": str(out / "model.onnx")}, **rest}))
            done = lepton("run", path, "--workers", 1, cwd=self.folder)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        lines = (self.folder / f"lepton-runs/{name}-batch/predictions.jsonl").read_text()
        return trained["metrics"], [json.loads(line) for line in lines.splitlines()]

    def test_encoders_of_pytorchs_library_learn_and_leave(self):
        classes = ["up", "flat", "down"]
        lines = [",".join([f"x{i}" for i in range(24)] + ["label"])]
        for row in range(90):
            slope = 1 - row % 3
            lines.append(",".join(f"{slope * (i // 8) + (row * 7 + i * 5) % 11 / 11:.3f}"
                                  for i in range(24)) + f",{classes[row % 3]}")
        (self.folder / "rows.csv").write_text("\n".join(lines) + "\n")
        for name in ("library_rows", "library_columns", "library_weights"):
            metrics, rows = self.library_jobs(name, {"uri": "rows.csv", "label": "label"})
            self.assertGreater(metrics["test/accuracy"], 0.9, name)
            right = sum(row["label"] == classes[i % 3] for i, row in enumerate(rows))
            self.assertEqual(len(rows), 90)
            self.assertGreater(right, 80, name)

    def test_text_models_of_pytorchs_library_learn_and_leave(self):
        write_tokenizer(self.folder / "tokenizer.json")
        texts = {"uri": "texts.csv", "text": "text", "tokenizer": "tokenizer.json", "context": 10}
        lines = ["text,label"] + [f"{text},{('a', 'b')[label == 'yes']}" for text, label in ROWS * 10]
        (self.folder / "texts.csv").write_text("\n".join(lines + ["a,c"] * 10) + "\n")
        metrics, rows = self.library_jobs("library_texts", {**texts, "label": "label"})
        self.assertGreater(metrics["test/accuracy"], 0.9)
        self.assertEqual([row["label"] for row in rows[:8]],
                         [("a", "b")[label == "yes"] for _, label in ROWS])
        metrics, rows = self.library_jobs("library_gpt", texts, loss="next_token")
        self.assertLess(metrics["test/loss"], 1.5)
        self.assertEqual(len(rows), 90)

    def foreign(self, name, lines, **fields):
        """Trains on the rows, and gives the model.onnx that is left as another exporter would write it, without metadata."""
        (self.folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
        out, _ = self.run_spec(name, dataset={"uri": f"{name}.csv"}, batch_size=8, epochs=60,
                               optimizer={"name": "adamw", "lr": 0.01}, **fields)
        file = self.folder / f"{name}.onnx"
        content = (out / "model.onnx").read_bytes()
        self.assertIn(b"lepton.loss", content)
        file.write_bytes(content.replace(b"lepton.", b"foreign"))
        return str(file)

    def ask(self, kind, model, lines, **fields):
        """The metrics of an evaluation of all rows, or a batch's answers."""
        (self.folder / "asked.csv").write_text("\n".join(lines) + "\n")
        path = self.folder / "job.yaml"
        rest = {"batch": {"output": {"format": "jsonl"}}}.get(kind, {})
        path.write_text(json.dumps({"kind": kind, "name": "ask", "model": {"onnx": model},
                                    "dataset": {"uri": "asked.csv"}, **rest, **fields}))
        shutil.rmtree(self.folder / "lepton-runs/ask", ignore_errors=True)
        done = lepton("run", path, "--workers", 1, cwd=self.folder)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        out = self.folder / "lepton-runs/ask"
        if kind == "evaluate":
            return json.loads((out / "job.json").read_text())["result"]["metrics"]
        return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]

    def test_models_of_others_answer_and_are_measured_by_their_outputs(self):
        rows = [(i % 7, i % 11) for i in range(77)]
        numbers = ["a,b,target"] + [f"{a},{b},{a + 2 * b + 0.5}" for a, b in rows]
        model = self.foreign("sum", numbers, loss="mse", model={"hidden": [16]})
        bare = [line.rsplit(",", 1)[0] for line in numbers]
        for lines in (numbers, bare):  # with the labels and without
            answers = self.ask("batch", model, lines)
            self.assertEqual(set(answers[0]), {"row", "value"})
            wrong = max(abs(answer["value"] - a - 2 * b) for answer, (a, b) in zip(answers, rows))
            self.assertLess(wrong, 8)
        self.assertIn("test/mse", self.ask("evaluate", model, numbers))
        classes = ["a,b,target"] + [f"{a},{b},{b % 3}" for a, b in rows]
        model = self.foreign("thirds", classes, model={"hidden": [32, 32]})
        two = [line for line in classes if not line.endswith(",2")]
        self.assertIn("test/accuracy", self.ask("evaluate", model, two))
        self.assertLessEqual({row["label"] for row in self.ask("batch", model, two)}, {"0", "1", "2"})
        words = ["a,b,target"] + [f"{a},{b},{('no', 'yes')[a > 3]}" for a, b in rows]
        model = self.foreign("half", words, loss="binary_cross_entropy")
        measured = self.ask("evaluate", model, words, loss="binary_cross_entropy")
        self.assertGreater(measured["test/accuracy"], 0.8)

    def test_a_broken_file_is_refused_before_anything_runs(self):
        (self.folder / "broken.onnx").write_bytes(b"\x08\x08not a model")
        path = self.folder / "job.yaml"
        path.write_text(json.dumps(train_spec(model={"onnx": "broken.onnx"})))
        done = lepton("run", path, "--workers", 1, cwd=self.folder)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("model", done.stderr)


class Versions(ClusterTest):
    workers = 1

    def run_cli(self, *args):
        done = lepton(*args, "--coordinator", self.cluster.url)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_versions_leave_and_come_back(self):
        folder = self.cluster.folder
        self.cluster.train(epochs=10)
        file = folder / "digits.onnx"
        self.run_cli("model", "export", "digits", file)
        check(file)
        served = urllib.request.urlopen(
            self.cluster.url + "/v1/models/digits/versions/1/files/model.onnx").read()
        self.assertEqual(served, file.read_bytes())
        self.run_cli("model", "add", "again", file)
        again, first = (self.cluster.get(f"/v1/models/{name}/versions/1")
                        for name in ("again", "digits"))
        self.assertEqual(again["parameters"], first["parameters"])
        job = self.cluster.wait_job(self.cluster.submit(
            {"kind": "evaluate", "name": "check", "model": {"from": "again@1"},
             "dataset": train_spec()["dataset"]}))
        self.assertEqual(job["state"], "SUCCEEDED", job)
        self.cluster.deploy("live", "again@1", replicas=1)
        self.cluster.deploy("old", "digits@1", replicas=1)
        rows = {"rows": [{f: 3.0 for f in self.features("again")}]}
        answers = [self.cluster.call("POST", f"/v1/deployments/{name}:predict", rows)
                   for name in ("live", "old")]
        self.assertEqual(answers[0][0], 200, answers)
        one, two = (answer["predictions"][0] for _, answer in answers)
        self.assertEqual(one["label"], two["label"])
        self.assertAlmostEqual(one["probability"], two["probability"], delta=1e-4)
        status, problem = self.cluster.call("POST", "/v1/models/bad/versions", b"\x08\x08no")
        self.assertEqual(status, 400, problem)

    def features(self, name):
        return self.cluster.get(f"/v1/models/{name}/versions/1/files/manifest.json")["feature_names"]


if __name__ == "__main__":
    main()
