#!/usr/bin/env python3
"""Ranks of a search's trials die: the trial goes on with those that live, or from its own last checkpoint
when nobody does. The study ends as an undisturbed one, figure for figure: no trial failed, and no other
trial was touched."""
import os
import pathlib
import re
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import ClusterTest, FINAL, main, train_spec, wait_until  # noqa: E402

TRIALS = 3
FIGURES = ("validation/accuracy", "validation/loss", "train/loss", "test/accuracy")
EVERY = 50


class ElasticTrials(ClusterTest):
    workers, slots = 4, 1
    calm = None

    def spec(self, **fields):
        spec = train_spec(kind="tune", model={"hidden": [128, 128]}, epochs=120, register="best",
                          resources={"min_workers": 1, "max_workers": 2}, checkpoint={"every_steps": EVERY},
                          elastic={"logical_shards": 4, "recovery_budget": "4s"},
                          restart={"max": 5, "backoff": "50ms"},
                          search={"algorithm": "random", "trials": TRIALS, "seed": 1, "max_parallel": 2,
                                  "space": {"optimizer.lr": {"loguniform": [1e-4, 1e-2]}}})
        return spec | fields

    def trials(self, job_id):
        return sorted(self.cluster.items(f"/v1/jobs/{job_id}/trials"), key=lambda t: t["id"])

    def outcome(self, job_id):
        job = self.cluster.wait_job(job_id, timeout=150)
        self.assertEqual(job["state"], "SUCCEEDED", job)
        trials = self.trials(job_id)
        self.assertEqual([t["state"] for t in trials], ["DONE"] * TRIALS, trials)
        return {"best": job["best_trial"], "digest": job["result"]["weights_sha256"],
                "trials": [(t["values"], t["score"], [t["metrics"][name] for name in FIGURES]) for t in trials]}

    def calm_outcome(self):
        if ElasticTrials.calm is None:
            ElasticTrials.calm = self.outcome(self.cluster.submit(self.spec()))
        return ElasticTrials.calm

    def ranks(self, job_id, trial):
        return [t for t in self.cluster.job(job_id)["tasks"]
                if t["state"] == "STARTED" and t["pid"] > 0 and f".t{trial}." in t["task_id"]]

    def trains(self, job_id, trial, ranks=2):
        """That trial's ranks, once they have taken steps."""
        def look():
            self.assertNotIn(self.cluster.job(job_id)["state"], FINAL, "the run is too short for this test")
            its = next((t for t in self.trials(job_id) if t["id"] == trial), None)
            alive = self.ranks(job_id, trial)
            return alive if its and its["step"] > 0 and len(alive) == ranks else None
        return wait_until(look, 60, f"trial {trial} trains on {ranks} ranks", 0.01)

    def attempts(self, job_id):
        self.assertEqual(self.cluster.job(job_id)["attempt"], 1)
        return [t["attempt"] for t in self.trials(job_id)]

    def test_a_rank_that_dies_costs_its_trial_nothing(self):
        calm = self.calm_outcome()
        for leader in (True, False):
            with self.subTest(leader=leader):
                job_id = self.cluster.submit(self.spec())
                ranks = self.trains(job_id, 1)
                os.kill(ranks[0 if leader else 1]["pid"], signal.SIGKILL)
                self.assertEqual(self.outcome(job_id), calm)
                self.assertEqual(self.attempts(job_id), [1] * TRIALS, "nothing starts again")

    def test_a_trial_with_nobody_left_goes_on_from_its_own_checkpoint(self):
        calm = self.calm_outcome()
        job_id = self.cluster.submit(self.spec())
        ranks = self.trains(job_id, 1)

        def far():
            its = next(t for t in self.trials(job_id) if t["id"] == 1)
            self.assertEqual(its["state"], "RUNNING", "the trial is too short for this test")
            return its["step"] if its["step"] > 2 * EVERY else None
        step = wait_until(far, 60, "checkpoints of the trial", 0.01)
        for task in ranks:
            os.kill(task["pid"], signal.SIGKILL)
        self.assertEqual(self.outcome(job_id), calm)
        self.assertEqual(self.attempts(job_id), [1, 2, 1])
        resumed = re.findall(r"(j\d+\.t\d\.a2)\.r0 .*steps? (\d+) to", self.log(job_id))
        self.assertEqual([attempt for attempt, _ in resumed], [f"{job_id}.t1.a2"])
        # The newest may have been on its way: it is written beside the steps, but is there before the next.
        self.assertGreaterEqual(int(resumed[0][1]), (step // EVERY - 1) * EVERY)

    def log(self, job_id):
        lines, after = [], 0
        while True:
            page = self.cluster.get(f"/v1/jobs/{job_id}/logs?after={after}")
            if not page["items"]:
                return "\n".join(f"{one['task_id']} {one['line'].split('] ', 1)[-1]}" for one in lines)
            lines += page["items"]
            after = page["next_after"]


if __name__ == "__main__":
    main()
