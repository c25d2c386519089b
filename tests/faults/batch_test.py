#!/usr/bin/env python3
"""A batch prediction whose ranks die, hang, leave and join, and whose coordinator is killed: the living ranks go
on, and the file has the bytes of the undisturbed run."""
import os
import random
import re
import signal
import sys
import time
import pathlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import DATA, ClusterTest, FINAL, lepton, main, wait_until  # noqa: E402

SHARD_ROWS = 256
LASTS_S = 10  # on two workers


class BatchTest(ClusterTest):
    workers, slots = 3, 1
    calm = None

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cluster.train(model={"hidden": [2048, 2048, 2048]}, epochs=1)
        rows = cls.rows(40 * SHARD_ROWS)
        probe = cls.cluster.wait_job(cls.cluster.submit(cls.spec(rows, max_workers=2)))
        rate = len(rows) / probe["result"]["metrics"]["seconds"]
        cls.data = cls.rows(max(60 * SHARD_ROWS, int(rate * LASTS_S) // SHARD_ROWS * SHARD_ROWS + 17))
        job = cls.cluster.wait_job(cls.cluster.submit(cls.spec(cls.data, max_workers=2)), timeout=120)
        cls.calm = cls.file_of(job)
        print(f"{len(cls.data)} rows, undisturbed {job['result']['metrics']['seconds']:.1f} s", flush=True)

    @classmethod
    def rows(cls, count):
        lines = (DATA / "digits.csv").read_text().splitlines()[1:]
        return [lines[i % len(lines)] for i in range(count)]

    @classmethod
    def spec(cls, rows, **resources):
        path = cls.cluster.folder / f"ask-{len(rows)}.csv"
        if not path.exists():
            header = (DATA / "digits.csv").read_text().splitlines()[0]
            path.write_text("\n".join([header, *rows]) + "\n")
        return {"kind": "batch", "model": "digits@1", "dataset": {"uri": f"file://{path}"},
                "output": {"format": "csv", "shard_rows": SHARD_ROWS},
                # So that nobody is killed for hanging: others do what a stopped rank has.
                "elastic": {"recovery_budget": "60s"}, "restart": {"max": 8, "backoff": "100ms"},
                "resources": {"min_workers": 1, **resources}}

    @classmethod
    def file_of(cls, job):
        if job["state"] != "SUCCEEDED":
            raise AssertionError(job)
        return cls.cluster.call("GET", f"/v1/jobs/{job['id']}/files/predictions.csv")[1]

    def start(self, max_workers=4, ranks=3):
        job_id = self.cluster.submit(self.spec(self.data, max_workers=max_workers))
        wait_until(lambda: self.cluster.job(job_id).get("shards", {}).get("done", 0) >= 3 and
                   len(self.alive(job_id)) >= ranks, 30, "the first shards")
        return job_id

    def alive(self, job_id):
        return [t for t in self.cluster.job(job_id)["tasks"] if t["state"] == "STARTED"]

    def at_shard(self, job_id, count):
        return wait_until(lambda: (lambda j: j if j["state"] in FINAL or j["shards"]["done"] >= count
                                   else None)(self.cluster.job(job_id)), 60, f"shard {count}")

    def shards_done(self):
        """Of all jobs that the coordinator knows."""
        ids = [job["id"] for job in self.cluster.items("/v1/jobs?limit=1000")]
        return sum(self.cluster.job(one).get("shards", {}).get("done", 0) for one in ids)

    def finish(self, job_id, attempt=1):
        job = self.cluster.wait_job(job_id, timeout=120)
        self.assertEqual(job["state"], "SUCCEEDED", job)
        self.assertEqual(job["attempt"], attempt)
        text = self.file_of(job)
        self.assertEqual(text.count("\n"), len(self.data) + 1)
        self.assertTrue(text == self.calm, "other bytes than undisturbed")
        self.assertEqual(job["shards"]["differing"], 0)
        self.assertEqual(job["shards"]["rows_done"], len(self.data))
        print({k: job["shards"][k] for k in ("count", "taken_over", "doubled", "done_twice")},
              [r["reason_code"] for r in job.get("recoveries", [])],
              f"{job['result']['metrics']['seconds']:.1f} s", flush=True)
        return job


class Disturbed(BatchTest):
    def test_a_death_a_stop_a_join_and_the_coordinators_death_in_one_run(self):
        job_id = self.start()
        total = self.cluster.job(job_id)["shards"]["count"]
        alive = self.alive(job_id)
        os.kill(alive[0]["pid"], signal.SIGKILL)
        self.at_shard(job_id, total // 6)
        stopped = alive[1]["pid"]
        os.kill(stopped, signal.SIGSTOP)
        joiner = self.cluster.start_worker()
        self.at_shard(job_id, total // 3)
        before = self.cluster.job(job_id)["shards"]["done"]
        self.cluster.kill(self.cluster.coordinator)
        time.sleep(1.0)
        self.cluster.start_coordinator()
        after = self.cluster.job(job_id)["shards"]["done"]
        self.assertGreaterEqual(after, before, "nothing that was done is lost")
        self.at_shard(job_id, total // 2)
        self.assertGreater(len({t["worker_id"] for t in self.cluster.job(job_id)["tasks"]}), 3, "one joined")
        self.cluster.kill(joiner)
        job = self.finish(job_id)
        self.assertFalse(os.path.exists(f"/proc/{stopped}"), "a stopped rank does not hold the job")
        reasons = [r["reason_code"] for r in job["recoveries"]]
        self.assertIn("RANK_LOST", reasons)
        self.assertIn("RANK_JOINS", reasons)
        self.assertGreaterEqual(job["shards"]["doubled"], 1, "what the stopped rank had, another did")
        events = self.cluster.items(f"/v1/jobs/{job_id}/events")
        self.assertTrue(any(e["reason_code"] == "SLOW" and "does it too" in e["message"] for e in events), events)

    def test_ranks_that_die_one_after_another(self):
        dice = random.Random(int(os.environ.get("LEPTON_TEST_SEED", "7")))
        job_id = self.start(max_workers=3)
        for _ in range(6):
            time.sleep(dice.uniform(0, 1))
            alive = self.alive(job_id)
            if self.cluster.job(job_id)["state"] in FINAL or len(alive) < 2:
                break
            os.kill(dice.choice(alive)["pid"], signal.SIGKILL)
        job = self.finish(job_id)
        self.assertGreaterEqual(len([r for r in job["recoveries"] if r["reason_code"] == "RANK_LOST"]), 2)
        others = [r["total_ms"] for r in job["recoveries"] if r["reason_code"] == "RANK_LOST"]
        self.assertLess(min(others), 1000)

    def test_all_die_and_the_job_goes_on_behind_what_is_done(self):
        job_id = self.start(max_workers=3)
        job = self.at_shard(job_id, 15)
        done = job["shards"]["done"]
        # The whole pool: else a seat that takes a dead one's place goes on with the gang.
        for worker in self.cluster.workers:
            if worker.poll() is None:
                self.cluster.kill(worker)
        self.cluster.wait_job(job_id, {"RECOVERING", "QUEUED"}, timeout=20)
        for _ in range(3):
            self.cluster.start_worker()
        self.cluster.wait_job(job_id, timeout=120)
        events = [e["message"] for e in self.cluster.items(f"/v1/jobs/{job_id}/events")]
        told = [m for m in events if "of which" in m]
        self.assertTrue(told, events)
        self.assertGreaterEqual(int(told[-1].split("of which ")[1].split()[0]), done)
        self.finish(job_id, attempt=2)

    def test_a_drain_is_no_fault_and_a_cancel_is_quick(self):
        self.cluster.start_worker()  # for the other tests, in place of the drained one
        self.cluster.wait_for_workers(4)
        job_id = self.start()
        task = self.alive(job_id)[0]
        status, body = self.cluster.call("POST", f"/v1/workers/{task['worker_id']}:drain", {})
        self.assertEqual(status, 200, body)
        job = self.finish(job_id)
        self.assertIn("RANK_LEAVES", [r["reason_code"] for r in job["recoveries"]])
        self.assertNotIn("RANK_LOST", [r["reason_code"] for r in job["recoveries"]])
        job_id = self.start(max_workers=3, ranks=1)
        text = lepton("describe", job_id, "--coordinator", self.cluster.url).stdout
        for field in ("progress.step", "shards.done", "group.ranks"):
            self.assertIn(field, text)
        before = self.shards_done()
        metrics = self.cluster.call("GET", "/metrics")[1]
        self.assertIn('lepton_batch_rows{state="left"}', metrics)
        pace = re.search(r"^lepton_batch_rows_per_second (\S+)$", metrics, re.M)
        self.assertGreater(float(pace[1]), 0)
        done = re.search(r'^lepton_batch_shards{outcome="done"} (\S+)$', metrics, re.M)
        self.assertGreaterEqual(float(done[1]), before)
        self.assertLessEqual(float(done[1]), self.shards_done())
        self.assertIn('lepton_recoveries_total{reason="RANK_LEAVES"}', metrics)
        self.cluster.call("POST", f"/v1/jobs/{job_id}:cancel")
        self.assertEqual(self.cluster.wait_job(job_id, timeout=10)["state"], "CANCELLED")


if __name__ == "__main__":
    main()
