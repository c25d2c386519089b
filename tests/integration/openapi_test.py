#!/usr/bin/env python3
"""/openapi.json against public validators, and real answers against its schemas."""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import ClusterTest, main, train_spec  # noqa: E402

try:
    import jsonschema
except ImportError:
    jsonschema = None


class OpenApi(ClusterTest):
    workers = 1

    def setUp(self):
        self.document = self.cluster.get("/openapi.json")

    def check(self, schema, value):
        """`value` against #/components/schemas/<schema>."""
        resolver = jsonschema.RefResolver("", self.document)
        jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{schema}"},
                                        resolver=resolver).validate(value)

    @unittest.skipIf(jsonschema is None, "python3-jsonschema is not installed")
    def test_every_schema_is_a_valid_json_schema(self):
        schemas = self.document["components"]["schemas"]
        self.assertGreater(len(schemas), 20)
        for schema in schemas.values():
            jsonschema.Draft202012Validator.check_schema(schema)

    @unittest.skipIf(jsonschema is None, "python3-jsonschema is not installed")
    def test_real_answers_fit_their_schemas(self):
        spec = train_spec(register="digits")
        self.check("JobSpec", spec)
        job = self.cluster.wait_job(self.cluster.submit(spec))
        self.check("Job", job)
        self.check("Model", self.cluster.get("/v1/models/digits"))
        for worker in self.cluster.items("/v1/workers"):
            self.check("Worker", worker)
        with self.assertRaises(jsonschema.ValidationError):
            self.check("JobSpec", {**spec, "optimiser": {}})
        self.check("Problem", self.cluster.call("GET", "/v1/jobs/none")[1])

    @unittest.skipIf(shutil.which("npm") is None, "npm is not installed: no public validator")
    def test_a_public_validator_accepts_the_document(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "openapi.json"
            path.write_text(json.dumps(self.document))
            installed = subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund",
                                        "@seriousme/openapi-schema-validator"], cwd=folder,
                                       capture_output=True, text=True, timeout=120)
            if installed.returncode != 0:
                self.skipTest("the validator cannot be installed here: " + installed.stderr[-200:])
            done = subprocess.run(["node_modules/.bin/validate-api", path], cwd=folder,
                                  capture_output=True, text=True, timeout=60)
            self.assertIn('"valid": true', done.stdout, done.stdout + done.stderr)


if __name__ == "__main__":
    main()
