#!/usr/bin/env python3
"""`lepton run`: one job without a server, alone and under mpirun."""
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import (DATA, LEPTON, lepton, lepton_processes, long_spec, main, processes, train_spec,  # noqa: E402
                     wait_until)
from run_folder import MPIRUN, RunFolder  # noqa: E402


class Run(RunFolder):
    def digest(self, output):
        last = output.strip().splitlines()[-1]
        self.assertRegex(last, r"^model \S+ sha256:[0-9a-f]{64} workers=\d+ steps=\d+ .*test/accuracy=")
        return next(word for word in last.split() if word.startswith("sha256:"))

    def test_leaves_the_model_and_the_metrics(self):
        done = lepton("run", self.spec(epochs=30), "--workers", 2, cwd=self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        digest = self.digest(done.stdout)
        out = self.folder / "lepton-runs/test"
        for name in ("weights.safetensors", "manifest.json", "metrics.jsonl", "events.jsonl",
                     "job.json", "log.txt"):
            self.assertTrue((out / name).exists(), name)
        manifest = json.loads((out / "manifest.json").read_text())
        self.assertEqual("sha256:" + manifest["weights_sha256"], digest)
        self.assertGreater(manifest["metrics"]["test/accuracy"], 0.9)
        points = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        self.assertTrue(any(p["key"] == "train/loss" for p in points))

    def test_ranks_have_all_slots_of_their_workers_unless_the_spec_says(self):
        for asked, resources, slots in (
                (["--workers", 1, "--slots", 3], {}, 3),
                (["--workers", 2, "--slots", 2], {"max_workers": 1}, 2),
                (["--workers", 2, "--slots", 2], {"slots_per_worker": 1}, 1),
                # Two ranks on the one worker.
                (["--workers", 1, "--slots", 2], {"min_workers": 2, "max_workers": 2}, 1)):
            done = lepton("run", self.spec(epochs=1, resources=resources), *asked, cwd=self.folder)
            self.assertEqual(done.returncode, 0, done.stderr)
            job = json.loads((self.folder / "lepton-runs/test/job.json").read_text())
            self.assertEqual(job["spec"]["resources"]["slots_per_worker"], slots, asked)
            shutil.rmtree(self.folder / "lepton-runs")

    def test_same_bits_for_any_number_of_workers_and_under_mpirun(self):
        spec = self.spec(epochs=10, elastic={"logical_shards": 4}, model={"hidden": [64], "dropout": 0.1})
        digests = {}
        for workers in (1, 2, 4):
            done = lepton("run", spec, "--workers", workers, cwd=self.folder)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(f"workers={workers} ", done.stdout)
            digests[workers] = self.digest(done.stdout)
        digests["mpirun"] = self.under_mpirun(spec, 2)
        # MPI in the tasks, whose workers have used the launcher's PMIx before.
        spec.write_text(json.dumps(json.loads(spec.read_text()) | {"collectives": "mpi"}))
        digests["mpi"] = self.under_mpirun(spec, 2)
        self.assertEqual(len(set(digests.values())), 1, digests)

    def under_mpirun(self, spec, ranks):
        done = subprocess.run([*MPIRUN, "-np", str(ranks), LEPTON, "run", str(spec)], cwd=self.folder,
                              capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn(f"workers={ranks} ", done.stdout)
        return self.digest(done.stdout)

    def test_a_model_over_several_ranks_has_the_same_bits_with_mpi(self):
        text = self.folder / "fox.txt"
        text.write_text("the quick brown fox jumps over the lazy dog. " * 60)
        spec = {"kind": "train", "name": "fox", "loss": "next_token", "epochs": 3, "batch_size": 16, "seed": 3,
                "model": {"arch": "transformer", "layers": 2, "heads": 4, "width": 32},
                "dataset": {"uri": f"file://{text}", "tokenizer": "bytes", "context": 32},
                "optimizer": {"lr": 0.003}, "clip_norm": 1.0, "checkpoint": {"every_steps": 5},
                "parallel": {"tensor": 2}, "elastic": {"logical_shards": 2}}
        digests = {}
        for collectives in ("native", "mpi"):
            for ranks in (2, 4):
                path = self.folder / "fox.json"
                path.write_text(json.dumps(spec | {"collectives": collectives, "resources": {"max_workers": ranks}}))
                digests[collectives, ranks] = self.under_mpirun(path, ranks)
        self.assertEqual(len(set(digests.values())), 1, digests)

    def test_compressed_gradients_are_the_same_for_any_number_of_workers(self):
        plain = self.digest(lepton("run", self.spec(epochs=6, elastic={"logical_shards": 4}),
                                   cwd=self.folder).stdout)
        for compression in ("bf16", "low_rank"):
            spec = self.spec(epochs=6, elastic={"logical_shards": 4}, model={"hidden": [64]},
                             gradients={"compression": compression, "rank": 2, "bucket_bytes": 4096})
            digests = set()
            for workers in (1, 2, 4):
                done = lepton("run", spec, "--workers", workers, cwd=self.folder)
                self.assertEqual(done.returncode, 0, done.stderr)
                digests.add(self.digest(done.stdout))
                log = (self.folder / "lepton-runs/test/log.txt").read_text()
                self.assertRegex(log, rf"gradients as {compression}: \d+ bytes a step")
            self.assertEqual(len(digests), 1, compression)
            self.assertNotIn(plain, digests)

    def test_a_tuned_table_is_used_and_a_wrong_one_is_refused(self):
        table = self.folder / "tables/collectives.table"
        done = lepton("doctor", "--tune-collectives", "--table", table)
        self.assertEqual(done.returncode, 0, done.stderr)
        text = table.read_text()
        self.assertEqual(done.stdout, text)
        self.assertRegex(text, r"(?m)^shm 2 max shared_\w+$")
        self.assertRegex(text, r"(?m)^tcp 4 max \w+$")
        spec = self.spec(epochs=3, elastic={"logical_shards": 2})
        tuned = dict(os.environ, LEPTON_COLLECTIVES_TABLE=str(table))
        digests = set()
        for env in (None, tuned):
            done = lepton("run", spec, "--workers", 2, cwd=self.folder, env=env)
            self.assertEqual(done.returncode, 0, done.stderr)
            digests.add(self.digest(done.stdout))
        self.assertEqual(len(digests), 1)
        table.write_text(text.replace("host ", "host Another, ", 1))
        done = lepton("run", spec, "--workers", 2, cwd=self.folder, env=tuned)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("lepton doctor --tune-collectives makes a new one", done.stdout + done.stderr)

    def test_a_folder_that_a_run_left_is_evaluated_asked_trained_further_and_taught_from(self):
        done = lepton("run", self.spec(epochs=30), "--workers", 2, cwd=self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        manifest = json.loads((self.folder / "lepton-runs/test/manifest.json").read_text())

        def next_run(name, kind, **fields):
            spec = {"name": name, "kind": kind, "dataset": {"uri": f"{DATA}/digits.csv"}}
            (self.folder / f"{name}.json").write_text(json.dumps(spec | fields))
            run = lepton("run", f"{name}.json", "-o", "json", cwd=self.folder)
            self.assertEqual(run.returncode, 0, run.stderr)
            return json.loads(run.stdout.strip().splitlines()[-1])

        left = {"from": "./lepton-runs/test"}
        seen = next_run("check", "evaluate", model=left)["metrics"]
        self.assertEqual(seen["test/loss"], manifest["metrics"]["test/loss"])
        next_run("ask", "batch", model=left)
        answers = (self.folder / "lepton-runs/ask/predictions.csv").read_text().splitlines()
        self.assertGreater(len(answers), 1000)
        further = next_run("further", "train", model=left, epochs=1, register="digits")
        self.assertGreater(further["metrics"]["test/accuracy"], 0.9)
        self.assertNotEqual(further["weights_sha256"], manifest["weights_sha256"])
        small = next_run("small", "distill", teacher="lepton-runs/test", model={"hidden": [8]}, epochs=2)
        self.assertLess(small["parameters"], manifest["parameters"])

        weights = self.folder / "lepton-runs/test/weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
        broken = lepton("run", "check.json", cwd=self.folder)
        self.assertEqual(broken.returncode, 1, broken.stderr)
        self.assertIn("weights.safetensors: is not the file that manifest.json names", broken.stderr)

    def test_json_output_is_one_line_with_the_same_facts(self):
        done = lepton("run", self.spec(), "--workers", 1, "-o", "json", cwd=self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        result = json.loads(done.stdout.strip().splitlines()[-1])
        self.assertEqual(len(result["weights_sha256"]), 64)
        self.assertEqual(result["workers"], 1)
        self.assertIn("test/accuracy", result["metrics"])

    def test_a_wrong_spec_is_refused_before_anything_starts(self):
        done = lepton("run", self.spec(epochs=-1), cwd=self.folder)
        self.assertEqual(done.returncode, 2)
        self.assertIn("epochs: -1 is out of range", done.stderr)
        self.assertFalse((self.folder / "lepton-runs").exists())
        done = subprocess.run([*MPIRUN, "-np", "2", LEPTON, "run", str(self.folder / "job.yaml")],
                              cwd=self.folder, capture_output=True, text=True, timeout=60)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("epochs: -1 is out of range", done.stderr)

    def test_a_failed_job_is_the_runs_status(self):
        done = lepton("run", self.spec(epochs=500_000, deadline="1s"), "--workers", 1, cwd=self.folder)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("job FAILED: deadline: not done within 1 s", done.stderr)

    def test_what_makes_no_model_ends_as_it_does_beside_an_earlier_one(self):
        fields = {"dataset": {"uri": f"file://{DATA}/README.md", "format": "text", "tokenizer": "bytes",
                              "context": 16},
                  "model": {"arch": "transformer", "layers": 1, "heads": 2, "width": 8},
                  "loss": "next_token"}
        done = lepton("run", self.spec(epochs=1, **fields), "--workers", 1, cwd=self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        out = self.folder / "lepton-runs/test"
        weights = (out / "model/model.safetensors").read_bytes()
        failed = lepton("run", self.spec(epochs=500_000, deadline="1s", **fields), "--workers", 1,
                        cwd=self.folder)
        self.assertEqual(failed.returncode, 1, failed.stderr)
        self.assertIn("job FAILED: deadline: not done within 1 s", failed.stderr)
        stopped = subprocess.Popen([LEPTON, "run", str(self.spec(epochs=500_000, **fields)), "--workers", "1"],
                                   cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: processes("task --task run.", self.folder), 30, "the job's tasks")
        time.sleep(0.5)
        stopped.send_signal(signal.SIGINT)
        _, says = stopped.communicate(timeout=15)
        self.assertEqual(stopped.returncode, 3, says)
        self.assertRegex(says, r"`lepton run .* --resume` goes on")
        path = self.folder / "check.json"
        path.write_text(json.dumps({"name": "test", "kind": "evaluate", "dataset": fields["dataset"],
                                    "loss": "next_token", "model": {"from": "./lepton-runs/test"}}))
        seen = lepton("run", path, "--workers", 1, cwd=self.folder)
        self.assertEqual(seen.returncode, 0, seen.stderr)
        self.assertEqual((out / "model/model.safetensors").read_bytes(), weights)

    def test_a_refused_job_is_the_runs_status(self):
        done = lepton("run", self.spec(dataset={"uri": f"file://{DATA}/digits.csv", "label": "none"}),
                      cwd=self.folder)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("dataset.label", done.stderr)

    def test_tune_runs_without_a_server_too(self):
        spec = train_spec(epochs=3, register="best", search={
            "algorithm": "random", "trials": 3, "seed": 1,
            "space": {"optimizer.lr": {"loguniform": [1e-4, 1e-2]}}})
        spec["kind"] = "tune"
        path = self.folder / "tune.json"
        path.write_text(json.dumps(spec))
        done = lepton("run", path, "--workers", 2, cwd=self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("model best@1 sha256:", done.stdout)
        trials = json.loads((self.folder / "lepton-runs/test/trials.json").read_text())
        self.assertEqual(len(trials), 3)
        job = json.loads((self.folder / "lepton-runs/test/job.json").read_text())
        self.assertEqual((job["progress"]["step"], job["progress"]["total_steps"]), (3, 3))
        self.assertEqual(job["search"]["done"], 3)
        best = max(trials, key=lambda trial: trial["score"])
        self.assertEqual(job["search"]["best_score"], best["score"])
        self.assertEqual(job["search"]["best_trial"], job["best_trial"])
        self.assertEqual(trials[job["best_trial"]]["score"], best["score"])

    def test_a_search_that_is_stopped_goes_on(self):
        spec = train_spec(epochs=200, register="best", search={
            "algorithm": "random", "trials": 3, "seed": 1,
            "space": {"optimizer.lr": {"loguniform": [1e-4, 1e-2]}}})
        path, gate = self.folder / "tune.json", self.folder / "gate"
        path.write_text(json.dumps(spec | {"kind": "tune"}))
        stopped = subprocess.Popen([LEPTON, "run", str(path), "--workers", "2"], cwd=self.folder,
                                   env={**os.environ, "LEPTON_TEST_TRAIN_FAULT": f"gate@120:{gate}"},
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until((self.folder / "gate.reached").exists, 30, "step 120 of a trial")
        stopped.send_signal(signal.SIGINT)
        time.sleep(2)  # the workers are told to leave, and wait for the step's end
        gate.touch()
        _, says = stopped.communicate(timeout=15)
        self.assertEqual(stopped.returncode, 3, says)
        self.assertIn("stopped at trial 0; `lepton run", says)
        resumed = lepton("run", path, "--workers", 2, "--resume", cwd=self.folder)
        self.assertEqual(resumed.returncode, 0, resumed.stderr)
        self.assertIn("model best@1 sha256:", resumed.stdout)
        trials = json.loads((self.folder / "lepton-runs/test/trials.json").read_text())
        self.assertEqual(len(trials), 3)

    def stops_within_five_seconds(self, command, sig):
        segments = set(os.listdir("/dev/shm"))
        path = self.folder / "long.json"
        path.write_text(json.dumps(long_spec()))
        process = subprocess.Popen([*command, LEPTON, "run", str(path)], cwd=self.folder,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        marker = str(self.folder)
        wait_until(lambda: processes("task --task run.", self.folder), 30, "the job's tasks")
        time.sleep(0.5)
        begin = time.monotonic()
        process.send_signal(sig)
        process.communicate(timeout=15)
        self.assertLess(time.monotonic() - begin, 5.5)
        wait_until(lambda: not processes("task --task run.", self.folder) and not processes(marker), 3,
                   "no process is left")
        self.assertEqual({name for name in set(os.listdir("/dev/shm")) - segments
                          if "lepton" in name}, set())
        return process.returncode

    def test_a_run_that_was_stopped_goes_on_to_the_same_weights(self):
        spec = self.spec(epochs=1000)
        whole = lepton("run", spec, "--workers", 2, "--out", self.folder / "whole", cwd=self.folder)
        self.assertEqual(whole.returncode, 0, whole.stderr)
        process = subprocess.Popen([LEPTON, "run", str(spec), "--workers", "2", "--out", "my run"], cwd=self.folder,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: processes("task --task run.", self.folder), 30, "the job's tasks")
        time.sleep(0.7)
        process.send_signal(signal.SIGINT)
        _, says = process.communicate(timeout=15)
        self.assertEqual(process.returncode, 3, says)
        self.assertRegex(says, r"stopped at step \d+; `lepton run .* --resume` goes on")
        # The very command that it names.
        _, *hint = shlex.split(says.split("`")[1])
        asked = json.loads(spec.read_text())
        spec.write_text(json.dumps(asked | {"epochs": 1001}))
        another = lepton(*hint, cwd=self.folder)
        self.assertEqual(another.returncode, 1, another.stdout)
        self.assertIn("the run began with another spec (epochs: 1001 now, 1000 before)", another.stderr)
        spec.write_text(json.dumps(asked))
        resumed = lepton(*hint, cwd=self.folder)
        self.assertEqual(resumed.returncode, 0, resumed.stderr)
        self.assertEqual(self.digest(resumed.stdout), self.digest(whole.stdout))
        self.assertFalse((self.folder / "lepton-runs").exists())

    def test_a_run_that_was_killed_leaves_nothing_and_goes_on_to_the_same_weights(self):
        spec, gate = self.spec(epochs=10, checkpoint={"every_steps": 50}), self.folder / "gate"
        whole = lepton("run", spec, "--workers", 2, "--out", self.folder / "whole", cwd=self.folder)
        self.assertEqual(whole.returncode, 0, whole.stderr)
        process = subprocess.Popen([LEPTON, "run", str(spec), "--workers", "2"], cwd=self.folder,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   env={**os.environ, "LEPTON_TEST_TRAIN_FAULT": f"gate@120:{gate}"})
        wait_until((self.folder / "gate.reached").exists, 30, "step 120")
        time.sleep(1)  # checkpoints are stored beside the steps
        process.kill()
        process.wait(10)
        wait_until(lambda: not processes("task --task run.", self.folder) and not lepton_processes("", self.folder), 10,
                   "no process is left")
        resumed = lepton("run", spec, "--workers", 2, "--resume", cwd=self.folder)
        self.assertEqual(resumed.returncode, 0, resumed.stderr)
        self.assertEqual(self.digest(resumed.stdout), self.digest(whole.stdout))
        job = json.loads((self.folder / "lepton-runs/test/job.json").read_text())
        self.assertEqual([(r["restart"], r["step"] > 100) for r in job["recoveries"]], [(True, True)], job)

    def test_a_run_that_is_refused_leaves_the_stopped_one_to_go_on(self):
        spec = self.spec(epochs=500_000)
        stopped = subprocess.Popen([LEPTON, "run", str(spec), "--workers", "1"], cwd=self.folder,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: processes("task --task run.", self.folder), 30, "the job's tasks")
        time.sleep(0.7)
        stopped.send_signal(signal.SIGINT)
        _, says = stopped.communicate(timeout=15)
        self.assertEqual(stopped.returncode, 3, says)
        step = int(re.search(r"stopped at step (\d+)", says).group(1))
        self.assertGreater(step, 0)
        asked = spec.read_text()
        out = self.folder / "lepton-runs/test"
        for dataset in ({"uri": f"file://{DATA}/digits.csv", "label": "none"}, {"uri": f"{self.folder}/none.csv"}):
            spec.write_text(json.dumps(json.loads(asked) | {"dataset": dataset}))
            refused = lepton("run", spec, "--workers", 1, cwd=self.folder)
            self.assertNotEqual(refused.returncode, 0, refused.stdout)
            self.assertFalse((out / "state/earlier").exists())
        # As a kill leaves it before the job of the new run is accepted.
        parts = [part for part in (out / "state").iterdir() if part.name != "LOCK"]
        (out / "state/earlier").mkdir()
        for part in parts:
            part.rename(out / "state/earlier" / part.name)
        (out / "state/metadata").mkdir()
        spec.write_text(asked)
        resumed = subprocess.Popen([LEPTON, "run", str(spec), "--workers", "1", "--resume"], cwd=self.folder,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: processes("task --task run.", self.folder), 30, "the job's tasks")
        time.sleep(0.7)
        resumed.send_signal(signal.SIGINT)
        _, says = resumed.communicate(timeout=15)
        self.assertEqual(resumed.returncode, 3, says)
        self.assertGreater(int(re.search(r"stopped at step (\d+)", says).group(1)), step)
        self.assertIn(f"step {step}", (out / "log.txt").read_text())
        # One that begins anew has made place for itself, for good.
        begun = lepton("run", self.spec(epochs=1), "--workers", 1, cwd=self.folder)
        self.assertEqual(begun.returncode, 0, begun.stderr)
        self.assertFalse((out / "state/earlier").exists() or (out / "state/dropped").exists())

    def test_a_run_that_is_refused_leaves_a_folder_as_it_was(self):
        (self.folder / "mine").mkdir()
        (self.folder / "mine/notes.txt").write_text("mine")
        done = lepton("run", self.spec(dataset={"uri": f"{self.folder}/none.csv"}), "--workers", 1, "--out", "mine",
                      cwd=self.folder)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual([path.name for path in (self.folder / "mine").iterdir()], ["notes.txt"])

    def test_resume_needs_a_run_unless_it_may_begin_one(self):
        spec = self.spec(epochs=1)
        done = lepton("run", spec, "--workers", 1, "--resume", cwd=self.folder)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn(f"there is no run in {self.folder}/lepton-runs/test to go on with", done.stderr)
        self.assertFalse((self.folder / "lepton-runs").exists())
        begun = lepton("run", spec, "--workers", 1, "--resume-if-any", cwd=self.folder)
        self.assertEqual(begun.returncode, 0, begun.stderr)
        # The workers that the first one chose are no difference.
        for flags in (["--resume"], ["--resume-if-any"], ["--resume", "--resume-if-any"]):
            again = lepton("run", spec, "--workers", 2, *flags, cwd=self.folder)
            self.assertEqual(again.returncode, 0, again.stderr)
            self.assertEqual(self.digest(again.stdout), self.digest(begun.stdout))

    def test_what_no_run_made_is_left_alone(self):
        notes = self.folder / "o/state/notes.txt"
        notes.parent.mkdir(parents=True)
        notes.write_text("mine")
        for flags in ([], ["--resume-if-any"]):
            done = lepton("run", self.spec(epochs=1), "--out", "o", *flags, cwd=self.folder)
            self.assertEqual(done.returncode, 1, done.stdout)
            self.assertIn("notes.txt: no run made this", done.stderr)
            self.assertEqual(notes.read_text(), "mine")
        # Nor is another coordinator's data folder taken for a run's.
        notes.rename(notes.parent / "coordinator.json")
        self.assertEqual(lepton("run", self.spec(epochs=1), "--out", "o", cwd=self.folder).returncode, 1)
        (notes.parent / "coordinator.json").unlink()
        for _ in range(2):  # an empty folder, and that of a run that died as it began
            done = lepton("run", self.spec(epochs=1), "--out", "o", cwd=self.folder)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertFalse((notes.parent / "pool.key.tmp.1.1").exists())
            (notes.parent / "pool.key.tmp.1.1").write_text("half a key")

    def test_checkpoints_that_were_superseded_are_gone_at_the_end(self):
        done = lepton("run", self.spec(epochs=25, model={"hidden": [256]}, checkpoint={"every_steps": 10}),
                      "--workers", 1, cwd=self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        out = self.folder / "lepton-runs/test"
        log = (out / "log.txt").read_text()
        self.assertGreater(log.count("durable"), 40, log)
        weights = (out / "weights.safetensors").stat().st_size
        left = sum(path.stat().st_size for path in (out / "state/objects").rglob("*") if path.is_file())
        data = (DATA / "digits.csv").stat().st_size * 4  # and as the coordinator has it
        self.assertLess(left, data + 4 * 3 * weights)

    def test_results_replace_nothing_that_no_run_made(self):
        for name in ("log.txt", "manifest.json", "model"):
            (self.folder / name).write_text("mine")
            done = lepton("run", self.spec(epochs=1), "--workers", 1, "--out", ".", cwd=self.folder)
            self.assertEqual(done.returncode, 1, done.stdout)
            self.assertIn(f"/{name}: no run made this, and the results would replace it", done.stderr)
            self.assertEqual((self.folder / name).read_text(), "mine")
            self.assertEqual({path.name for path in self.folder.iterdir()}, {"job.yaml", name})
            (self.folder / name).unlink()
        for _ in range(2):
            done = lepton("run", self.spec(epochs=1), "--workers", 1, "--out", ".", cwd=self.folder)
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_results_do_not_replace_what_the_spec_begins_with(self):
        spec = self.spec(epochs=1, dataset={"uri": f"file://{DATA}/README.md", "format": "text", "tokenizer": "bytes",
                                            "context": 16},
                         model={"arch": "transformer", "layers": 1, "heads": 2, "width": 8}, loss="next_token")
        done = lepton("run", spec, "--workers", 1, cwd=self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        out = self.folder / "lepton-runs/test"
        before = {name: (out / name).read_bytes() for name in ("weights.safetensors", "model/model.safetensors")}
        asked = json.loads(spec.read_text())
        for model in ({"hf": str(out / "model")}, {"from": str(out)}):
            spec.write_text(json.dumps(asked | {"model": model}))
            done = lepton("run", spec, "--workers", 1, cwd=self.folder)
            self.assertEqual(done.returncode, 1, done.stdout)
            self.assertIn("the spec names it, and the results would replace it", done.stderr)
            for name, bytes_before in before.items():
                self.assertEqual((out / name).read_bytes(), bytes_before)

    def test_specs_without_a_name_have_their_files_name(self):
        for name in ("one", "two"):
            spec = train_spec(epochs=1)
            del spec["name"]
            (self.folder / f"{name}.yaml").write_text(json.dumps(spec))
            done = lepton("run", f"{name}.yaml", "--workers", 1, cwd=self.folder)
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual({path.name for path in (self.folder / "lepton-runs").iterdir()}, {"one", "two"})

    def test_a_folder_is_one_runs_at_a_time(self):
        spec = self.folder / "long.json"
        spec.write_text(json.dumps(long_spec()))
        first = subprocess.Popen([LEPTON, "run", str(spec), "--workers", "1"], cwd=self.folder,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            wait_until(lambda: processes("task --task run.", self.folder), 30, "the job's tasks")
            for flags in ([], ["--resume"]):
                second = lepton("run", spec, "--workers", 1, *flags, cwd=self.folder)
                self.assertEqual(second.returncode, 1, second.stdout)
                self.assertIn(f"another run uses {self.folder}/lepton-runs/test", second.stderr)
            self.assertIsNone(first.poll())
        finally:
            first.send_signal(signal.SIGINT)
            _, says = first.communicate(timeout=30)
        self.assertEqual(first.returncode, 3, says)

    def test_a_refused_run_leaves_nothing_behind(self):
        done = lepton("run", self.spec(dataset={"uri": "file:///nowhere/none.csv", "label": "x"}),
                      cwd=self.folder)
        self.assertNotEqual(done.returncode, 0)
        self.assertFalse((self.folder / "lepton-runs").exists())

    def test_ctrl_c_stops_everything_within_five_seconds(self):
        self.assertEqual(self.stops_within_five_seconds([], signal.SIGINT), 3)

    def test_sigterm_of_mpirun_stops_everything_within_five_seconds(self):
        self.stops_within_five_seconds([*MPIRUN, "-np", "2"], signal.SIGTERM)


if __name__ == "__main__":
    main()
