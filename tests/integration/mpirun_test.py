#!/usr/bin/env python3
"""Runs and pools under mpirun that lose a task or a process; `collectives: mpi`, of which each gang is a whole mpirun."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import (Cluster, LEPTON, lepton, lepton_processes, long_spec, main, parent, processes,  # noqa: E402
                     train_spec, wait_until)
from run_folder import MPIRUN, RunFolder  # noqa: E402


@unittest.skipUnless(shutil.which("mpirun"), "no mpirun here")
class Run(RunFolder):
    def digest(self, output):
        return re.search(r"(?m)^model \S+ (sha256:[0-9a-f]{64}) ", output)[1]

    HELD = {"epochs": 10, "elastic": {"logical_shards": 2}, "checkpoint": {"every_steps": 50}}

    def held_under_mpirun(self, spec, *flags):
        """A run over two processes; the task of the second one waits in step 120, behind two checkpoints."""
        gate, run = self.folder / "gate", [LEPTON, "run", str(spec)]
        process = subprocess.Popen([*MPIRUN, *flags, "-np", "1", *run, ":", "-np", "1", "env",
                                    f"LEPTON_TEST_TRAIN_FAULT=gate@120:{gate}", *run],
                                   cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.terminate)
        wait_until(lambda: (self.folder / "gate.reached").exists() or process.poll() is not None, 60, "step 120")
        if process.poll() is not None:
            self.fail("".join(process.communicate()))
        time.sleep(1)  # checkpoints are stored beside the steps
        return process

    def calm_digest(self):
        calm = lepton("run", self.spec(**self.HELD), "--workers", 2, "--out", self.folder / "calm", cwd=self.folder)
        self.assertEqual(calm.returncode, 0, calm.stderr)
        return self.digest(calm.stdout)

    def resumed_digest(self, spec):
        resumed = subprocess.run([*MPIRUN, "-np", "2", LEPTON, "run", str(spec), "--resume"], cwd=self.folder,
                                 capture_output=True, text=True, timeout=120)
        self.assertEqual(resumed.returncode, 0, resumed.stdout + resumed.stderr)
        return self.digest(resumed.stdout)

    def test_a_run_under_mpirun_outlives_a_task(self):
        calm = self.calm_digest()
        process = self.held_under_mpirun(self.spec(**self.HELD))
        os.kill(processes("task --task run.a1.r1 ", self.folder)[0], signal.SIGKILL)
        output, says = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, output + says)
        self.assertEqual(self.digest(output), calm)
        job = json.loads((self.folder / "lepton-runs/test/job.json").read_text())
        self.assertEqual(job["attempt"], 1)
        self.assertEqual(job["recoveries"][0]["reason_code"], "RANK_LOST")

    def test_a_run_goes_on_under_a_new_mpirun_when_the_first_has_lost_a_process(self):
        calm, spec = self.calm_digest(), self.spec(**self.HELD)
        process = self.held_under_mpirun(spec)
        os.kill(max(lepton_processes(f"run {spec}", self.folder)), signal.SIGKILL)
        process.communicate(timeout=30)
        self.assertNotEqual(process.returncode, 0)
        wait_until(lambda: not processes("task --task run.", self.folder), 10, "no task is left")
        self.assertEqual(self.resumed_digest(spec), calm)

    def test_a_run_goes_on_under_a_new_mpirun_when_the_first_has_lost_a_node(self):
        calm, spec = self.calm_digest(), self.spec(**self.HELD)
        # Two "nodes" of this machine: what mpirun would start there by ssh, it starts here.
        here = self.folder / "here"
        here.write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')
        here.chmod(0o755)
        # Without `rtc ^hwloc` two daemons of one machine share a map at a fixed address, which is not always free (a
        # crash of Open MPI 4.1's daemon in one of four starts).
        process = self.held_under_mpirun(spec, "--mca", "plm_rsh_agent", str(here), "--host", "n1:1,n2:1",
                                         "--mca", "rtc", "^hwloc")
        ran = {}  # by rank
        for pid in lepton_processes(f"run {spec}", self.folder):
            environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            ran[next(int(e.split(b"=")[1]) for e in environment if e.startswith(b"OMPI_COMM_WORLD_RANK="))] = pid
        daemons = [parent(ran[rank]) for rank in (0, 1)]
        self.assertEqual(len({process.pid, *daemons}), 3, "each node has a daemon of mpirun's")
        for pid in (daemons[1], ran[1]):
            os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=30)
        self.assertNotEqual(process.returncode, 0)
        wait_until(lambda: not processes("task --task run.", self.folder) and
                   not lepton_processes(f"run {spec}", self.folder), 10, "nothing is left")
        self.assertEqual(self.resumed_digest(spec), calm)

    def test_an_mpi_job_that_lost_a_rank_ends_and_goes_on_under_a_new_mpirun(self):
        calm, spec = self.calm_digest(), self.spec(**self.HELD, collectives="mpi")
        process = self.held_under_mpirun(spec)
        begin = time.monotonic()
        os.kill(processes("task --task run.a1.r1 ", self.folder)[0], signal.SIGKILL)
        _, says = process.communicate(timeout=30)
        self.assertLess(time.monotonic() - begin, 15)
        self.assertEqual(process.returncode, 1, says)
        self.assertRegex(says, r"rank 1 on worker \S+: killed by signal 9; MPI cannot begin again in an mpirun or srun "
                               r"that has lost a rank: the job goes on in a new one, from its checkpoint of step \d+0")
        self.assertRegex(says, r"`lepton run .*job\.yaml --resume` under a new mpirun or srun goes on")
        self.assertEqual(self.resumed_digest(spec), calm)

    def test_an_mpi_job_whose_mpirun_has_a_worker_less_ends_and_goes_on_under_a_new_one(self):
        calm, spec = self.calm_digest(), self.spec(**self.HELD, collectives="mpi")
        process = self.held_under_mpirun(spec)
        os.kill(max(lepton_processes(f"run {spec}", self.folder)), signal.SIGTERM)  # rank 1 leaves, in step 120
        (self.folder / "gate").touch()
        _, says = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1, says)
        self.assertIn("of one of 2 only 1 may be used", says)
        self.assertRegex(says, r"`lepton run .*job\.yaml --resume` under a new mpirun or srun goes on")
        self.assertEqual(self.resumed_digest(spec), calm)

    def test_an_mpi_job_is_all_of_an_mpirun_or_one_rank(self):
        spec = self.spec(epochs=2, collectives="mpi", resources={"max_workers": 2})
        for launcher, why in (([*MPIRUN, "-np", "3"], "one has 3"), ([], "no worker was started by either")):
            done = subprocess.run([*launcher, LEPTON, "run", str(spec)], cwd=self.folder, capture_output=True, text=True,
                                  timeout=30)
            self.assertNotEqual(done.returncode, 0, done.stdout)
            self.assertIn(f"needs all of an mpirun or srun of 1 to 2 workers, 1 slot on each; {why}", done.stderr)
        spec = self.spec(epochs=2, collectives="mpi", resources={"max_workers": 1})
        done = subprocess.run([*MPIRUN, "-np", "2", LEPTON, "run", str(spec)], cwd=self.folder, capture_output=True,
                              text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("workers=1 ", done.stdout)


@unittest.skipUnless(shutil.which("mpirun"), "no mpirun here")
class Pool(unittest.TestCase):
    """Workers under mpirun, which MPI's jobs take by turns."""
    def setUp(self):
        self.cluster = Cluster(workers=0)

    def tearDown(self):
        self.cluster.stop()

    def launch(self, ranks, name, *flags):
        before = len([w for w in self.cluster.items("/v1/workers") if w["state"] == "UP"])
        launcher = self.cluster.spawn(f"worker-{name}.log", "worker", "--join", self.cluster.data, "--slots", 2,
                                      prefix=[*MPIRUN, *flags, "-np", str(ranks)])
        self.cluster.workers.append(launcher)  # which ends with the cluster
        self.cluster.wait_for_workers(before + ranks)

    def mpi(self, **fields):
        fields.setdefault("resources", {"min_workers": 2, "max_workers": 2})
        return self.cluster.submit(long_spec(collectives="mpi", **fields))

    def stepping(self, job_id):
        return self.cluster.wait_step(job_id, self.cluster.job(job_id)["progress"]["step"] + 20)

    def test_jobs_take_turns_until_one_has_lost_a_rank(self):
        cluster = self.cluster
        self.launch(2, "first", "--enable-recovery")
        cancelled = self.mpi()
        failed = self.mpi(optimizer={"name": "sgd", "lr": 1000})
        lost = self.mpi()
        self.stepping(cancelled)
        waits = cluster.job(failed)
        self.assertEqual(waits["state"], "QUEUED")
        self.assertIn("one of 2 is in use by another gang's MPI", waits["reason"])
        cluster.call("POST", f"/v1/jobs/{cancelled}:cancel")
        self.assertEqual(cluster.wait_job(cancelled)["state"], "CANCELLED")
        self.assertIn("loss", cluster.wait_job(failed)["reason"])
        self.stepping(lost)
        cluster.wait_checkpoint(lost)
        os.kill(cluster.task_pid(f"{lost}.a1.r1"), signal.SIGKILL)
        waits = cluster.wait_job(lost, ["QUEUED"], 15)
        self.assertIn("one of 2 has lost a rank", waits["reason"])
        self.assertIn("killed by signal 9; MPI cannot begin again", waits["reason"])
        # The workers are there for all else.
        native = cluster.wait_job(cluster.submit(train_spec(resources={"min_workers": 2, "max_workers": 2})))
        self.assertEqual(native["state"], "SUCCEEDED")
        self.assertEqual(cluster.job(lost)["state"], "QUEUED")
        step = cluster.job(lost)["progress"]["step"]
        self.launch(2, "second", "--enable-recovery")
        self.assertEqual(cluster.wait_step(lost, step + 20)["attempt"], 2)

    def test_ranks_that_fail_alike_in_one_step_leave_a_world_that_takes_no_other_job(self):
        cluster = self.cluster
        self.launch(2, "first", "--enable-recovery", "-x", "LEPTON_TEST_TRAIN_FAULT=fail@40")
        waits = cluster.wait_job(self.mpi(), ["QUEUED"], 30)
        self.assertRegex(waits["reason"], "no memory for the step; MPI cannot begin again")

    def test_without_recovery_mpirun_ends_all_of_its_workers_and_the_job_waits_for_others(self):
        cluster = self.cluster
        self.launch(2, "first")
        job_id = cluster.submit(long_spec(resources={"min_workers": 2, "max_workers": 2}))
        self.stepping(job_id)
        cluster.wait_checkpoint(job_id)
        os.kill(lepton_processes(f"worker --join {cluster.data}")[0], signal.SIGKILL)
        self.assertNotEqual(cluster.workers[0].wait(20), 0)
        self.assertEqual(lepton_processes(f"worker --join {cluster.data}"), [])
        cluster.wait_job(job_id, ["QUEUED"], 20)
        step = cluster.job(job_id)["progress"]["step"]
        self.launch(2, "second")
        cluster.wait_step(job_id, step + 20)


if __name__ == "__main__":
    main()
