"""Real Caffe as the second engine: its commands, run in a container, a conda environment or a root, and what they log.

All of them see the working folder under its own path, so a prototxt's relative paths mean the same in both engines.
"""

import hashlib
import os
import re
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from google.protobuf.message import Message

from pipeline.base.errors import InputError
from pipeline.caffe.forks import EXTENSIONS, FIRST_FORK_FIELD
from pipeline.caffe.proto.caffe_pb2 import LayerParameter, SolverParameter
from pipeline.caffe.train_log_parser import LOSS, OUTPUT, RATE, TEST_NET

if TYPE_CHECKING:  # they bring torch, which takes seconds and which real Caffe does not need to measure a net
    from pipeline.caffe.solver.snapshot import Snapshot
    from pipeline.caffe.solver.solve import Event, Tested

ENGINES = ("torch", "caffe")
FIRST_OWN_FIELD = 1001  # in caffe.proto
CONTAINER_ENGINES = ("docker", "podman")
IMAGE = "caffe"  # of docker/caffe.Dockerfile
CONDA_ENVIRONMENT = "caffe"  # of docker/caffe-environment.yml

HOW_TO_GET = {
    **{engine: f"{engine} build -f docker/caffe.Dockerfile -t {IMAGE} docker" for engine in CONTAINER_ENGINES},
    "conda": "conda env create -f docker/caffe-environment.yml",
    "a root": "sudo sh docker/caffe-root.sh DIR, then name DIR",
}

_SNAPSHOT = re.compile(r"Snapshotting solver state to (?:binary proto|HDF5) file (.+)_iter_(\d+)\.solverstate(\.h5)?")
_TEST_LOSS = re.compile(r"Test loss: (\S+)")
_END_OF_TEST = re.compile(r"\] (?:Iteration|Snapshotting|Optimization)")  # not what the data layer says amidst it
_LAST_LINES = 20  # of what a command said, for an error


class CaffeError(InputError):
    """Real Caffe that is not there, or a command of it that failed."""


def root_from_environment() -> str:
    """The root that CAFFE_ROOT names. Raises CaffeError, which lists every way to have real Caffe, without one."""
    root = os.environ.get("CAFFE_ROOT")
    if not root:
        ways = "; ".join(f"{name}: {command}" for name, command in HOW_TO_GET.items())
        raise CaffeError(
            f"engine caffe: nothing says where real Caffe is; get it by one of these and name it as caffe ({ways})"
        )
    return root


def require_caffe(where: str) -> None:
    """Raise CaffeError, which says how to get it, when real Caffe is not there. where: as RealCaffe's."""
    missing = find_missing(where)
    if missing:
        hint = HOW_TO_GET.get(where, HOW_TO_GET["a root"])
        raise CaffeError(f"engine caffe: {missing}; get it by: {hint}")


def find_missing(where: str) -> str:
    """What real Caffe lacks to run in `where`; empty when nothing is missing."""
    if where not in (*CONTAINER_ENGINES, "conda"):
        caffe = Path(where) / "usr/bin/caffe"
        return "" if caffe.is_file() else f"{caffe} does not exist"
    if shutil.which(where) is None:
        return f"{where} is not installed"
    if where == "conda":
        probe = ["conda", "run", "-n", CONDA_ENVIRONMENT, "caffe", "--version"]
    else:
        probe = [where, "image", "inspect", IMAGE]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return f"'{' '.join(probe)}' failed ({said})" if done.returncode else ""


def refuse_extensions(message: Message, where: str) -> None:
    """Raise CaffeError naming the first layer type or field of a message that Caffe does not have.

    Fields of this project's own are numbered from FIRST_OWN_FIELD on, those of layers that forks have from
    FIRST_FORK_FIELD on.
    """
    first = FIRST_FORK_FIELD if isinstance(message, LayerParameter) else FIRST_OWN_FIELD
    if isinstance(message, LayerParameter) and message.type in EXTENSIONS:
        raise CaffeError(
            f"engine caffe: {where} is of type {message.type}, which is none of Caffe 1.0's but the fork "
            f"{EXTENSIONS[message.type]}; take the engine torch"
        )
    for descriptor, value in message.ListFields():
        if descriptor.number >= first:
            raise CaffeError(
                f"engine caffe: {where} sets {descriptor.name}, which Caffe does not have; leave it out, "
                "or take the engine torch"
            )
        if descriptor.message_type is not None:
            for part in value if descriptor.is_repeated else [value]:
                name = f" '{part.name}'" if descriptor.name == "layer" else ""
                refuse_extensions(part, f"{where}: {descriptor.name}{name}")


class RealCaffe:
    """Runs Caffe's commands.

    where: docker, podman, conda, or the folder of a root that docker/caffe-root.sh made. threads: of its BLAS.
    Raises CaffeError, saying how to get it, when it is not there.
    """

    def __init__(self, where: str, threads: int) -> None:
        self.where = where
        self.threads = threads
        require_caffe(where)
        self.version = self.run("caffe", "--version").strip()
        self._process: subprocess.Popen[str] | None = None
        self._interrupted = False

    def command(self, tool: str, *arguments: str, container: str | None = None) -> list[str]:
        """The command line that runs a tool of Caffe's in the working folder. container: the name of one, where it
        is to have one."""
        settings = {
            "OPENBLAS_NUM_THREADS": str(self.threads),
            "OMP_NUM_THREADS": str(self.threads),
            "GLOG_logtostderr": "1",
        }
        if self.where in CONTAINER_ENGINES:
            here = os.getcwd()
            # Podman without root maps the container's root to the user; Docker's would own what it writes.
            owner = ["--user", f"{os.getuid()}:{os.getgid()}"] if self.where == "docker" else []
            given = [part for name, value in settings.items() for part in ("--env", f"{name}={value}")]
            name = ["--name", container] if container else []
            return [
                self.where,
                "run",
                "--rm",
                *name,
                *owner,
                "--volume",
                f"{here}:{here}",
                "--workdir",
                here,
                *given,
                IMAGE,
                tool,
                *arguments,
            ]
        prefix = ["env", *(f"{name}={value}" for name, value in settings.items())]
        if self.where == "conda":
            return [*prefix, "conda", "run", "--no-capture-output", "-n", CONDA_ENVIRONMENT, tool, *arguments]
        # The root's own loader and libraries: so Caffe sees this machine's folders, and it takes no rights to enter.
        root = Path(self.where).absolute()
        libraries = root / "usr/lib/x86_64-linux-gnu"
        folders = (libraries / "openblas-pthread", root / "lib/x86_64-linux-gnu", libraries, root / "usr/lib")
        loader = root / "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
        return [
            *prefix,
            str(loader),
            "--library-path",
            ":".join(map(str, folders)),
            str(root / "usr/bin" / tool),
            *arguments,
        ]

    def run(self, tool: str, *arguments: str) -> str:
        """Run a tool to its end and return what it printed. Raises CaffeError with its last words when it fails."""
        done = subprocess.run(self.command(tool, *arguments), capture_output=True, text=True, check=False)
        if done.returncode:
            raise _failure(tool, done.returncode, done.stderr.splitlines())
        return done.stdout

    def train(self, param: SolverParameter, solver: Path, start: "Snapshot | None", log: TextIO) -> Generator["Event"]:
        """Train by `caffe train`, from a snapshot or from the beginning; yield what it does as it logs it.

        Its lines are written to `log`. Of the iterations only those that are displayed are yielded. Raises CaffeError
        when it fails; closed before its end it has Caffe killed.
        """
        snapshot = ["-snapshot", str(start.state)] if start else []
        # By the run's folder, since a container outlives what started it: one that was left is in the way of the next.
        container = f"caffe-{hashlib.sha256(bytes(solver.absolute())).hexdigest()[:16]}"
        command = self.command("caffe", "train", "-solver", str(solver), *snapshot, container=container)
        self._end_container(container)
        # In a session of its own, so that Ctrl-C reaches it once, by interrupt(). Where this process is killed, it dies
        # of SIGPIPE at its next line, of which one comes before each snapshot: it writes over none of the next run's.
        process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._process = process
        if self._interrupted:  # before there was a process to tell
            self.interrupt()
        last: deque[str] = deque(maxlen=_LAST_LINES)
        assert process.stderr is not None
        try:
            yield from events(_noted(process.stderr, log, last), param)
            if process.wait() and (not self._interrupted or _fatal(last)):
                raise _failure("caffe train", process.returncode, last)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                self._end_container(container)
            process.stderr.close()

    def _end_container(self, name: str) -> None:
        """End and remove a container, if Caffe runs in one and it is there."""
        if self.where in CONTAINER_ENGINES:
            subprocess.run([self.where, "rm", "--force", name], capture_output=True, check=False)

    def interrupt(self) -> None:
        """Have the training that runs write a snapshot and stop."""
        self._interrupted = True
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)


def _noted(lines: Iterable[str], log: TextIO, last: deque[str]) -> Iterator[str]:
    """The lines as they come, kept in `log` and `last`."""
    for line in lines:
        log.write(line)
        log.flush()
        last.append(line)
        yield line


def _failure(tool: str, status: int, lines: Iterable[str]) -> CaffeError:
    """The error of a tool that failed: the line of glog's that was fatal, or else the last one."""
    said = [line.strip() for line in lines if line.strip()] or ["it said nothing"]
    return CaffeError(f"{tool} of real Caffe ended with status {status}: {_fatal(said) or said[-1]}")


def _fatal(lines: Iterable[str]) -> str | None:
    """The first of glog's lines that was fatal."""
    return next((line.strip() for line in lines if line.startswith("F")), None)


def events(lines: Iterable[str], param: SolverParameter) -> Iterator["Event"]:
    """What a log of `caffe train` tells, as the events that training.solve yields.

    A test's or display's lines come together; an event is yielded with the line that ends it.
    """
    import torch

    from pipeline.caffe.solver.snapshot import Snapshot
    from pipeline.caffe.solver.solve import Finished, Iterated, Snapshotted, Tested

    test: tuple[int, int] | None = None  # iteration and net
    outputs: dict[str, list[float]] = {}
    test_loss = loss = float("nan")
    snapshot: Snapshot | None = None
    iteration = 0

    def tested() -> Iterator["Tested"]:
        if test is not None and outputs:  # none where a signal interrupted it
            yield Tested(*test, {name: torch.tensor(values) for name, values in outputs.items()}, test_loss)

    for line in lines:
        if snapshot is not None:  # another line: it is written
            yield Snapshotted(snapshot)
            snapshot = None
        if found := re.search(r"\] Iteration (\d+)", line):
            iteration = int(found[1])
        if (found := OUTPUT.search(line)) and found[1] == "Test":
            outputs.setdefault(found[3], []).append(float(found[4]))
            continue
        if found := _TEST_LOSS.search(line):
            test_loss = float(found[1])
            continue
        if test is not None and _END_OF_TEST.search(line):
            yield from tested()
            test, outputs, test_loss = None, {}, float("nan")
        if found := TEST_NET.search(line):
            test, outputs, test_loss = (iteration, int(found[1])), {}, float("nan")
        elif found := LOSS.search(line):
            loss = float(found[1])
            if iteration == param.max_iter:
                yield Finished(iteration, loss)
        elif found := RATE.search(line):
            yield Iterated(iteration, loss, float(found[1]), displayed=True)
        elif found := _SNAPSHOT.search(line):
            snapshot = Snapshot(found[1], int(found[2]), hdf5=found[3] is not None)
    yield from tested()
    if snapshot is not None:
        yield Snapshotted(snapshot)
