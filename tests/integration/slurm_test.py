#!/usr/bin/env python3
"""The shipped batch scripts under a real two-node Slurm, which this test starts."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import (Cluster, LEPTON, ROOT, lepton, lepton_processes, long_spec, main,  # noqa: E402
                     parent, processes, train_spec, wait_until)
from slurm import Slurm, Unavailable  # noqa: E402


# What pool.sbatch calls of Slurm, on this machine alone.
STUBS = {
    "scontrol": """#!/bin/sh
[ "$2" = hostnames ] && echo here || echo "NodeAddr=127.0.0.1 x"
""",
    "srun": """#!/bin/sh
while :; do case $1 in -w) shift 2 ;; -*) shift ;; *) break ;; esac; done
exec "$@"
""",
}


class PoolScript(unittest.TestCase):
    """pool.sbatch without Slurm: where a pool has been before."""
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lepton-test."))
        self.data = self.folder / "data"
        for name, text in STUBS.items():
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o755)
        self.env = {**os.environ, "LEPTON": LEPTON, "SLURM_JOB_NODELIST": "here", "LEPTON_HOST_ADDRESS": "127.0.0.1",
                    "PATH": f"{self.folder}:{os.environ['PATH']}"}
        self.pools = []

    def tearDown(self):
        for pool in self.pools:
            try:
                os.killpg(pool.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            pool.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, *args):
        self.pools.append(subprocess.Popen(
            [str(ROOT / "scripts/slurm/pool.sbatch"), str(self.data), *args], env=self.env, cwd=self.folder,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True))
        return self.pools[-1]

    def worker_is_up(self):
        where = self.data / "coordinator.json"
        try:
            url = json.loads(where.read_text())["http"]
        except OSError:
            return None
        listed = lepton("worker", "ls", "-o", "json", "--coordinator", url)
        return listed.returncode == 0 and [w for w in json.loads(listed.stdout) if w["state"] == "UP"] and url

    def test_a_pool_starts_again_where_one_was_killed(self):
        first = self.start()
        url = wait_until(self.worker_is_up, 30, "the first pool's worker")
        os.killpg(first.pid, signal.SIGKILL)
        first.wait(10)
        self.assertTrue((self.data / "coordinator.json").exists())
        second = self.start()
        self.assertNotEqual(wait_until(self.worker_is_up, 30, "the second pool's worker"), url)
        second.terminate()
        output, _ = second.communicate(timeout=30)
        self.assertEqual(second.returncode, 0, output)
        # One that stopped by itself leaves no address behind.
        self.assertFalse((self.data / "coordinator.json").exists())

    def test_a_pool_ends_with_its_coordinator(self):
        refused = self.start("--lease", "1ms")
        output, _ = refused.communicate(timeout=30)
        self.assertEqual(refused.returncode, 1, output)
        self.assertIn("the coordinator did not start", output)
        pool = self.start()
        wait_until(self.worker_is_up, 30, "the pool's worker")
        for pid in processes(f"coordinator --data-dir {self.data}"):
            os.kill(pid, signal.SIGKILL)
        output, _ = pool.communicate(timeout=30)
        self.assertNotEqual(pool.returncode, 0, output)
        self.assertIn("the coordinator ended", output)
        self.assertEqual(processes(str(self.data)), [])


class LocalCluster(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="lepton-test.")
        self.env = {**os.environ, "LEPTON": LEPTON, "LEPTON_CLUSTER_DIR": self.folder}

    def tearDown(self):
        self.script("down")
        shutil.rmtree(self.folder, ignore_errors=True)

    def script(self, *args, **env):
        return subprocess.run([ROOT / "scripts/local_cluster.sh", *args], env={**self.env, **env}, timeout=60,
                              capture_output=True, text=True)

    def test_it_says_when_the_coordinator_does_not_start(self):
        up = self.script("up", "1", LEPTON_LEASE="1ms")
        self.assertEqual(up.returncode, 1, up.stdout)
        self.assertIn("lease", up.stderr)
        up = self.script("up", "1")
        self.assertEqual(up.returncode, 0, up.stderr)
        self.assertIn("export LEPTON_COORDINATOR=http://", up.stdout)

    def test_down_ends_its_own_processes_only(self):
        other = subprocess.Popen(["sleep", "60"])
        try:
            # The number of a process of an old `up` is another's by now.
            pathlib.Path(self.folder, "pids").write_text(f"{other.pid}\n")
            self.assertIn("not up", self.script("status").stdout)
            self.assertEqual(self.script("down").returncode, 0)
            self.assertIsNone(other.poll())
        finally:
            other.kill()
            other.wait(10)


class SlurmTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        try:
            cls.slurm = Slurm()
        except Unavailable as reason:
            raise unittest.SkipTest(f"no Slurm here: {reason}")
        cls.slurm.env["LEPTON"] = LEPTON
        cls.slurm.env["LEPTON_HOST_ADDRESS"] = "127.0.0.1"  # both "nodes" are this machine

    @classmethod
    def tearDownClass(cls):
        cls.slurm.stop()

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lepton-test."))

    def tearDown(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def state(self, job):
        text = self.slurm.call("scontrol", "show", "job", job, check=False).stdout
        return next((w.split("=")[1] for w in text.split() if w.startswith("JobState=")), "?")

    def test_run_sbatch_runs_one_job_over_both_nodes(self):
        (self.folder / "job.yaml").write_text(json.dumps(train_spec(epochs=10)))
        submitted = self.slurm.call("sbatch", "--parsable", "-N", "2", ROOT / "scripts/slurm/run.sbatch",
                                    self.folder / "job.yaml", cwd=self.folder).stdout.strip()
        try:
            wait_until(lambda: self.state(submitted) in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"),
                       90, "the batch job's end", 0.2)
        finally:
            output = "".join(p.read_text() for p in self.folder.glob("slurm-*.out"))
        self.assertEqual(self.state(submitted), "COMPLETED", output)
        last = output.strip().splitlines()[-1]
        self.assertRegex(output, r"model \S+ sha256:[0-9a-f]{64} workers=2 steps=\d+", last)
        manifest = json.loads((self.folder / "lepton-runs/test/manifest.json").read_text())
        self.assertIn(manifest["weights_sha256"], output)

    HELD = {"epochs": 10, "elastic": {"logical_shards": 2}, "checkpoint": {"every_steps": 50}}

    def calm_digest(self):
        (self.folder / "calm.yaml").write_text(json.dumps(train_spec(**self.HELD)))
        calm = lepton("run", "calm.yaml", "--workers", 2, "--out", "calm", cwd=self.folder)
        self.assertEqual(calm.returncode, 0, calm.stderr)
        return re.search(r"sha256:[0-9a-f]{64}", calm.stdout)[0]

    def submit_run(self, *flags, export="ALL"):
        return self.slurm.call("sbatch", "--parsable", "-N", "2", "--output=%j.out", f"--export={export}",
                               ROOT / "scripts/slurm/run.sbatch", "job.yaml", *flags, cwd=self.folder).stdout.strip()

    def held_run(self, **fields):
        """A run whose two tasks wait in step 120, behind two checkpoints, and the tasks."""
        (self.folder / "job.yaml").write_text(json.dumps(train_spec(**self.HELD, **fields)))
        job = self.submit_run(export=f"ALL,LEPTON_TEST_TRAIN_FAULT=gate@120:{self.folder}/gate")
        wait_until((self.folder / "gate.reached").exists, 60, "step 120")
        time.sleep(1)  # checkpoints are stored beside the steps
        return job, [processes(f"task --task run.a1.r{rank} ", self.folder)[0] for rank in (0, 1)]

    def output_at_end(self, job, limit=90):
        wait_until(lambda: self.state(job) in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"), limit,
                   "the batch job's end", 0.2)
        return (self.folder / f"{job}.out").read_text()

    def test_run_sbatch_runs_an_mpi_job_and_goes_on_after_it_lost_a_rank(self):
        digest = self.calm_digest()
        first, tasks = self.held_run(collectives="mpi")
        os.kill(tasks[1], signal.SIGKILL)
        # Slurm ends a step whose PMIx has lost a process.
        output = self.output_at_end(first)
        self.assertEqual(self.state(first), "FAILED", output)
        second = self.submit_run("--resume")
        output = self.output_at_end(second)
        self.assertEqual(self.state(second), "COMPLETED", output)
        self.assertIn(f"{digest} workers=2 ", output)

    def test_run_sbatch_outlives_a_process_but_rank_0s(self):
        digest = self.calm_digest()
        first, tasks = self.held_run()
        os.kill(parent(tasks[1]), signal.SIGKILL)
        (self.folder / "gate").write_text("")
        self.assertIn(f"{digest} workers=1 ", self.output_at_end(first))
        for path in self.folder.glob("gate*"):
            path.unlink()
        second, tasks = self.held_run()
        os.kill(parent(tasks[0]), signal.SIGKILL)
        output = self.output_at_end(second, 30)
        self.assertNotIn("sha256", output)
        third = self.submit_run("--resume")
        output = self.output_at_end(third)
        self.assertEqual(self.state(third), "COMPLETED", output)
        self.assertIn(f"{digest} workers=2 ", output)

    def test_run_sbatch_stops_before_its_time_limit_and_goes_on_when_submitted_again(self):
        (self.folder / "job.yaml").write_text(json.dumps(long_spec(resources={"min_workers": 2, "max_workers": 2})))

        def submit(*flags):
            # Slurm looks for what to warn every 30 s. Of a limit of one minute it may warn as the batch begins,
            # when there is no step yet that could hear it, and it warns once.
            return self.slurm.call("sbatch", "--parsable", "-N", "2", "--time=2", "--output=%j.out",
                                   ROOT / "scripts/slurm/run.sbatch", "job.yaml", *flags,
                                   cwd=self.folder).stdout.strip()

        def output(job):
            path = self.folder / f"{job}.out"
            return path.read_text() if path.exists() else ""
        first = submit()
        wait_until(lambda: self.state(first) in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"), 180,
                   "the batch job's end", 0.5)
        self.assertEqual(self.state(first), "FAILED", output(first))  # not TIMEOUT: it had time to stop
        stopped = re.search(r"stopped at step (\d+)", output(first))
        self.assertTrue(stopped, output(first))
        second = submit("--resume")
        try:
            def further():
                steps = [int(step) for step in re.findall(r"step (\d+)/", output(second))]
                return steps if steps and steps[-1] > int(stopped[1]) else None
            steps = wait_until(further, 60, "steps of the second", 0.2)
            self.assertGreater(steps[0], int(stopped[1]), "it began anew")
        finally:
            self.slurm.call("scancel", second, check=False)
            wait_until(lambda: self.state(second) not in ("RUNNING", "COMPLETING"), 60, "its end", 0.2)

    def test_pool_sbatch_serves_others_and_stops_on_scancel(self):
        data = self.folder / "data"
        submitted = self.slurm.call("sbatch", "--parsable", "-N", "2", ROOT / "scripts/slurm/pool.sbatch",
                                    data, "--file-roots", ROOT, cwd=self.folder).stdout.strip()
        try:
            where = data / "coordinator.json"
            wait_until(where.exists, 40, "the pool's coordinator", 0.2)
            url = json.loads(where.read_text())["http"]

            def both():
                listed = lepton("worker", "ls", "-o", "json", "--coordinator", url)
                workers = json.loads(listed.stdout) if listed.returncode == 0 else []
                return len([w for w in workers if w["state"] == "UP"]) == 2
            wait_until(both, 30, "both nodes' workers", 0.2)
            spec = self.folder / "job.json"
            spec.write_text(json.dumps(train_spec(resources={"min_workers": 2, "max_workers": 2})))
            done = lepton("submit", "--wait", "--coordinator", url, spec)
            self.assertEqual(done.returncode, 0, done.stderr)
        finally:
            self.slurm.call("scancel", "--signal=TERM", "--batch", submitted, check=False)
            output = "".join(p.read_text() for p in self.folder.glob("slurm-*.out"))
            try:
                wait_until(lambda: self.state(submitted) not in ("RUNNING", "COMPLETING"), 30,
                           "the pool's end", 0.2)
            except AssertionError:
                self.slurm.call("scancel", submitted, check=False)
                raise AssertionError("the pool did not stop on SIGTERM:\n" + output)

    def test_workers_of_join_sbatch_die_and_leave_while_others_train_on(self):
        cluster = Cluster(workers=1, slots=1)
        submitted = None

        def ranks(count):
            job = cluster.job(job_id)
            here = [t["worker_id"] for t in job["tasks"] if t["state"] == "STARTED"]
            members = not job["group"]["regrouping"] and len(here) == job["group"]["ranks"]
            return job if members and len(set(here)) == count else None
        try:
            job_id = cluster.submit(long_spec(checkpoint={"every_steps": 100_000},
                                              resources={"min_workers": 1, "max_workers": 5}))
            submitted = self.slurm.call("sbatch", "--parsable", "-N", "2", ROOT / "scripts/slurm/join.sbatch",
                                        cluster.data, cwd=self.folder).stdout.strip()
            wait_until(lambda: ranks(3), 40, "ranks on both nodes", 0.1)
            # srun's other task, and the job, outlive one.
            os.kill(lepton_processes(f"worker --join {cluster.data}", self.folder)[0], signal.SIGKILL)
            wait_until(lambda: ranks(2), 20, "the others' group", 0.1)
            self.assertEqual(self.state(submitted), "RUNNING")
            # What the time limit does.
            self.slurm.call("scancel", "--signal=TERM", submitted)
            step = wait_until(lambda: ranks(1), 20, "a rank alone", 0.1)["progress"]["step"]
            job = cluster.wait_step(job_id, step + 100)
            self.assertEqual(job["attempt"], 1)
            reasons = {one["reason_code"] for one in job["recoveries"]}
            self.assertLessEqual({"RANK_JOINS", "RANK_LOST", "RANK_LEAVES"}, reasons)
            wait_until(lambda: self.state(submitted) not in ("RUNNING", "COMPLETING"), 30, "the batch job's end", 0.2)
        finally:
            if submitted:
                self.slurm.call("scancel", submitted, check=False)
            cluster.stop()


if __name__ == "__main__":
    main()
