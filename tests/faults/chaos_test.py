#!/usr/bin/env python3
"""Seeded schedules of kills, stops, pauses, leaves and drains on `lepton run --chaos`: every one ends in its first
attempt, by recoveries in place, with the digest, or the file, of the undisturbed run. chaos_pool_test.py hurts workers
and the coordinator, too. LEPTON_CHAOS_SEEDS=100 runs more of them; a failure names its seed."""
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from chaos_run import check_in_place, faults_of  # noqa: E402
from cluster import DATA, lepton, main, train_spec  # noqa: E402

SEEDS = int(os.environ.get("LEPTON_CHAOS_SEEDS", "4"))
GPT = {"kind": "train", "name": "gpt", "loss": "next_token", "epochs": 50, "batch_size": 16, "seed": 3,
       "model": {"arch": "transformer", "style": "gpt2", "layers": 2, "heads": 4, "width": 32, "dropout": 0.1},
       "dataset": {"uri": "fox.txt", "tokenizer": "bytes", "context": 32}, "optimizer": {"lr": 0.003},
       "clip_norm": 1.0, "checkpoint": {"every_steps": 1000}, "resources": {"min_workers": 1, "max_workers": 4},
       "elastic": {"logical_shards": 8, "recovery_budget": "1s"}, "restart": {"max": 20, "backoff": "50ms"}}


class Chaos(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="lepton-chaos."))
        cls.spec = cls.folder / "job.json"
        cls.spec.write_text(json.dumps(train_spec(
            model={"hidden": [128, 128]}, epochs=150, checkpoint={"every_steps": 1000},
            resources={"min_workers": 1, "max_workers": 4},
            elastic={"logical_shards": 8, "recovery_budget": "1s"},
            restart={"max": 20, "backoff": "50ms"})))
        cls.calm = cls.run_it("--workers", 1)[0]

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder, ignore_errors=True)

    @classmethod
    def run_it(cls, *args, spec=None):
        done = lepton("run", spec or cls.spec, *args, cwd=cls.folder, timeout=120)
        if done.returncode != 0:
            raise AssertionError(f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return re.search(r"sha256:(\w+)", done.stdout).group(1), done

    def test_any_schedule_ends_with_the_undisturbed_weights(self):
        faults = drains = restarts = 0
        for seed in range(1, SEEDS + 1):
            with self.subTest(seed=seed):
                digest, done = self.run_it("--workers", 4, "--slots", 1, "--chaos", f"seed={seed}")
                self.assertEqual(digest, self.calm, done.stdout)
                recoveries, restarted = check_in_place(self, self.folder / "lepton-runs/test", done)
                restarts += restarted
                faults += len(faults_of(done))
                self.assertNotIn("chaos: drain: ", done.stderr)  # one that was refused
                drains += faults_of(done).count("drain")
                print(f"seed {seed}: {len(faults_of(done))} faults, {recoveries} recoveries", flush=True)
        self.assertGreater(faults, 2 * SEEDS)
        self.assertGreater(drains, 0)
        self.assertLessEqual(restarts, max(1, SEEDS // 10))

    def test_a_gpt_with_dropout_ends_with_the_undisturbed_weights_and_prints_its_ledger(self):
        (self.folder / "fox.txt").write_text("the quick brown fox jumps over the lazy dog. " * 60)
        spec = self.folder / "gpt.json"
        spec.write_text(json.dumps(GPT))
        calm, done = self.run_it("--workers", 4, "--slots", 1, spec=spec)
        self.assertNotIn("EPOCH", done.stdout)
        digest, done = self.run_it("--workers", 4, "--slots", 1, "--chaos", "seed=7", spec=spec)
        self.assertEqual(digest, calm, done.stdout)
        check_in_place(self, self.folder / "lepton-runs/gpt", done)
        head, *entries = done.stdout.split("results in")[0].splitlines()
        self.assertEqual(head.split(), ["HOW", "EPOCH", "REASON", "RANKS", "STEP", "DETECT", "AGREE", "REBUILD",
                                        "RESTORE", "COMMIT", "TOTAL", "CAUSE"])
        for entry in entries:
            self.assertRegex(entry, r"^in place +\d+  [A-Z_]+ +\d+ +\d+ +(\d+\.\d ms +){6}\S")
        # Seed 7 has a drain, three deaths, a lasting stop, a pause and a leave.
        for reason in ("RANK_LOST", "HUNG", "RANK_LEAVES", "RANK_JOINS"):
            self.assertIn(reason, [entry.split()[3] for entry in entries], done.stdout)

    def ask(self, rows, *args):
        """The file of a batch prediction of so many rows, and its run."""
        lines = (DATA / "digits.csv").read_text().splitlines()
        data = [lines[0], *(lines[1 + i % (len(lines) - 1)] for i in range(rows))]
        (self.folder / "ask.csv").write_text("\n".join(data) + "\n")
        (self.folder / "ask.json").write_text(json.dumps({
            "kind": "batch", "name": "ask", "model": {"from": "lepton-runs/asked"}, "dataset": {"uri": "ask.csv"},
            "output": {"format": "csv", "shard_rows": 256}, "resources": {"min_workers": 1, "max_workers": 4},
            "elastic": {"recovery_budget": "1s"}, "restart": {"max": 20, "backoff": "50ms"}}))
        shutil.rmtree(self.folder / "lepton-runs/ask", ignore_errors=True)
        done = lepton("run", self.folder / "ask.json", *args, cwd=self.folder, timeout=120)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return (self.folder / "lepton-runs/ask/predictions.csv").read_bytes(), done

    def test_a_batch_predictions_file_is_that_of_the_undisturbed_run(self):
        spec = self.folder / "asked.json"
        spec.write_text(json.dumps(train_spec(name="asked", model={"hidden": [1024, 1024]}, epochs=1)))
        self.run_it("--workers", 1, spec=spec)
        probe = self.ask(20_000, "--workers", 2)[1]
        rows = int(4 * 20_000 / float(re.search(r" seconds=([0-9.]+)", probe.stdout).group(1)))
        calm = self.ask(rows, "--workers", 1)[0]
        self.assertEqual(calm.count(b"\n"), rows + 1)
        faults = 0
        for seed in range(1, min(SEEDS, 10) // 2 + 1):
            with self.subTest(seed=seed):
                hurt, done = self.ask(rows, "--workers", 4, "--slots", 1, "--chaos", f"seed={seed}")
                self.assertTrue(hurt == calm, done.stdout + done.stderr)
                check_in_place(self, self.folder / "lepton-runs/ask", done)
                faults += len(faults_of(done))
        self.assertGreater(faults, 3)

    def with_gradients(self, **gradients):
        spec = json.loads(self.spec.read_text()) | {"name": "compressed", "gradients": gradients}
        path = self.folder / "compressed.json"
        path.write_text(json.dumps(spec))
        return path

    def accuracy(self, done):
        return float(re.search(r"validation/accuracy=([0-9.]+)", done.stdout).group(1))

    def test_gradients_as_bf16_end_with_the_undisturbed_weights(self):
        spec = self.with_gradients(compression="bf16", bucket_bytes=16384)
        calm = self.run_it("--workers", 1, spec=spec)[0]
        self.assertNotEqual(calm, self.calm)
        digest, done = self.run_it("--workers", 4, "--slots", 1, "--chaos", "seed=3", spec=spec)
        self.assertEqual(digest, calm, done.stdout)
        check_in_place(self, self.folder / "lepton-runs/compressed", done)
        self.assertGreater(len(faults_of(done)), 2)

    # Residuals begin anew with each group; that the ranks then agree, the digest of the parameters
    # that rides on each step shows: without it the job would fail as DIVERGED.
    def test_low_rank_gradients_go_on_with_equal_weights_and_learn(self):
        spec = self.with_gradients(compression="low_rank", rank=2, bucket_bytes=16384)
        calm = self.run_it("--workers", 1, spec=spec)[1]
        _, done = self.run_it("--workers", 4, "--slots", 1, "--chaos", "seed=3", spec=spec)
        check_in_place(self, self.folder / "lepton-runs/compressed", done)
        self.assertGreater(len(faults_of(done)), 2)
        self.assertNotIn("DIVERGED", done.stdout + done.stderr)
        self.assertGreater(self.accuracy(done), self.accuracy(calm) - 0.03)

    def test_a_wrong_plan_is_refused(self):
        for plan in ("7", "seed=x", "faults=3", "seed=1,faults=-1"):
            done = lepton("run", self.spec, "--chaos", plan, cwd=self.folder)
            self.assertNotEqual(done.returncode, 0, plan)
            self.assertIn("--chaos", done.stderr)


if __name__ == "__main__":
    main()
