#!/usr/bin/env python3
"""kill -9 of a task, a worker, a replica and the coordinator: nothing acknowledged is lost."""
import os
import pathlib
import re
import signal
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import ClusterTest, DATA, long_spec, main, train_spec, wait_until  # noqa: E402

# From the newest checkpoint; elastic_test.py is about gangs that outlive their ranks.
RESTART = {"recovery": "restart"}


class TaskKilled(ClusterTest):
    def test_job_restarts_from_its_last_checkpoint_with_the_attempt_counted(self):
        c = self.cluster
        spec = long_spec(resources={"min_workers": 2, "max_workers": 2}, elastic=RESTART)
        job_id = c.submit(spec)
        checkpoint = c.wait_checkpoint(job_id)[-1]
        victim = next(t for t in c.job(job_id)["tasks"] if t["rank"] == 1)
        os.kill(c.task_pid(victim["task_id"]), signal.SIGKILL)
        job = wait_until(lambda: (lambda j: j if j["attempt"] >= 2 and j["state"] == "RUNNING" and
                                  j["progress"]["step"] > 0 else None)(c.job(job_id)), 30, "attempt 2")
        self.assertGreaterEqual(job["progress"]["step"], checkpoint["step"])
        self.assertEqual(job["restarts"], 1)
        events = c.items(f"/v1/jobs/{job_id}/events")
        states = [e["state"] for e in events]
        self.assertIn("RECOVERING", states)
        self.assertTrue(any("SIGKILL" in e["message"] or "signal 9" in e["message"] for e in events),
                        events)
        status, _ = c.call("POST", f"/v1/jobs/{job_id}:cancel")
        self.assertIn(status, (200, 202))
        c.wait_job(job_id, {"CANCELLED"})

    def test_the_disturbed_run_ends_with_the_undisturbed_weights(self):
        c = self.cluster
        spec = train_spec(epochs=300, model={"hidden": [128, 128]}, checkpoint={"every_steps": 100},
                          restart={"max": 5, "backoff": "100ms"},
                          resources={"min_workers": 2, "max_workers": 2}, elastic=RESTART)
        calm = c.wait_job(c.submit(spec))
        job_id = c.submit(spec)
        c.wait_checkpoint(job_id)
        os.kill(c.task_pid(c.job(job_id)["tasks"][0]["task_id"]), signal.SIGKILL)
        disturbed = c.wait_job(job_id)
        self.assertEqual(disturbed["state"], "SUCCEEDED", disturbed)
        self.assertGreaterEqual(disturbed["attempt"], 2)
        self.assertEqual(disturbed["result"]["weights_sha256"], calm["result"]["weights_sha256"])


    def test_a_job_of_one_rank_starts_again_from_its_checkpoint(self):
        c = self.cluster
        spec = train_spec(epochs=300, model={"hidden": [128, 128]}, checkpoint={"every_steps": 100},
                          restart={"max": 5, "backoff": "100ms"}, resources={"max_workers": 1})
        calm = c.wait_job(c.submit(spec))
        job_id = c.submit(spec)
        c.wait_checkpoint(job_id)
        os.kill(c.task_pid(f"{job_id}.a1.r0"), signal.SIGKILL)
        job = c.wait_job(job_id)
        self.assertEqual((job["state"], job["attempt"]), ("SUCCEEDED", 2), job)
        self.assertEqual(job["result"]["weights_sha256"], calm["result"]["weights_sha256"])
        lines = [one["line"] for one in c.items(f"/v1/jobs/{job_id}/logs") if ".a2." in one["task_id"]]
        first = int(re.search(r"steps (\d+) to", "\n".join(lines))[1])
        self.assertTrue(first > 0 and first % 100 == 0, first)

    def test_an_evaluation_is_done_from_the_beginning(self):
        c = self.cluster
        c.train()
        columns, *rows = (DATA / "digits.csv").read_text().splitlines()
        table = c.folder / "large.csv"  # it takes a while
        table.write_text("\n".join([columns, *(rows * 50)]) + "\n")
        spec = {"kind": "evaluate", "name": "large", "dataset": {"uri": f"file://{table}"}, "model": {"from": "digits@1"},
                "restart": {"max": 5, "backoff": "100ms"}}
        calm = c.wait_job(c.submit(spec))
        self.assertEqual(calm["state"], "SUCCEEDED", calm)
        job_id = c.submit(spec)
        os.kill(c.task_pid(f"{job_id}.a1.r0"), signal.SIGKILL)
        job = c.wait_job(job_id)
        self.assertEqual((job["state"], job["attempt"]), ("SUCCEEDED", 2), job)
        for name in ("test/accuracy", "test/loss"):
            self.assertEqual(job["result"]["metrics"][name], calm["result"]["metrics"][name])


class OneRankHangs(ClusterTest):
    def test_nobody_sees_it_and_the_deadline_ends_it(self):
        c = self.cluster
        job_id = c.submit(long_spec(resources={"max_workers": 1}, elastic={"recovery_budget": "500ms"},
                                    deadline="8s"))
        pid = c.task_pid(f"{job_id}.a1.r0")
        wait_until(lambda: c.job(job_id)["progress"]["step"] > 0 or c.job(job_id)["state"] == "FAILED", 60, "a step")
        os.kill(pid, signal.SIGSTOP)
        job = c.wait_job(job_id)
        self.assertEqual((job["state"], job["attempt"]), ("FAILED", 1), job)
        self.assertIn("not done within 8 s", job["error"])
        self.assertNotIn("HUNG", [e["reason_code"] for e in c.items(f"/v1/jobs/{job_id}/events")])
        wait_until(lambda: not c.processes(f"--task {job_id}.a1.r0 "), 20, "the end of a process that is stopped")


class LogPolicies(ClusterTest):
    workers = 2

    def submit(self, action):
        return self.cluster.submit(long_spec(resources={"max_workers": 1}, restart={
            "max": 5, "backoff": "100ms", "log_policies": [{"pattern": "\\d+ rows to train on", "action": action}]}))

    def test_a_worker_whose_rank_logs_a_pattern_is_excluded_and_then_the_next(self):
        c = self.cluster
        job_id = self.submit("exclude_worker")
        job = wait_until(lambda: (lambda j: j if "2 workers excluded" in j["reason"] else None)(c.job(job_id)), 60,
                         "both are excluded")
        self.assertEqual(job["state"], "QUEUED")
        told = " ".join(e["message"] for e in c.items(f"/v1/jobs/{job_id}/events"))
        for worker in ("w0", "w1"):
            self.assertIn(f"rank 0 on worker {worker} logged '", told)
        other = c.wait_job(c.submit(train_spec(epochs=1)))
        self.assertEqual(other["state"], "SUCCEEDED", "other jobs have them")
        c.call("POST", f"/v1/jobs/{job_id}:cancel")
        c.wait_job(job_id, {"CANCELLED"})

    def test_a_job_fails_by_a_line_that_it_logs(self):
        job = self.cluster.wait_job(self.submit("fail_job"))
        self.assertEqual((job["state"], job["attempt"]), ("FAILED", 1), job)
        self.assertRegex(job["error"], "rank 0 on worker w[01] logged '.*rows to train on")


class WorkerKilled(ClusterTest):
    workers = 2

    def test_job_goes_on_with_what_remains_or_waits_with_the_reason(self):
        c = self.cluster
        job_id = c.submit(long_spec(resources={"min_workers": 1, "max_workers": 2},
                                    elastic=RESTART))
        c.wait_checkpoint(job_id)
        victim = c.workers[1]
        tasks = [t for t in c.job(job_id)["tasks"] if t["worker_id"] == "w1"]
        self.assertEqual(len(tasks), 1)
        pid = c.task_pid(tasks[0]["task_id"])
        c.kill(victim)
        wait_until(lambda: not pathlib.Path(f"/proc/{pid}").exists() or
                   pid not in c.processes(tasks[0]["task_id"]), 5, "the task dies with its agent")
        job = wait_until(lambda: (lambda j: j if j["attempt"] >= 2 and j["state"] == "RUNNING" and
                                  j["progress"]["step"] > 0 else None)(c.job(job_id)), 30, "attempt 2")
        self.assertTrue(all(t["worker_id"] == "w0" for t in job["tasks"]), job["tasks"])
        # A gang of two slots cannot run beside it: it says why.
        big = c.submit(long_spec(resources={"min_workers": 2, "max_workers": 2,
                                            "slots_per_worker": 1}, priority=10))
        waiting = c.job(big)
        self.assertEqual(waiting["state"], "QUEUED", waiting)
        self.assertTrue(waiting["reason"], waiting)
        for running in (job_id, big):
            c.call("POST", f"/v1/jobs/{running}:cancel")
        c.wait_job(job_id, {"CANCELLED"})
        c.wait_job(big, {"CANCELLED"})


class LastWorkerKilled(ClusterTest):
    workers = 1

    def test_job_queues_with_the_reason_and_resumes_on_a_new_worker(self):
        c = self.cluster
        job_id = c.submit(long_spec())
        c.wait_checkpoint(job_id)
        c.kill(c.workers[0])
        job = c.wait_job(job_id, {"QUEUED", "RECOVERING"}, 20)
        job = c.wait_job(job_id, {"QUEUED"}, 20)
        self.assertIn("no worker is up", job["reason"])
        step = c.items(f"/v1/jobs/{job_id}/checkpoints")[-1]["step"]
        c.start_worker("fresh")
        job = c.wait_job(job_id, {"RUNNING"}, 20)
        job = c.wait_step(job_id, step + 1)
        self.assertGreaterEqual(job["attempt"], 2)
        c.call("POST", f"/v1/jobs/{job_id}:cancel")
        c.wait_job(job_id, {"CANCELLED"})


class ReplicaKilled(ClusterTest):
    def test_requests_go_on_without_a_5xx(self):
        c = self.cluster
        c.train()
        c.deploy(replicas=2)
        columns, *lines = (DATA / "digits.csv").read_text().splitlines()[:6]
        names = columns.split(",")[:-1]
        rows = [dict(zip(names, map(float, line.split(",")[:-1]))) for line in lines]
        statuses, stop = [], threading.Event()

        def traffic():
            while not stop.is_set():
                statuses.append(c.call("POST", "/v1/deployments/digits:predict", {"rows": rows})[0])

        clients = [threading.Thread(target=traffic) for _ in range(4)]
        for client in clients:
            client.start()
        try:
            for _ in range(2):
                replicas = c.get("/v1/deployments/digits")["replica_states"]
                time.sleep(0.3)
                os.kill(c.task_pid(replicas[0]["task_id"]), signal.SIGKILL)
                wait_until(lambda: c.get("/v1/deployments/digits")["ready"] < 2, 10, "one replica less",
                           0.005)
                wait_until(lambda: c.get("/v1/deployments/digits")["ready"] == 2, 20, "two replicas")
        finally:
            stop.set()
            for client in clients:
                client.join()
        self.assertGreater(len(statuses), 50)
        self.assertEqual(set(statuses), {200})


class CoordinatorKilled(ClusterTest):
    def test_running_work_goes_on_untouched_and_nothing_is_lost(self):
        c = self.cluster
        done = c.train()
        job_id = c.submit(long_spec(resources={"min_workers": 2, "max_workers": 2}))
        c.wait_checkpoint(job_id)
        queued = c.submit(long_spec(resources={"min_workers": 4, "max_workers": 4}))
        before = c.job(job_id)
        pids = sorted(c.task_pid(t["task_id"]) for t in before["tasks"])
        c.kill(c.coordinator)
        time.sleep(1)
        c.start_coordinator()
        c.wait_for_workers(2)
        after = c.wait_step(job_id, before["progress"]["step"] + 1)
        self.assertEqual(after["state"], "RUNNING")
        self.assertEqual(after["attempt"], before["attempt"])
        self.assertEqual(sorted(c.task_pid(t["task_id"]) for t in after["tasks"]), pids)
        self.assertEqual(c.job(queued)["state"], "QUEUED")
        self.check_absence_told(job_id, queued)
        self.assertEqual(c.job(done["id"])["result"], done["result"])
        self.assertEqual(c.get("/v1/models/digits")["latest"], 1)
        for running in (queued, job_id):
            c.call("POST", f"/v1/jobs/{running}:cancel")
            c.wait_job(running, {"CANCELLED"})

    def check_absence_told(self, job_id, queued):
        """It was dead for a second, and for as long as a program takes to start; workers heard it a second before."""
        def told(job):
            return [e["message"] for e in self.cluster.items(f"/v1/jobs/{job}/events")
                    if e["reason_code"] == "COORDINATOR_AWAY"]
        message, = wait_until(lambda: told(job_id), 10, "word of the coordinator's absence")
        away = re.search(r"the coordinator was away for (\d+) ms; 2 of 2 workers came back", message)
        self.assertIsNotNone(away, message)
        self.assertTrue(1000 <= int(away[1]) < 20_000, message)
        self.assertEqual(told(queued), [])
        metrics = self.cluster.call("GET", "/metrics")[1]
        self.assertIn('lepton_coordinator_workers_back{outcome="back"} 2\n', metrics)
        gauge = re.search(r"^lepton_coordinator_away_seconds (\S+)$", metrics, re.M)
        self.assertAlmostEqual(float(gauge[1]), int(away[1]) / 1000, delta=0.001)

    def test_a_coordinator_that_stood_still_longer_than_a_lease_loses_no_worker(self):
        c = self.cluster
        job_id = c.submit(long_spec(resources={"min_workers": 2, "max_workers": 2}))
        before = c.wait_step(job_id, 1)
        os.kill(c.coordinator.pid, signal.SIGSTOP)
        time.sleep(4)  # a lease is 2
        os.kill(c.coordinator.pid, signal.SIGCONT)
        after = c.wait_step(job_id, before["progress"]["step"] + 1)
        time.sleep(1)
        after = c.job(job_id)
        self.assertEqual((after["state"], after["attempt"]), ("RUNNING", before["attempt"]), after)
        self.assertEqual({w["state"] for w in c.get("/v1/workers")["items"]}, {"UP"})
        c.call("POST", f"/v1/jobs/{job_id}:cancel")
        c.wait_job(job_id, {"CANCELLED"})

    def test_workers_have_time_to_come_back_however_short_the_lease(self):
        c = self.cluster
        job_id = c.submit(long_spec(resources={"min_workers": 2, "max_workers": 2}))
        before = c.wait_step(job_id, 1)
        c.kill(c.coordinator)
        time.sleep(4)  # they look for it every two seconds by now
        self.addCleanup(setattr, c, "lease", c.lease)
        c.lease = "1s"
        c.start_coordinator()
        after = c.wait_step(job_id, before["progress"]["step"] + 1)
        time.sleep(1)
        after = c.job(job_id)
        self.assertEqual((after["state"], after["attempt"]), ("RUNNING", before["attempt"]), after)
        c.call("POST", f"/v1/jobs/{job_id}:cancel")
        c.wait_job(job_id, {"CANCELLED"})

    def test_a_job_that_ends_while_the_coordinator_is_away_is_not_lost(self):
        c = self.cluster
        job_id = c.submit(train_spec(epochs=1500, register="away"))
        c.wait_step(job_id, 1)
        c.kill(c.coordinator)
        wait_until(lambda: not c.processes(f"--task {job_id}."), 60, "the task's end")
        c.start_coordinator()
        job = c.wait_job(job_id)
        self.assertEqual(job["state"], "SUCCEEDED", job)
        self.assertEqual(job["attempt"], 1)
        self.assertEqual(c.get("/v1/models/away")["latest"], 1)


if __name__ == "__main__":
    main()
