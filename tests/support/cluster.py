"""A real Lepton cluster for tests: processes, sockets and signals, nothing simulated.

Needs only Python's standard library and $LEPTON, the binary. Everything a cluster starts dies with
it, also when the test itself is killed, and every wait has a deadline.
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
LEPTON = os.environ.get("LEPTON", str(ROOT / "build/release/lepton"))
DATA = ROOT / "scripts/data"
# What began on the main thread ends with this process, however it ends: the kernel sees to that.
DIES_WITH_US = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
FINAL = {"SUCCEEDED", "FAILED", "CANCELLED"}

# A time limit's SIGTERM is like Ctrl-C: what was begun is taken down.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def wait_until(condition, timeout=30.0, what="the condition", interval=0.02):
    """Returns condition()'s first true value; fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout} s")
        time.sleep(interval)


def busy_share(seconds=0.3):
    """Of this machine's cores, how much others use: 1 when all of them compute. The time that a virtual machine
    was given to others is not its own either."""
    def times():
        with open("/proc/stat") as stat:
            counts = [int(n) for n in stat.readline().split()[1:9]]
        return sum(counts), counts[3] + counts[4]  # idle, and waiting for disks
    all_before, idle_before = times()
    time.sleep(seconds)
    all_after, idle_after = times()
    return 1 - (idle_after - idle_before) / max(1, all_after - all_before)


def processes(pattern, cwd=None):
    """Process ids whose command line contains `pattern`, of those that work in `cwd` if it is given."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
            if cwd and os.readlink(entry / "cwd") != str(cwd):
                continue
        except (OSError, IndexError):
            continue
        if pattern in command and state != "Z" and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def lepton_processes(pattern, cwd=None):
    """Those of them that run the binary, and not the launcher that started it."""
    binary = os.path.realpath(LEPTON)
    found = []
    for pid in processes(pattern, cwd):
        try:
            if os.readlink(f"/proc/{pid}/exe") == binary:
                found.append(pid)
        except OSError:
            pass
    return found


def parent(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def lepton(*args, timeout=120, env=None, **kwargs):
    """Runs the binary to its end."""
    return subprocess.run([LEPTON, *map(str, args)], capture_output=True, text=True,
                          timeout=timeout, env={**os.environ, **(env or {})}, **kwargs)


def train_spec(**fields):
    """A small real job; fields replace its own."""
    spec = {"kind": "train", "name": "test", "dataset": {"uri": f"file://{DATA}/digits.csv"},
            "model": {"hidden": [64]}, "optimizer": {"name": "adamw", "lr": 0.003},
            "batch_size": 64, "epochs": 5, "seed": 3}
    spec.update(fields)
    return spec


def long_spec(**fields):
    """A job that runs for a minute or more unless it is disturbed or cancelled."""
    fields.setdefault("model", {"hidden": [256, 256]})
    fields.setdefault("epochs", 500_000)
    fields.setdefault("checkpoint", {"every_steps": 50})
    fields.setdefault("restart", {"max": 5, "backoff": "100ms"})
    return train_spec(**fields)


class Cluster:
    def __init__(self, workers=2, slots=2, coordinator_args=(), folder=None, lease="2s"):
        self.folder = pathlib.Path(folder or tempfile.mkdtemp(prefix="lepton-test."))
        self.data = self.folder / "data"
        self.coordinator_args = list(coordinator_args)
        self.slots = slots
        self.lease = lease
        self.coordinator = None
        self.workers = []
        self.headers = {}
        self.start_coordinator()
        for _ in range(workers):
            self.start_worker()
        if workers:
            self.wait_for_workers(workers)

    # ---- processes ----
    def spawn(self, log, *args, env=None, prefix=()):
        with open(self.folder / log, "ab") as out:
            # Of another thread's children the kernel would take the thread's end for ours.
            bond = DIES_WITH_US if threading.current_thread() is threading.main_thread() else []
            return subprocess.Popen([*bond, *prefix, LEPTON, *map(str, args)], stdout=out, stderr=out,
                                    stdin=subprocess.DEVNULL, start_new_session=True, cwd=self.folder,
                                    env={**os.environ, **(env or {})})

    def start_coordinator(self, http_port=0, link_port=0):
        where = self.data / "coordinator.json"
        if where.exists():  # of one that was killed
            old = json.loads(where.read_text())
            http_port = int(old["http"].rsplit(":", 1)[1])
            link_port = int(old["link"].rsplit(":", 1)[1])
            where.unlink()
        self.coordinator = self.spawn(
            "coordinator.log", "coordinator", "--data-dir", self.data, "--http-port", http_port,
            "--link-port", link_port, "--lease", self.lease, "--heartbeat", "200ms",
            "--file-roots", f"{ROOT}:{self.folder}", *self.coordinator_args)
        wait_until(lambda: where.exists() or self.coordinator.poll() is not None, 20,
                   "the coordinator's start")
        if not where.exists():
            raise AssertionError("coordinator: " + self.log("coordinator.log"))
        self.url = json.loads(where.read_text())["http"]

    def start_worker(self, name=None, slots=None, env=None, args=(), prefix=()):
        name = name or f"w{len(self.workers)}"
        worker = self.spawn(f"worker-{name}.log", "worker", "--join", self.data, "--slots",
                            slots or self.slots, "--name", name, *args, env=env, prefix=prefix)
        worker.lepton_name = name
        self.workers.append(worker)
        return worker

    def wait_for_workers(self, count, timeout=20):
        wait_until(lambda: len([w for w in self.items("/v1/workers") if w["state"] == "UP"]) >= count,
                   timeout, f"{count} workers up")

    def kill(self, process, sig=signal.SIGKILL):
        os.kill(process.pid, sig)
        if sig == signal.SIGKILL:
            process.wait(10)

    def processes(self, pattern):
        """Those of this cluster: others may run beside it."""
        return processes(pattern, self.folder)

    def task_pid(self, task_id):
        return wait_until(lambda: self.processes(f"--task {task_id} "), 10, f"task {task_id}")[0]

    def stop(self):
        for process in [*self.workers, self.coordinator]:
            if process and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        deadline = time.monotonic() + 8
        for process in [*self.workers, self.coordinator]:
            if process is None:
                continue
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self, name):
        path = self.folder / name
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    # ---- HTTP ----
    def call(self, method, path, body=None, headers=None, timeout=60):
        """(status, parsed JSON or text)"""
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method,
                                         headers={"Content-Type": "application/json",
                                                  **self.headers, **(headers or {})})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                text, status = response.read().decode(), response.status
        except urllib.error.HTTPError as error:
            text, status = error.read().decode(), error.code
        try:
            return status, json.loads(text) if text else None
        except ValueError:
            return status, text

    def get(self, path):
        status, body = self.call("GET", path)
        if status != 200:
            raise AssertionError(f"GET {path}: {status} {body}")
        return body

    def items(self, path):
        return self.get(path)["items"]

    def submit(self, spec):
        status, job = self.call("POST", "/v1/jobs", spec)
        if status not in (200, 201):
            raise AssertionError(f"submit: {status} {job}")
        return job["id"]

    def job(self, job_id):
        return self.get(f"/v1/jobs/{job_id}")

    def wait_job(self, job_id, states=FINAL, timeout=60):
        def reached():
            job = self.job(job_id)
            if job["state"] in states:
                return job
            if job["state"] in FINAL:
                raise AssertionError(f"job {job_id} is {job['state']}: {job.get('reason')}")
            return None
        return wait_until(reached, timeout, f"job {job_id} in {states}")

    def wait_step(self, job_id, step, timeout=60):
        return wait_until(lambda: (lambda j: j if j["progress"]["step"] >= step else None)(
            self.job(job_id)), timeout, f"job {job_id} at step {step}")

    def wait_checkpoint(self, job_id, timeout=60):
        return wait_until(lambda: self.items(f"/v1/jobs/{job_id}/checkpoints"), timeout,
                          f"a checkpoint of {job_id}")

    def train(self, **fields):
        """A registered model; returns the final job."""
        fields.setdefault("register", "digits")
        job = self.wait_job(self.submit(train_spec(**fields)))
        if job["state"] != "SUCCEEDED":
            raise AssertionError(f"train: {job}")
        return job

    def epochs_lasting(self, seconds, spec):
        """How many epochs of `spec` one rank trains in about `seconds` on this machine, which a short run shows:
        so that a test which needs a job of some length has it on a fast machine, too."""
        probe = self.wait_job(self.submit({**spec, "epochs": 50}))
        if probe["state"] != "SUCCEEDED":
            raise AssertionError(f"probe: {probe}")
        return max(50, int(50 * seconds / probe["result"]["metrics"]["seconds"]))

    def deploy(self, name="digits", model="digits", replicas=2, **fields):
        status, body = self.call("POST", "/v1/deployments",
                                 {"name": name, "model": model, "replicas": replicas, **fields})
        if status not in (200, 201):
            raise AssertionError(f"deploy: {status} {body}")
        return wait_until(lambda: (lambda d: d if d["ready"] >= replicas else None)(
            self.get(f"/v1/deployments/{name}")), 30, f"{replicas} replicas of {name}")


class ClusterTest(unittest.TestCase):
    """One cluster per test class; its logs are printed when a test fails."""
    workers, slots, coordinator_args = 2, 2, ()

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(cls.workers, cls.slots, cls.coordinator_args)

    @classmethod
    def tearDownClass(cls):
        cls.cluster.stop()

    def run(self, result=None):
        failures = len(result.failures) + len(result.errors) if result else 0
        super().run(result)
        if result and len(result.failures) + len(result.errors) > failures:
            for log in sorted(self.cluster.folder.glob("*.log")):
                print(f"---- {log.name}\n{self.cluster.log(log.name)}", flush=True)


def main():
    """unittest's main, with ctest's exit status for a module that cannot run here."""
    program = unittest.main(exit=False, verbosity=2)
    result = program.result
    # A class that is skipped as a whole is one that is skipped, and none that was run.
    if result.skipped and result.testsRun <= len(result.skipped) and result.wasSuccessful():
        raise SystemExit(77)
    raise SystemExit(0 if result.wasSuccessful() else 1)
