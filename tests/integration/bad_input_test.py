#!/usr/bin/env python3
"""Bad input gets a clear error that names the field and the fix, and nothing is stored."""
import json
import pathlib
import socket
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import ClusterTest, DATA, lepton, long_spec, main, train_spec  # noqa: E402

CSV = "a,b,target\n" + "".join(f"{i},{i * 7 % 5},{i % 2}\n" for i in range(60))


class BadInput(ClusterTest):
    coordinator_args = ("--max-body", "1MiB")

    def refused(self, spec, status, *says):
        jobs = len(self.cluster.items("/v1/jobs"))
        got, problem = self.cluster.call("POST", "/v1/jobs", spec)
        self.assertEqual(got, status, problem)
        for text in says:
            self.assertIn(text, problem["detail"])
        self.assertEqual(len(self.cluster.items("/v1/jobs")), jobs, "a refused job was stored")
        return problem

    def upload(self, name, text):
        return self.cluster.call("POST", f"/v1/datasets/{name}", text.encode(),
                                 {"Content-Type": "text/csv"})

    def test_unknown_field_suggests_the_known_one(self):
        problem = self.refused(train_spec(optimiser={"lr": 1}), 400, "optimiser", "'optimizer'")
        self.assertEqual(problem["field"], "optimiser")
        self.assertEqual(problem["code"], "INVALID_ARGUMENT")

    def test_wrong_type_and_impossible_value(self):
        self.refused(train_spec(batch_size="many"), 400, "batch_size", "whole number")
        self.refused(train_spec(optimizer={"lr": -1}), 400, "optimizer.lr", "greater than 0")

    def test_models_that_cannot_be_built_are_refused_before_a_task_finds_out(self):
        pixels = {"uri": f"file://{DATA}/digits.csv", "image": {"height": 8, "width": 8}}
        vit = {"arch": "vit", "width": 100, "heads": 4, "patch": 2}
        for data, model, says in (
                (pixels, vit | {"patch": 3}, "model.patch: 3 must divide the images' height, 8"),
                (pixels, vit | {"heads": 3}, "model.width: 100 must be a multiple of heads, 3"),
                (pixels, {"arch": "resnet18", "widths": [8, 8], "depths": [1, 1, 1]}, "model.widths: has 2 stages"),
                (pixels, {"arch": "mlp"}, "model.arch: mlp takes rows of features, but the data has images"),
                ({"uri": pixels["uri"]}, vit, "model.arch: vit takes images, but the data has rows of features"),
                ({"uri": pixels["uri"]}, {"arch": "transformer"}, "model.arch: transformer takes texts"),
                (pixels | {"image": {"channels": 3, "height": 100, "width": 100}}, vit,
                 "dataset.image: 3 x 100 x 100 pixels, but the table has 64 columns")):
            self.refused(train_spec(dataset=data, model=model), 400, says)
        space = {"model.heads": {"choice": [2, 3, 4]}}
        self.refused(train_spec(dataset=pixels, model=vit, search={"space": space}) | {"kind": "tune"}, 400,
                     "search.space: model.width: 100 must be a multiple of heads, 3")
        status, plan = self.cluster.call("POST", "/v1/jobs?dry_run=1", train_spec(dataset=pixels, model=vit))
        self.assertEqual(status, 200, plan)

    def test_what_can_have_no_effect_is_refused(self):
        self.refused(train_spec(collectives="nccl"), 400, "collectives: nccl needs resources.device: cuda")
        self.refused(train_spec(checkpoint={"keep_best": {"metric": "foo/bar"}}), 400, "checkpoint.keep_best.metric")
        tune = train_spec(search={"space": {"dataset.uri": {"choice": ["file:///etc/passwd"]}}}) | {"kind": "tune"}
        self.refused(tune, 400, "search.space: dataset.uri is the whole search's")
        # The command line says so without a coordinator.
        spec = self.cluster.folder / "nccl.json"
        spec.write_text(json.dumps(train_spec(collectives="nccl")))
        done = lepton("submit", spec, "--coordinator", "http://127.0.0.1:1")
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("nccl.json: collectives: nccl needs", done.stderr)

    def test_a_plan_counts_the_given_models_parameters(self):
        job = self.cluster.train(register="counted", model={"hidden": [8]})
        spec = train_spec(model={"from": "counted@1"})
        for kind in ("train", "evaluate"):
            body = {"kind": kind, "dataset": spec["dataset"], "model": spec["model"]}
            plan = self.cluster.call("POST", "/v1/jobs?dry_run=1", body)[1]["plan"]
            self.assertEqual(plan["model"]["parameters"], job["result"]["parameters"], kind)

    def test_durations_keep_their_microseconds(self):
        status, dry = self.cluster.call("POST", "/v1/jobs?dry_run=1", train_spec(restart={"backoff": "1500us"}))
        self.assertEqual(status, 200, dry)
        self.assertEqual(dry["spec"]["restart"]["backoff"], "1ms500us")

    def test_malformed_json(self):
        status, problem = self.cluster.call("POST", "/v1/jobs", b'{"kind": "train", ')
        self.assertEqual(status, 400, problem)

    def test_missing_file_and_file_outside_the_roots(self):
        self.refused(train_spec(dataset={"uri": f"file://{DATA}/none.csv"}), 404, "none.csv")
        self.refused(train_spec(dataset={"uri": "file:///etc/passwd"}), 403, "dataset.uri")
        self.refused(train_spec(dataset={"uri": f"file://{DATA}/../../../../../etc/passwd"}), 403)

    def test_csv_with_a_bad_row_names_the_line(self):
        status, problem = self.upload("bad", CSV + "1,2\n")
        self.assertEqual(status, 400, problem)
        self.assertIn("line 62", problem["detail"])
        self.assertEqual(self.cluster.call("GET", "/v1/datasets/bad")[0], 404)

    def test_label_column_that_is_not_there(self):
        self.refused(train_spec(dataset={"uri": f"file://{DATA}/digits.csv", "label": "digit"}), 400,
                     "dataset.label", "digit", "target")

    def test_a_model_larger_than_a_body_may_be_says_how_to_name_it(self):
        file = self.cluster.folder / "large.onnx"
        file.write_bytes(bytes(2 << 20))
        done = lepton("model", "add", "large", file, "--coordinator", self.cluster.url)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("--by-path", done.stderr)

    def test_unknown_kinds_and_fields_of_other_calls(self):
        status, problem = self.cluster.call("GET", "/v1/jobs?kind=trian")
        self.assertEqual(status, 400, problem)
        self.assertIn("train, tune, distill", problem["detail"])
        status, problem = self.cluster.call("POST", "/v1/models/x/versions",
                                            {"uri": f"file://{DATA}/none.onnx", "feature": ["a"]})
        self.assertEqual(status, 400, problem)
        self.assertIn("feature: unknown field", problem["detail"])

    def test_unknown_dataset_model_and_teacher(self):
        self.refused(train_spec(dataset={"name": "nothing"}), 404, "nothing")
        spec = train_spec(teacher="nobody@1")
        spec["kind"] = "distill"
        self.refused(spec, 404, "nobody")

    def test_class_unseen_in_training(self):
        # A class of one row is trained on; with one row of each there are not enough for all.
        rows = "a,target\n" + "".join(f"{i},class-{i}\n" for i in range(20))
        self.assertIn(self.upload("rows", rows)[0], (200, 201))
        job = self.cluster.wait_job(self.cluster.submit(train_spec(dataset={"name": "rows"})))
        self.assertEqual(job["state"], "FAILED", job)
        self.assertRegex(job["reason"], 'dataset.split: class ".*" is unseen in training')
        self.assertEqual(job["restarts"], 0, "retrying cannot help")

    def test_class_that_a_model_has_never_seen(self):
        c = self.cluster
        rows = "a,target\n" + "".join(f"{i},x\n{i},y\n" for i in range(40))
        self.assertIn(self.upload("two", rows)[0], (200, 201))
        self.assertIn(self.upload("three", rows + "99,rare\n")[0], (200, 201))
        c.train(dataset={"name": "two"}, register="two")
        self.refused({"kind": "evaluate", "name": "strange", "model": {"from": "two@1"},
                      "dataset": {"name": "three", "split": {"train": 1.0, "validation": 0}}},
                     400, 'two@1 knows no class "rare"', "it knows x, y")

    def test_infinite_loss_fails_with_the_step_and_the_last_good_checkpoint(self):
        job_id = self.cluster.submit(train_spec(
            optimizer={"name": "sgd", "lr": 900, "momentum": 0.99}, loss="cross_entropy",
            dataset={"uri": f"file://{DATA}/digits.csv", "normalize": "none"},
            checkpoint={"every_steps": 1}, epochs=400, model={"hidden": [64, 64]}))
        job = self.cluster.wait_job(job_id)
        self.assertEqual(job["state"], "FAILED", job)
        self.assertIn("step", job["reason"])
        self.assertIn("checkpoint", job["reason"])
        self.assertEqual(job["restarts"], 0, "retrying cannot help")

    def test_more_workers_than_the_pool_can_ever_have(self):
        self.refused(train_spec(resources={"min_workers": 64, "max_workers": 64}), 409,
                     "resources", "64 x 1 slots")

    def test_more_workers_than_are_free_now_waits_with_a_reason(self):
        c = self.cluster
        running = c.submit(long_spec(resources={"min_workers": 4, "max_workers": 4}))
        c.wait_job(running, {"RUNNING", "STARTING"})
        waiting = c.submit(train_spec(resources={"min_workers": 1, "max_workers": 1}))
        job = c.job(waiting)
        self.assertEqual(job["state"], "QUEUED")
        self.assertIn("slot", job["reason"])
        c.call("POST", f"/v1/jobs/{running}:cancel")
        c.wait_job(running, {"CANCELLED"})
        self.assertEqual(c.wait_job(waiting)["state"], "SUCCEEDED")

    def test_body_over_the_limit(self):
        try:
            status = self.cluster.call("POST", "/v1/jobs", b" " * (2 << 20))[0]
        except OSError as error:  # the server may close before it has read everything
            reason = getattr(error, "reason", error)
            self.assertIsInstance(reason, (ConnectionResetError, BrokenPipeError))
            status = 413
        self.assertEqual(status, 413)
        self.assertEqual(self.cluster.call("GET", "/healthz")[0], 200)

    def test_malformed_http_and_frames_leave_the_coordinator_well(self):
        for port in {int(self.cluster.url.rsplit(":", 1)[1]), self.link_port()}:
            for garbage in (b"\0" * 100, b"GET / HTTP/9.9\r\n\r\n", b"\xff" * 5000,
                            b"POST /v1/jobs HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
                            b"POST /v1/jobs HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"):
                with socket.create_connection(("127.0.0.1", port), 5) as connection:
                    connection.sendall(garbage)
                    connection.settimeout(0.5)
                    try:
                        while connection.recv(4096):
                            pass
                    except OSError:
                        pass
        self.assertEqual(self.cluster.call("GET", "/healthz")[0], 200)
        self.assertEqual(len([w for w in self.cluster.items("/v1/workers") if w["state"] == "UP"]), 2)

    def link_port(self):
        where = json.loads((self.cluster.data / "coordinator.json").read_text())
        return int(where["link"].rsplit(":", 1)[1])

    def test_repeating_a_submission_starts_one_job(self):
        key = {"Idempotency-Key": "once"}
        first = self.cluster.call("POST", "/v1/jobs", train_spec(), key)
        second = self.cluster.call("POST", "/v1/jobs", train_spec(), key)
        self.assertEqual(first[0], 201)
        self.assertEqual(second[0], 200)
        self.assertEqual(first[1]["id"], second[1]["id"])
        self.cluster.wait_job(first[1]["id"])

    def test_dry_run_plans_and_stores_nothing(self):
        jobs = len(self.cluster.items("/v1/jobs"))
        status, plan = self.cluster.call("POST", "/v1/jobs?dry_run=1", train_spec())
        self.assertEqual(status, 200, plan)
        self.assertIn("plan", plan)
        self.assertEqual(len(self.cluster.items("/v1/jobs")), jobs)

    def test_an_unknown_command_suggests_the_known_one(self):
        done = lepton("submitt", "x.yaml")
        self.assertEqual(done.returncode, 2)
        self.assertIn("no command 'submitt'; did you mean 'submit'?", done.stderr)
        done = lepton("ps", "--stat", "x")
        self.assertEqual(done.returncode, 2)
        self.assertIn("lepton: The following argument", done.stderr)
        done = lepton()
        self.assertEqual(done.returncode, 2)
        self.assertIn("lepton run job.yaml", done.stderr)

    def test_unknown_paths_and_methods(self):
        self.assertEqual(self.cluster.call("GET", "/v1/nothing")[0], 404)
        self.assertEqual(self.cluster.call("DELETE", "/v1/cluster")[0], 405)
        self.assertEqual(self.cluster.call("GET", "/v1/jobs/none")[0], 404)
        self.assertEqual(self.cluster.call("POST", "/v1/deployments/none:predict", {"rows": []})[0],
                         404)


if __name__ == "__main__":
    main()
