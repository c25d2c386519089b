"""A real Slurm of two nodes on this one machine: munged, slurmctld and two slurmd, in a folder of
their own, on ports of their own."""
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time


class Unavailable(Exception):
    """This machine cannot run it; the message says why."""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Slurm:
    def __init__(self, nodes=("n0", "n1")):
        for program in ("munged", "slurmctld", "slurmd", "srun", "sbatch"):
            if shutil.which(program) is None and not os.path.exists(f"/usr/sbin/{program}"):
                raise Unavailable(f"{program} is not installed")
        if os.geteuid() != 0:
            raise Unavailable("slurmd needs root")
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lepton-slurm."))
        os.chmod(self.folder, 0o755)
        self.processes = []
        self.env = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"),
                    "PATH": os.environ["PATH"] + ":/usr/sbin"}
        try:
            self.start(nodes)
        except BaseException:
            self.stop()
            raise

    def start(self, nodes):
        key, sock = self.folder / "munge.key", self.folder / "munge.sock"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self.spawn("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={sock}",
                   f"--pid-file={self.folder}/munged.pid", f"--log-file={self.folder}/munged.log",
                   f"--seed-file={self.folder}/munged.seed")
        host = socket.gethostname()
        lines = [
            "ClusterName=lepton", f"SlurmctldHost={host}(127.0.0.1)", f"SlurmctldPort={free_port()}",
            "SlurmUser=root", "SlurmdUser=root", f"AuthInfo=socket={sock}", "AuthType=auth/munge",
            f"StateSaveLocation={self.folder}/state", f"SlurmdSpoolDir={self.folder}/spool.%n",
            f"SlurmctldPidFile={self.folder}/ctld.pid", f"SlurmdPidFile={self.folder}/slurmd.%n.pid",
            f"SlurmctldLogFile={self.folder}/ctld.log", f"SlurmdLogFile={self.folder}/slurmd.%n.log",
            # Each node its own, or their PMIx servers would share one folder.
            f"TmpFS={self.folder}/tmp.%n",
            "ProctrackType=proctrack/linuxproc", "TaskPlugin=task/none",
            "SelectType=select/cons_tres", "SelectTypeParameters=CR_Core", "MpiDefault=pmix",
            "SwitchType=switch/none", "ReturnToService=2", "SlurmdTimeout=30", "SlurmctldTimeout=30",
            "AccountingStorageType=accounting_storage/none", "JobAcctGatherType=jobacct_gather/none",
            "SchedulerParameters=batch_sched_delay=0,sched_interval=1", "KillWait=5",
        ]
        for node in nodes:
            lines.append(f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} "
                         f"CPUs=2 RealMemory=1000 State=UNKNOWN")
        lines.append(f"PartitionName=main Nodes={','.join(nodes)} Default=YES MaxTime=INFINITE State=UP")
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "state").mkdir()
        self.spawn("slurmctld", "-D", "-f", self.folder / "slurm.conf")
        for node in nodes:
            (self.folder / f"spool.{node}").mkdir()
            (self.folder / f"tmp.{node}").mkdir()
            self.spawn("slurmd", "-D", "-N", node, "-f", self.folder / "slurm.conf")
        deadline = time.monotonic() + 40
        while True:
            state = self.call("sinfo", "-h", "-N", "-o", "%N %t", check=False).stdout
            if len([line for line in state.splitlines() if line.endswith("idle")]) == len(nodes):
                return
            if time.monotonic() > deadline:
                logs = "\n".join(f"{p.name}: {p.read_text(errors='replace')[-1500:]}"
                                 for p in self.folder.glob("*.log"))
                raise RuntimeError(f"the nodes did not become idle: {state!r}\n{logs}")
            time.sleep(0.2)

    def spawn(self, *command):
        with open(self.folder / f"{command[0]}.out", "ab") as out:
            self.processes.append(subprocess.Popen([str(c) for c in command], stdout=out, stderr=out,
                                                   env=self.env, start_new_session=True))

    def call(self, *command, check=True, timeout=120, cwd=None):
        return subprocess.run([str(c) for c in command], capture_output=True, text=True, env=self.env,
                              check=check, timeout=timeout, cwd=cwd)

    def stop(self):
        subprocess.run(["scancel", "--state=RUNNING"], env=self.env, capture_output=True, timeout=20,
                       check=False) if len(self.processes) > 1 else None
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
        shutil.rmtree(self.folder, ignore_errors=True)
