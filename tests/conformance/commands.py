"""The commands of `caffe` itself: their command lines, and what real Caffe logs to them."""

import re
import shutil
from pathlib import Path

from caffe_root import CaffeRoot
from harness import HERE
from logs import PREFIX
from solving import make_training_folder

FOLDER = HERE / "command"

# Run in this order in one folder: the second goes on from a snapshot of the first.
LINES = {
    "train": "train -solver solver.prototxt -weights net.caffemodel -stage accurate,x --level=1",
    "resume": "--solver=solver.prototxt --snapshot command_iter_10.solverstate -stage accurate train",
    "test": "test -model net.prototxt --weights=net.caffemodel -stage accurate -iterations 3",
    "time": "time -model net.prototxt -phase TEST -iterations 2",
    "device_query": "device_query",
}
# Of the others' logs only what comes after the net, which is in this one.
WITH_NET = "train"
NET_DONE = "Network initialization done."

# Lines that have no counterpart: how databases, threads and old files are handled, layers that layers hold, and the
# blobs that test nets take over before every test.
WITHOUT_COUNTERPART = re.compile(
    r" (db_lmdb|data_layer|data_transformer|blocking_queue|upgrade_proto)\.(cpp|py):|Ignoring source layer"
    r"|SGDSolver: restoring history|Creating layer "
)


def make_command_folder(folder: Path) -> None:
    """Make what the command lines read."""
    make_training_folder(folder)
    shutil.copy(FOLDER / "solver.prototxt", folder)


def record_commands(caffe: CaffeRoot) -> None:
    """Keep real Caffe's logs."""
    make_command_folder(caffe.folder)
    for name, line in LINES.items():
        log = caffe.run("caffe", *line.split())
        (FOLDER / f"{name}.txt").write_text(kept(log, name))


def kept(log: str, name: str) -> str:
    """What is compared of a command's log."""
    lines = log.splitlines(keepends=True)
    if name != WITH_NET:
        last = max((number for number, line in enumerate(lines) if NET_DONE in line), default=-1)
        lines = lines[last + 1 :]
    return "".join(line for line in lines if not WITHOUT_COUNTERPART.search(line))


def rows(log: str) -> list[tuple[str, ...]]:
    """What Caffe's parse_log.py and parse_log.sh find in a log: iterations, rates and outputs, in order.

    The expressions and the places of fields are theirs (caffe/tools/extra); numbers stay text.
    """
    found = []
    for line in log.splitlines():
        for kind, expression in EXPRESSIONS.items():
            if match := re.search(expression, line):
                found.append((kind, *match.groups(default="")))
        fields = line.split()
        if ", lr = " in line:
            found.append(("awk lr", fields[8]))
        if "Test net output #0" in line:
            found.append(("awk test", fields[10]))
    return found


EXPRESSIONS = {
    "iteration": r"Iteration (\d+)",
    "train": r"Train net output #(\d+): (\S+) = ([\.\deE+-]+)",
    "test": r"Test net output #(\d+): (\S+) = ([\.\deE+-]+)",
    "rate": r"lr = ([-+]?[0-9]*\.?[0-9]+(?:[eE]?[-+]?[0-9]+)?)",
}


def begins(log: str) -> str:
    """The prefix of the line from which Caffe's scripts count the seconds."""
    line = next(line for line in log.splitlines() if "Solving" in line)
    match = PREFIX.match(line)
    assert match is not None, line
    return match[0]
