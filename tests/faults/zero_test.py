#!/usr/bin/env python3
"""A training state in slices (parallel.zero) under real deaths: a rank's buddy goes on with what it
mirrors, from memory; both of a pair at once are a restart from the checkpoint, which says so. The
weights are those of a calm run with the whole state on one rank, bit for bit."""
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import elastic_test  # noqa: E402
from chaos_run import check_in_place, faults_of  # noqa: E402
from cluster import FINAL, lepton, main, train_spec, wait_until  # noqa: E402

STAGES = [int(s) for s in os.environ.get("LEPTON_ZERO_STAGES", "1,2,3").split(",")]
MODEL = {"hidden": [400, 256]}  # eight blocks of the norm: two stripes, of which four ranks have slices
GRADIENTS = {"bucket_bytes": 65536}


def zero_spec(stage, high=4, **fields):
    fields.setdefault("clip_norm", 1.0)
    fields.setdefault("epochs", 80)
    spec = elastic_test.elastic_spec(1, high, **fields)
    return spec | {"model": MODEL, "gradients": GRADIENTS, "parallel": {"zero": stage}}


class ZeroTest(elastic_test.ElasticTest):
    calm = None

    def calm_digest(self):
        if ZeroTest.calm is None:
            job = self.cluster.wait_job(self.cluster.submit(zero_spec(0, high=1)))
            self.assertEqual(job["state"], "SUCCEEDED", job)
            ZeroTest.calm = job["result"]["weights_sha256"]
        return ZeroTest.calm

    def start_stage(self, stage, ranks=4, **fields):
        job_id = self.cluster.submit(zero_spec(stage, **fields))
        wait_until(lambda: len(self.alive(job_id)) >= ranks and
                   self.cluster.job(job_id)["progress"]["step"] > 0, 20, "the first steps")
        return job_id


class Buddies(ZeroTest):
    def test_one_death_after_another_costs_neither_restart_nor_bits(self):
        for stage in STAGES:
            job_id = self.start_stage(stage)
            kills = self.kill_one_after_another(job_id, times=3, pause=0.2)
            job = self.finish(job_id)
            self.assertGreaterEqual(kills, 2, "the run is too short for this test")
            self.assertIn("rank0/optimizer_bytes", job["result"]["metrics"])

    def test_one_of_each_pair_at_once(self):
        for stage in STAGES[-1:]:
            job_id = self.start_stage(stage)
            alive = self.alive(job_id)  # buddies are half the gang apart: 0 and 2, 1 and 3
            for victim in alive[:2]:
                os.kill(victim["pid"], signal.SIGKILL)
            self.recovered(job_id, 1)
            self.finish(job_id)

    def test_both_of_a_pair_at_once_go_on_from_the_checkpoint_and_say_so(self):
        for stage in STAGES:
            job_id = self.start_stage(stage, checkpoint={"every_steps": 20})
            wait_until(lambda: len(self.cluster.items(f"/v1/jobs/{job_id}/checkpoints")) > 0, 20, "a checkpoint")
            alive = self.alive(job_id)
            # Stopped first: neither can take on what the other has before both are dead.
            for sig in (signal.SIGSTOP, signal.SIGKILL):
                for rank in (1, 3):
                    os.kill(alive[rank]["pid"], sig)
            job = self.cluster.wait_job(job_id, timeout=90)
            self.assertEqual(job["state"], "SUCCEEDED", job)
            self.assertEqual(job["result"]["weights_sha256"], self.calm_digest())
            events = self.cluster.get(f"/v1/jobs/{job_id}/events")["items"]
            told = [e for e in events if "both buddies: going on from the last checkpoint" in e["message"]]
            self.assertEqual(job["attempt"], 2, events)
            self.assertEqual([r["restart"] for r in job["recoveries"]].count(True), 1, job["recoveries"])
            self.assertTrue(told, events)
            print(told[0]["message"], flush=True)

    def test_a_join_and_a_drain(self):
        for stage in STAGES[-1:]:
            job_id = self.start_stage(stage)
            os.kill(self.alive(job_id)[3]["pid"], signal.SIGKILL)  # its seat is taken again: a join
            wait_until(lambda: any(r["reason_code"] == "RANK_JOINS" for r in
                                   self.cluster.job(job_id).get("recoveries", [])) or
                       self.cluster.job(job_id)["state"] in FINAL, 20, "a join")
            self.cluster.start_worker(f"spare{stage}")
            self.cluster.call("POST", f"/v1/workers/w{stage}:drain")
            job = self.finish(job_id)
            self.assertTrue(any(r["reason_code"] == "RANK_JOINS" for r in job["recoveries"]), job)


class ZeroChaos(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="lepton-zero."))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder, ignore_errors=True)

    def run_it(self, stage, *args, **fields):
        path = self.folder / f"job{stage}.json"
        path.write_text(json.dumps(train_spec(
            model=MODEL, epochs=60, clip_norm=1.0, checkpoint={"every_steps": 100},
            resources={"min_workers": 1, "max_workers": 4},
            elastic={"logical_shards": 8, "recovery_budget": "1s"},
            restart={"max": 20, "backoff": "50ms"}, gradients=GRADIENTS, parallel={"zero": stage}) | fields))
        done = lepton("run", path, *args, cwd=self.folder, timeout=120)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return re.search(r"sha256:(\w+)", done.stdout).group(1), done

    def test_any_schedule_ends_with_the_undisturbed_weights(self):
        restarts = 0
        for stage, fields in ((1, {}), (2, {"precision": "bf16", "accumulate": 2}), (3, {}),
                              (3, {"precision": "bf16", "accumulate": 2})):
            calm = self.run_it(0, "--workers", 1, **fields)[0]
            digest, done = self.run_it(stage, "--workers", 4, "--slots", 1, "--chaos", "seed=5", **fields)
            self.assertEqual(digest, calm, done.stdout)
            recoveries, restarted = check_in_place(self, self.folder / "lepton-runs/test", done)
            restarts += restarted
            faults = len(faults_of(done))
            self.assertGreater(faults, 2)
            print(f"stage {stage} {fields}: {faults} faults, {recoveries} recoveries", flush=True)
        self.assertLessEqual(restarts, 1, "both buddies, again and again")


if __name__ == "__main__":
    main()
