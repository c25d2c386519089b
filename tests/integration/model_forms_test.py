#!/usr/bin/python3
"""Every architecture leaves as an ONNX file, which the public checker takes, and, where it has one,
as a Hugging Face folder; both come back, measure the same, answer the same in a batch, write the same texts and train on."""
import json
import sys
import pathlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import ClusterTest, lepton, main  # noqa: E402
from onnx_test import check  # noqa: E402

SMALL = {"layers": 1, "heads": 2, "width": 16}
WRITERS = ("gpt2", "llama", "mistral", "qwen2", "qwen3")
PIXELS = {"image": {"channels": 1, "height": 8, "width": 8}}
LINES = {"text": "text", "tokenizer": "bytes", "context": 32}
LABELLED = {**LINES, "label": "label"}
DIGITS, TEXTS = "digits.csv", "texts.csv"

# name: (data, its fields, model, loss)
CASES = {
    "mlp": (DIGITS, {}, {"hidden": [8]}, None),
    "resnet": (DIGITS, PIXELS, {"arch": "resnet18", "stem_width": 4, "widths": [4, 8],
                                "depths": [1, 1]}, None),
    "vit": (DIGITS, PIXELS, {"arch": "vit", "patch": 4, **SMALL}, None),
    **{style: (TEXTS, LINES, {"arch": "transformer", "style": style, **SMALL}, "next_token")
       for style in WRITERS},
    **{f"{style}-classes": (TEXTS, LABELLED, {"arch": "transformer", "style": style, **SMALL}, None)
       for style in ("bert", "distilbert", "gpt2", "llama")},
}


class ModelForms(ClusterTest):
    workers, slots = 1, 2

    def all(self, specs):
        """The final jobs of {name: spec}, by name; what failed is told together."""
        answers = {name: self.cluster.call("POST", "/v1/jobs", spec) for name, spec in specs.items()}
        failed = [f"{name}: {job}" for name, (status, job) in answers.items() if status != 201]
        jobs = {name: self.cluster.wait_job(job["id"], timeout=120)
                for name, (status, job) in answers.items() if status == 201}
        failed += [f"{name}: {job.get('reason')}" for name, job in jobs.items()
                   if job["state"] != "SUCCEEDED"]
        self.assertFalse(failed, "\n".join(failed))
        return jobs

    def spec(self, kind, case, model, **fields):
        data, wanted, _, loss = CASES[case]
        dataset = {"uri": f"file://{self.folder / data}", **wanted}
        if "hf" in model:
            dataset.pop("tokenizer", None)  # folders have their own
        spec = {"kind": kind, "name": "job", "dataset": dataset, "model": model, **fields}
        if kind == "train":
            spec.update(optimizer={"name": "adamw", "lr": 0.003}, batch_size=16)
            if loss:
                spec["loss"] = loss
        return spec

    def answers(self, job):
        """Per row: the numbers of its answer, and what was written."""
        rows = []
        path = f"/v1/jobs/{job['id']}/files/predictions.jsonl"
        text = self.cluster.call("GET", path)[1]
        for line in (text if isinstance(text, str) else json.dumps(text)).splitlines():
            row = json.loads(line)
            rows.append(([row["loss"]] if "loss" in row else row["probabilities"],
                         row.get("generated")))
        return rows

    def test_models_leave_and_come_back(self):
        self.folder = self.cluster.folder
        source = pathlib.Path(__file__).resolve().parents[2] / "scripts/data/digits.csv"
        (self.folder / DIGITS).write_text("".join(source.open().readlines()[:101]))
        lines = [f"{'good' if i % 2 else 'bad'} {'film' * (i % 4)} number {i},{'yes' if i % 2 else 'no'}"
                 for i in range(40)]
        (self.folder / TEXTS).write_text("\n".join(["text,label", *lines]) + "\n")

        trained = self.all({case: self.spec("train", case, model, epochs=2, register=case)
                            for case, (_, _, model, _) in CASES.items()})
        forms = {}
        for case in CASES:
            forms[case] = {"from": {"from": f"{case}@1"}}
            kinds = {"onnx": self.folder / f"{case}.onnx"}
            if case != "mlp":
                kinds["hf"] = self.folder / f"{case}-folder"
            for kind, path in kinds.items():
                done = lepton("model", "export", f"{case}@1", path, "--coordinator", self.cluster.url)
                self.assertEqual(done.returncode, 0, done.stderr)
                forms[case][kind] = {kind: str(path)}
            check(forms[case]["onnx"]["onnx"])
        each = [(case, form) for case in CASES for form in forms[case]]

        measured = self.all({f"{case} {form} evaluate": self.spec("evaluate", case, forms[case][form])
                             for case, form in each})
        for case, form in each:
            loss = measured[f"{case} {form} evaluate"]["result"]["metrics"]["test/loss"]
            self.assertAlmostEqual(loss, trained[case]["result"]["metrics"]["test/loss"], delta=1e-4,
                                   msg=f"{case} {form}")

        asked = self.all({
            f"{case} {form} batch": self.spec(
                "batch", case, forms[case][form], output={"format": "jsonl"},
                **({"generate": {"max_tokens": 3}} if case in WRITERS else {}))
            for case, form in each})
        for case, form in each:
            rows = self.answers(asked[f"{case} {form} batch"])
            wanted = self.answers(asked[f"{case} from batch"])
            self.assertEqual(len(rows), len(wanted))
            for (numbers, text), (right, right_text) in zip(rows, wanted):
                self.assertEqual(text, right_text, f"{case} {form}")
                for a, b in zip(numbers, right):
                    self.assertAlmostEqual(a, b, delta=1e-3, msg=f"{case} {form}")

        self.all({f"{case} {form} train": self.spec("train", case, forms[case][form], steps=1)
                  for case, form in each if form != "from"})


if __name__ == "__main__":
    main()
