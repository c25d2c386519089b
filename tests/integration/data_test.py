#!/usr/bin/env python3
"""Every kind of data through a real cluster: registered and by path, trained on, tuned on, distilled,
evaluated, asked in batch and served."""
import io
import json
import pathlib
import random
import struct
import sys
import tarfile
import unittest
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import ClusterTest, DATA, ROOT, lepton, main, wait_until  # noqa: E402


def png(width, height, pixel):
    """An RGB file; pixel(x, y) is (r, g, b)."""
    def chunk(kind, data):
        return (struct.pack(">I", len(data)) + kind + data
                + struct.pack(">I", zlib.crc32(kind + data)))
    rows = b"".join(b"\0" + bytes(v for x in range(width) for v in pixel(x, y))
                    for y in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def make_pets(folder, count=40):
    """Stripes that lie and stripes that stand, of different sizes and colours."""
    random.seed(1)
    for i in range(count):
        colour = [random.randrange(100, 256) for _ in range(3)]
        for name, stripe in (("lying", lambda x, y: y // 2 % 2), ("standing", lambda x, y: x // 2 % 2)):
            path = folder / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(12 + i % 3, 12, lambda x, y: [c * stripe(x, y) for c in colour]))


RESNET = {"arch": "resnet18", "stem": "small", "stem_width": 8, "widths": [8, 16], "depths": [1, 1]}
GPT = {"arch": "transformer", "layers": 1, "heads": 2, "width": 32}


class DataTest(ClusterTest):
    def setUp(self):
        self.folder = self.cluster.folder / self.id().rsplit(".", 1)[1]
        self.folder.mkdir()

    def done(self, spec):
        job = self.cluster.wait_job(self.cluster.submit(spec))
        self.assertEqual(job["state"], "SUCCEEDED", job.get("error"))
        return job

    def cli(self, *args):
        done = lepton(*args, "--coordinator", self.cluster.url, cwd=self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def refused(self, spec, status=400):
        code, body = self.cluster.call("POST", "/v1/jobs", spec)
        self.assertEqual(code, status, body)
        return body["detail"]

    def test_pictures_from_a_folder_to_predictions(self):
        make_pets(self.folder / "pets")
        said = self.cli("data", "add", "stripes", self.folder / "pets")
        self.assertIn("dataset stripes@1: images, 80 rows, 2 classes", said)
        # The same pictures, read by the coordinator, are the same version.
        said = self.cli("data", "add", "stripes", "--uri", self.folder / "pets")
        self.assertIn("dataset stripes@1", said)
        profile = self.cli("data", "profile", "stripes")
        self.assertIn("width", profile)
        spec = {"kind": "train", "name": "stripes", "model": RESNET, "epochs": 12, "batch_size": 16,
                "dataset": {"name": "stripes", "image": {"height": 12, "width": 12, "flip": True}},
                "optimizer": {"lr": 0.01}, "register": "stripes",
                "resources": {"max_workers": 2}}
        job = self.done(spec)
        self.assertGreater(job["metrics"]["test/accuracy"], 0.8)
        self.assertEqual(len(job["tasks"]), 2)

        evaluated = self.done({"kind": "evaluate", "dataset": "stripes", "model": "stripes@1"})
        self.assertEqual(evaluated["metrics"]["test/accuracy"], job["metrics"]["test/accuracy"])

        asked = self.done({"kind": "batch", "model": "stripes", "resources": {"max_workers": 2},
                           "dataset": {"uri": f"file://{self.folder}/pets"}, "output": "jsonl"})
        self.assertEqual(asked["result"]["files"], ["predictions.jsonl"])
        status, text = self.cluster.call("GET", f"/v1/jobs/{asked['id']}/files/predictions.jsonl")
        rows = [json.loads(line) for line in text.splitlines()]
        self.assertEqual(len(rows), 80)
        right = sum(row["file"].startswith(row["label"]) for row in rows)
        self.assertGreater(right, 65)
        status, _ = self.cluster.call("GET", f"/v1/jobs/{asked['id']}/files/other.csv")
        self.assertEqual(status, 404)

        student = self.done({"kind": "distill", "teacher": "stripes@1", "dataset": "stripes",
                             "model": {**RESNET, "widths": [4, 8]}, "epochs": 3, "batch_size": 16})
        self.assertIn("student_alone/accuracy", student["metrics"])
        self.assertEqual(student["metrics"]["teacher/accuracy"], job["metrics"]["test/accuracy"])

    def test_an_archive_is_its_folder_and_a_damaged_picture_is_named(self):
        make_pets(self.folder / "pets", 5)
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as tar:
            tar.add(self.folder / "pets", "pets")
        status, version = self.cluster.call("POST", "/v1/datasets/packed?filename=p.tgz",
                                            archive.getvalue(),
                                            {"Content-Type": "application/octet-stream"})
        self.assertEqual((status, version["kind"], version["rows"]), (201, "images", 10), version)
        self.assertEqual(version["classes"], ["lying", "standing"])
        bad = self.folder / "pets/lying/3.png"
        bad.write_bytes(bad.read_bytes()[:60])
        message = self.refused({"kind": "train", "model": RESNET,
                                "dataset": {"uri": f"file://{self.folder}/pets"}})
        self.assertIn("dataset.uri: lying/3.png: damaged PNG", message)

    def test_folders_are_confined_like_files(self):
        for uri in ("file:///etc", "file:///usr/share/doc"):
            message = self.refused({"kind": "train", "model": RESNET, "dataset": {"uri": uri}}, 403)
            self.assertIn("dataset.uri: ", message)
        (self.folder / "out").symlink_to("/etc")
        self.refused({"kind": "train", "model": RESNET,
                      "dataset": {"uri": f"file://{self.folder}/out"}}, 403)
        make_pets(self.folder / "pets", 3)
        (self.folder / "pets/lying/link.png").symlink_to("/etc/passwd")
        message = self.refused({"kind": "train", "model": RESNET,
                                "dataset": {"uri": f"file://{self.folder}/pets"}})
        self.assertIn("lying/link.png: is a symbolic link", message)
        message = self.refused({"kind": "train", "model": GPT, "loss": "next_token",
                                "dataset": {"uri": f"file://{DATA}/README.md",
                                            "tokenizer": "file:///etc/passwd"}}, 403)
        self.assertIn("dataset.tokenizer: ", message)
        status, body = self.cluster.call("POST", "/v1/datasets/x?uri=file:///etc/passwd", b"")
        self.assertEqual(status, 403, body)

    def test_tokens_and_text_for_language_models(self):
        text = "the quick brown fox jumps over the lazy dog. " * 60
        (self.folder / "fox.txt").write_text(text)
        (self.folder / "fox.bin").write_bytes(
            b"".join(struct.pack("<H", byte) for byte in text.encode()))
        self.assertIn("tokens, 2700 rows", self.cli("data", "add", "fox-ids", "fox.bin"))
        self.assertIn("text, 1 rows", self.cli("data", "add", "fox", "fox.txt"))
        spec = {"kind": "train", "name": "fox", "loss": "next_token", "model": GPT, "epochs": 20,
                "batch_size": 8, "accumulate": 2, "optimizer": {"lr": 0.01},
                "dataset": {"name": "fox", "tokenizer": "bytes", "context": 32},
                "register": "fox"}
        job = self.done(spec)
        self.assertLess(job["metrics"]["test/perplexity"], 2)
        by_ids = self.done({**spec, "model": {**GPT, "vocabulary": 256}, "register": "",
                            "dataset": {"name": "fox-ids", "context": 32}})
        self.assertEqual(by_ids["result"]["weights_sha256"], job["result"]["weights_sha256"])
        message = self.cluster.wait_job(self.cluster.submit(
            {**spec, "register": "", "model": {**GPT, "vocabulary": 100},
             "dataset": {"name": "fox-ids", "context": 32}}))["error"]
        self.assertIn("token 122 at position 37 is outside of the vocabulary, which has 100", message)

        (self.folder / "prompts.csv").write_text("text\nthe quick brown fox jumps over\ndog. the quick brown fox\n")
        asked = self.done({"kind": "batch", "model": "fox@1", "output": "jsonl",
                           "dataset": {"uri": f"file://{self.folder}/prompts.csv", "text": "text"},
                           "generate": {"max_tokens": 4}})
        _, lines = self.cluster.call("GET", f"/v1/jobs/{asked['id']}/files/predictions.jsonl")
        said = [json.loads(line)["generated"] for line in lines.splitlines()]
        self.assertEqual(said, [" the", " jum"])

        tuned = self.done({**spec, "kind": "tune", "epochs": 4, "register": "",
                           "search": {"algorithm": "random", "trials": 2,
                                      "space": {"optimizer.lr": {"uniform": [0.001, 0.01]}}}})
        self.assertIn("best_trial", tuned)
        # A deployment of a language model says what to do instead.
        self.cluster.call("POST", "/v1/deployments", {"name": "fox", "model": "fox@1"})
        error = wait_until(lambda: self.cluster.get("/v1/deployments/fox")["error"], 30, "an error")
        self.assertIn("kind: batch", error)
        self.cluster.call("DELETE", "/v1/deployments/fox")

    def test_texts_of_json_lines_are_classified_and_served(self):
        lines = [json.dumps({"id": i, "review": ("a good film " if i % 2 else "a bad movie ") + str(i),
                             "stars": "high" if i % 2 else "low"}) for i in range(120)]
        (self.folder / "reviews.jsonl").write_text("\n".join(lines))
        spec = {"kind": "train", "name": "reviews", "epochs": 15, "batch_size": 16,
                "dataset": {"uri": f"file://{self.folder}/reviews.jsonl", "text": "review",
                            "label": "stars", "tokenizer": "bytes", "context": 32},
                "model": {"arch": "transformer", "style": "bert", "layers": 1, "heads": 2,
                          "width": 16, "pool": "mean"},
                "optimizer": {"lr": 0.01}, "register": "reviews", "resources": {"max_workers": 2}}
        job = self.done(spec)
        self.assertEqual(job["metrics"]["test/accuracy"], 1)
        message = self.refused({**spec, "dataset": {**spec["dataset"], "text": "body"}})
        self.assertIn('dataset.text: no column "body" in the data: there are id, review, stars', message)
        message = self.refused({**spec, "dataset": {**spec["dataset"], "tokenizer": ""}})
        self.assertIn("dataset.tokenizer: missing", message)
        self.cluster.deploy("reviews", "reviews", 1)
        status, answer = self.cluster.call("POST", "/v1/deployments/reviews:predict",
                                           {"rows": [{"review": "a good film 3"}]})
        self.assertEqual((status, answer["predictions"][0]["label"]), (200, "high"), answer)
        status, answer = self.cluster.call(
            "POST", "/v2/models/reviews/infer",
            {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a bad movie"]}],
             "outputs": [{"name": "label"}]})
        self.assertEqual((status, answer["outputs"][0]["data"]), (200, ["low"]), answer)
        status, answer = self.cluster.call("POST", "/v1/deployments/reviews:predict",
                                           {"rows": [{"stars": 1}]})
        self.assertEqual(status, 400, answer)
        self.cluster.call("DELETE", "/v1/deployments/reviews")

    def test_errors_of_uploads_name_the_line(self):
        for name, body, says in (("a.jsonl", b'{"a":1}\n{"a":[1]}\n', "line 2: \"a\" is a list"),
                                 ("a.txt", b"fine\n\xff\n", "line 2: bytes that are not UTF-8"),
                                 ("a.bin", b"abc", "3 bytes"),
                                 ("a.zip", b"PK\x03\x04 no", "archive")):
            status, answer = self.cluster.call("POST", f"/v1/datasets/bad?filename={name}", body,
                                               {"Content-Type": "application/octet-stream"})
            self.assertEqual(status, 400, answer)
            self.assertIn(says, answer["detail"])
        status, answer = self.cluster.call("POST", "/v1/datasets/bad?format=xml", b"x")
        self.assertIn("format: \"xml\" is not one of", answer["detail"])
        self.assertEqual(self.cluster.items("/v1/imports"), [])

    def test_a_file_of_others_takes_the_classes_of_folders(self):
        make_pets(self.folder / "pets", 12)
        for i in range(12):
            path = self.folder / f"pets/plain/{i}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(png(12, 12, lambda x, y: [200, 10 * i, 90]))
        model = {"onnx": str(ROOT / "tests/golden/onnx/resnet/model.onnx")}
        pets = {"uri": f"file://{self.folder}/pets"}
        trained = self.done({"kind": "train", "name": "t", "dataset": pets, "model": model, "steps": 4,
                             "batch_size": 8, "optimizer": {"name": "sgd", "lr": 0.001},
                             "register": "others"})
        files = "/v1/models/others/versions/1/files/manifest.json"
        self.assertEqual(self.cluster.get(files)["classes"], ["lying", "plain", "standing"], trained)
        self.done({"kind": "evaluate", "name": "e", "dataset": pets, "model": model})
        # Of a table it has a picture's columns, or none.
        error = self.refused({"kind": "evaluate", "name": "d", "model": "others@1",
                              "dataset": {"uri": f"file://{DATA}/digits.csv"}})
        self.assertIn("takes pictures of 3 x 12 x 12 that are files, but the data is a table of 64 "
                      "columns beside the label", error)


if __name__ == "__main__":
    main()
