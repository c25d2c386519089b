#!/usr/bin/env python3
"""The command line as a person meets it: help, errors, formats, streams."""
import json
import pathlib
import re
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import (Cluster, ClusterTest, DATA, LEPTON, lepton, long_spec, main, train_spec,  # noqa: E402
                     wait_until)

VERBS = ("run coordinator worker submit ps describe logs watch fetch cancel data model deploy predict key "
         "doctor completion").split()


class Help(unittest.TestCase):
    def test_every_verb_has_help_and_the_hidden_one_is_hidden(self):
        top = lepton("--help")
        self.assertEqual(top.returncode, 0)
        for verb in VERBS:
            self.assertRegex(top.stdout, rf"\n  {verb} ")
            done = lepton(verb, "--help")
            self.assertEqual(done.returncode, 0, verb)
            self.assertGreater(len(done.stdout), 100, verb)
        self.assertNotRegex(top.stdout, r"\n  task ")

    def test_bad_usage_is_status_2(self):
        for arguments in ((), ("fly",), ("submit",), ("ps", "--no-such"), ("predict", "x"),
                          ("ps", "-o", "xml"), ("key", "create", "--scope", "god")):
            self.assertEqual(lepton(*arguments).returncode, 2, arguments)

    def test_completion_is_valid_shell_and_knows_the_verbs(self):
        script = lepton("completion").stdout
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        complete = subprocess.run(
            ["bash", "-c", script + "\nCOMP_WORDS=(lepton de) COMP_CWORD=1; _lepton; echo ${COMPREPLY[@]}"],
            capture_output=True, text=True, check=True).stdout.split()
        self.assertEqual(sorted(complete), ["deploy", "describe"])

    def test_version(self):
        self.assertRegex(lepton("--version").stdout, r"lepton \d+\.\d+\.\d+")


class Verbs(ClusterTest):
    def cli(self, *args, status=0):
        done = lepton(*args, "--coordinator", self.cluster.url)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout if status == 0 else done.stderr

    def spec(self, name, **fields):
        path = self.cluster.folder / f"{name}.json"
        path.write_text(json.dumps(train_spec(name=name, **fields)))
        return path

    def test_from_data_to_prediction(self):
        self.assertIn("digits@1: csv, 1797 rows, 65 columns", self.cli("data", "add", "digits", DATA / "digits.csv"))
        self.assertIn("digits", self.cli("data", "ls"))
        profile = json.loads(self.cli("data", "profile", "digits", "-o", "json"))
        self.assertEqual(profile["rows"], 1797)
        out = self.cli("submit", "--wait", self.spec("first", dataset="digits", register="digits",
                                                     epochs=20))
        self.assertRegex(out, r"model digits@1 sha256:[0-9a-f]{64} workers=1 steps=\d+")
        self.assertIn("digits", self.cli("model", "ls"))
        shown = json.loads(self.cli("model", "show", "digits@1", "-o", "json"))
        self.assertEqual(shown["lineage"]["dataset"], "digits@1")
        alias = json.loads(self.cli("model", "alias", "digits@1", "prod", "-o", "json"))
        self.assertEqual(alias["aliases"], {"prod": 1})
        folder = self.cluster.folder / "pulled"
        self.cli("model", "pull", "digits@prod", folder)
        self.assertTrue((folder / "weights.safetensors").stat().st_size > 1000)
        self.assertIn("2", self.cli("deploy", "digits", "--model", "digits@prod", "--replicas", 2))
        table = self.cli("predict", "digits", "--input", DATA / "digits.csv", "--limit", 3)
        self.assertEqual(len(table.strip().splitlines()), 4)
        labels = [p["label"] for p in json.loads(
            self.cli("predict", "digits", "--input", DATA / "digits.csv", "-o", "json"))]
        truth = [line.rsplit(",", 1)[1] for line in (DATA / "digits.csv").read_text().splitlines()[1:]]
        right = sum(a == b for a, b in zip(labels, truth)) / len(truth)
        self.assertGreater(right, 0.95)
        error = self.cli("predict", "digits", "--row", '{"pixel_0_0": 1, "pixle_0_1": 2}', status=2)
        self.assertIn("pixle_0_1", error)
        scaled = json.loads(self.cli("deploy", "scale", "digits", 1, "-o", "json"))
        self.assertEqual(scaled["replicas"], 1)
        gone = self.cli("deploy", "rm", "digits", "-o", "yaml")
        self.assertEqual(gone, "name: digits\nstate: DELETED\n")
        self.assertNotIn("digits", self.cli("deploy", "ls"))
        # The name is free at once, also for workers that remember the first one's replicas.
        self.cli("deploy", "digits", "--model", "digits@prod")
        self.assertIn("LABEL", self.cli("predict", "digits", "--input", DATA / "digits.csv", "--limit", 1))
        self.assertIn("digits", self.cli("deploy", "rm", "digits", "--no-wait"))
        wait_until(lambda: "digits" not in self.cli("deploy", "ls"), 20, "the deployment's end")

    def test_jobs_are_listed_described_logged_watched_and_cancelled(self):
        spec = self.cluster.folder / "long.json"
        spec.write_text(json.dumps(long_spec(name="long")))
        job_id = self.cli("submit", spec).split()[1]
        self.cluster.wait_step(job_id, 5)
        self.assertRegex(self.cli("ps"), rf"{job_id} +long +train +RUNNING")
        described = self.cli("describe", job_id)
        for text in ("TASKS", "EVENTS", "RUNNING", "train/loss"):
            self.assertIn(text, described)
        self.assertIn("state: RUNNING", self.cli("describe", job_id, "-o", "yaml"))
        cancelled = json.loads(self.cli("cancel", job_id, "-o", "json"))
        self.assertEqual([job["id"] for job in cancelled], [job_id])
        watched = lepton("watch", job_id, "--coordinator", self.cluster.url)
        self.assertEqual(watched.returncode, 3)
        self.assertRegex(watched.stderr, rf"job {job_id} CANCELLED: .+")
        logs = self.cli("logs", "-f", job_id)
        self.assertIsInstance(logs, str)

    def test_unknown_things_are_named(self):
        self.assertIn("nope", self.cli("describe", "nope", status=1))
        self.assertIn("nope", self.cli("deploy", "x", "--model", "nope", status=1))
        self.assertIn("nope", self.cli("data", "profile", "nope", status=1))
        missing = self.cli("submit", "/no/such/file.yaml", status=2)
        self.assertIn("/no/such/file.yaml", missing)

    def test_a_wrong_url_is_said_at_once_and_so_is_a_wrong_config_file(self):
        for verb in (("watch", "j1"), ("logs", "-f", "j1")):
            begin = time.monotonic()
            done = lepton(*verb, "--coordinator", "http://127.0.0.1:1")
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn("no coordinator at http://127.0.0.1:1", done.stderr)
            self.assertLess(time.monotonic() - begin, 10)
        (self.cluster.folder / "lepton").mkdir()
        (self.cluster.folder / "lepton/config.yaml").write_text("current: [")
        done = lepton("ps", env={"XDG_CONFIG_HOME": str(self.cluster.folder)})
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn(f"{self.cluster.folder}/lepton/config.yaml: ", done.stderr)

    def test_results_are_fetched_into_a_new_folder(self):
        self.cli("submit", "--wait", self.spec("made", epochs=2), "--id", "made")
        self.assertIn("was submitted before", self.cli("submit", "--wait", self.spec("made", epochs=2), "--id", "made"))
        out = self.cluster.folder / "fetched"
        self.cli("fetch", "made", out)
        for name in ("job.json", "log.txt", "weights.safetensors", "manifest.json", "metrics.jsonl"):
            self.assertTrue((out / name).exists(), name)
        (out / "weights.safetensors").write_text("mine")
        self.assertIn("is there and not empty", self.cli("fetch", "made", out, status=1))
        self.assertEqual((out / "weights.safetensors").read_text(), "mine")

    def test_a_worker_names_a_folder_for_temporaries_that_is_not_there(self):
        empty = self.cluster.folder / "empty"
        empty.mkdir()
        worker = lepton("worker", "--join", self.cluster.data, env={"TMPDIR": "/nonexistent"}, cwd=empty)
        self.assertEqual(worker.returncode, 1, worker.stderr)
        self.assertIn("TMPDIR: /nonexistent/", worker.stderr)
        self.assertEqual(list(empty.iterdir()), [])

    def test_a_context_that_is_none_is_none(self):
        home = self.cluster.folder / "home"
        (home / "lepton").mkdir(parents=True)
        for current, says in (("", None), ("[a]", f"{home}/lepton/config.yaml: current: must name a context")):
            (home / "lepton/config.yaml").write_text(f"current: {current}\ncontexts: {{}}\n")
            done = lepton("ps", "--coordinator", self.cluster.url, env={"XDG_CONFIG_HOME": str(home)})
            self.assertEqual(done.returncode, 2 if says else 0, done.stderr)
            self.assertIn(says or "", done.stderr)

    def test_workers_of_other_hosts_are_told_an_address_of_this_one(self):
        cluster = Cluster(workers=0, coordinator_args=["--link-address", "0.0.0.0"])
        self.addCleanup(cluster.stop)
        link = json.loads((cluster.data / "coordinator.json").read_text())["link"]
        self.assertNotIn("127.0.0.1", link)
        self.assertNotIn("0.0.0.0", link)
        cluster.start_worker("here")
        cluster.wait_for_workers(1)

    def test_a_worker_waits_for_a_coordinator_that_starts_again(self):
        cluster = Cluster(workers=0)
        self.addCleanup(cluster.stop)
        cluster.coordinator.terminate()
        self.assertEqual(cluster.coordinator.wait(20), 0)
        worker = cluster.start_worker("early")
        log = cluster.folder / "worker-early.log"
        wait_until(lambda: "waiting for the coordinator" in log.read_text(), 20, "the worker to wait")
        self.assertIsNone(worker.poll())
        cluster.start_coordinator()
        cluster.wait_for_workers(1)

    def test_rows_that_are_none_are_named(self):
        for row in ("5", "[1]", '{"rows": [3]}', "{"):
            self.assertIn("--row: ", self.cli("predict", "digits", "--row", row, status=2))
        self.assertIn("--limit", self.cli("predict", "digits", "--row", "{}", "--limit", -3, status=2))

    def test_a_datasets_path_may_have_any_characters(self):
        odd = self.cluster.folder / "a%b c"
        odd.mkdir()
        (odd / "t.csv").write_text("a,target\n1,x\n2,y\n")
        self.assertIn("odd@1: csv, 2 rows", self.cli("data", "add", "odd", "--uri", odd / "t.csv"))

    def test_a_key_may_last_for_ever(self):
        cluster = Cluster(workers=0)
        try:
            made = lepton("key", "create", "--ttl", "0", "-o", "json", "--coordinator", cluster.url)
            self.assertEqual(made.returncode, 0, made.stderr)
            self.assertEqual(json.loads(made.stdout)["expires_ms"], 0)
        finally:
            cluster.stop()

    def test_a_limit_of_0_is_none_and_a_lease_needs_time(self):
        cluster = Cluster(workers=0, coordinator_args=("--max-body", "0", "--history-age", "0"))
        try:
            self.assertEqual(cluster.call("POST", "/v1/jobs?dry_run=1", train_spec())[0], 200)
        finally:
            cluster.stop()
        refused = lepton("coordinator", "--data-dir", self.cluster.folder / "none", "--http-port", 0, "--link-port",
                         0, "--lease", "0s", "--heartbeat", "0s", timeout=20)
        self.assertEqual(refused.returncode, 2, refused.stderr)
        self.assertIn("heartbeat: must be at least 10ms", refused.stderr)

    def test_doctor_looks_at_the_machine_and_the_coordinator(self):
        checks = {c["check"]: c for c in json.loads(self.cli("doctor", "-o", "json"))}
        self.assertEqual(checks["coordinator"]["state"], "ok")
        self.assertEqual(checks["collectives native"]["state"], "ok")
        self.assertNotIn("LEPTON_CPU_ISA", checks["cpu"]["detail"])

    def test_doctor_says_what_limits_the_kernels(self):
        for isa, words in (("avx2", "no more than LEPTON_CPU_ISA=avx2"), ("mmx", "'mmx' is no instruction set")):
            done = lepton("doctor", "-o", "json", "--coordinator", self.cluster.url,
                          env={"LEPTON_CPU_ISA": isa})
            cpu = next(c for c in json.loads(done.stdout) if c["check"] == "cpu")
            self.assertEqual(cpu["state"], "warn", cpu)
            self.assertIn(words, cpu["detail"])


if __name__ == "__main__":
    main()
