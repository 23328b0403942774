"""A Slurm cluster on this machine: munged, slurmctld and a slurmd for each of two nodes, all in a folder of their own.

    python -m tests.helpers.slurm_cluster snakemake --workflow-profile profiles/slurm train --config csv=sample

runs a command in such a cluster and ends it afterwards. Debian's packages are munge, slurmctld, slurmd and
slurm-client. Only root can: the executor plugin takes SLURM_CONF out of a job's environment, so the configuration must
be where srun looks for it.
"""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
NODES = ("node1", "node2")
CONFIGURED = Path("/etc/slurm/slurm.conf")
SYSTEM_FOLDERS = "/usr/sbin:/sbin"  # where Debian has the daemons, and PATH of a user may not lead
# No accounting: jobs that have ended stay in slurmctld, and squeue tells them for MinJobAge seconds.
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
MinJobAge=86400
KillWait=5
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus} RealMemory={memory}
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus} RealMemory={memory}
PartitionName=all Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    """The programs of Slurm and munge that this machine lacks."""
    return [name for name in PROGRAMS if not _find(name)]


@contextmanager
def slurm_cluster() -> Iterator[None]:
    """Run a cluster, which Slurm's commands reach as they would any other.

    Raises RuntimeError where this machine has a cluster already, and with the end of a daemon's log where one does not
    start.
    """
    with ExitStack() as stack:
        # A short path: munge's socket has room for 107 bytes.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm", ignore_cleanup_errors=True)))
        folder.chmod(0o755)  # munged wants others to reach its socket
        for name in ("state", *NODES):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        configuration = folder / "slurm.conf"
        configuration.write_text(
            CONFIGURATION.format(
                folder=folder,
                host=socket.gethostname().partition(".")[0],
                user=getpass.getuser(),
                ports=_free_ports(3),
                cpus=os.cpu_count(),
                memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
            )
        )
        stack.enter_context(_configured(configuration))

        def start(log: str, ready: Callable[[], bool], *command: str) -> None:
            with open(folder / f"{log}.output", "wb") as said:
                process = subprocess.Popen(
                    [_find(command[0]) or command[0], *command[1:]],
                    stdout=said,
                    stderr=said,
                    start_new_session=True,
                )
            stack.callback(_end, process)
            limit = time.monotonic() + 30
            while not ready():
                if process.poll() is not None or time.monotonic() > limit:
                    paths = [path for path in (folder / f"{log}.log", folder / f"{log}.output") if path.exists()]
                    raise RuntimeError(
                        f"{log} did not start:\n" + "\n".join(path.read_text()[-2000:] for path in paths)
                    )
                time.sleep(0.1)

        def answers(*command: str, said: str) -> Callable[[], bool]:
            def asks() -> bool:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                return done.returncode == 0 and said in done.stdout

            return asks

        munge = folder / "munge"
        options = [
            f"--{name}={munge}.{name.partition('-')[0]}" for name in ("socket", "pid-file", "log-file", "seed-file")
        ]
        start("munge", Path(f"{munge}.socket").exists, "munged", "--foreground", f"--key-file={key}", *options)
        start("slurmctld", answers("scontrol", "ping", said="is UP"), "slurmctld", "-D", "-i")
        for node in NODES:
            up = answers("sinfo", "--noheader", "--nodes", node, "--format=%T", said="idle")
            start(node, up, "slurmd", "-D", "-N", node)
        yield


@contextmanager
def _configured(configuration: Path) -> Iterator[None]:
    """Have Slurm's commands find a configuration."""
    if CONFIGURED.is_symlink() and not CONFIGURED.exists():  # of a cluster that was killed
        CONFIGURED.unlink()
    if CONFIGURED.exists():
        raise RuntimeError(f"{CONFIGURED}: this machine is part of a cluster, or runs this one already")
    CONFIGURED.parent.mkdir(parents=True, exist_ok=True)
    CONFIGURED.symlink_to(configuration)
    try:
        yield
    finally:
        CONFIGURED.unlink()


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{SYSTEM_FOLDERS}")


def _free_ports(count: int) -> list[int]:
    """Ports on which nobody listens now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> None:
    missing = missing_programs()
    if missing:
        sys.exit(f"{', '.join(missing)}: not found; apt-get install munge slurmctld slurmd slurm-client")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with slurm_cluster():
        sys.exit(subprocess.run(sys.argv[1:], check=False).returncode)


if __name__ == "__main__":
    main()
