"""The commands of `caffe` itself against real Caffe: to the same command lines the same logs, and to signals."""

import logging
import re
import shutil
import signal
from pathlib import Path

import pytest
from caffe_root import CaffeRoot
from commands import FOLDER, LINES, PREFIX, begins, kept, make_command_folder, rows
from helpers.run_command import run_command
from logs import messages
from parity import Parity

from pipeline.base.console import log

Log = list[tuple[str, list[float]]]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What our commands log."""
    folder = tmp_path_factory.mktemp("command")
    make_command_folder(folder)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, line in LINES.items():
            ran = run_command(*line.split())
            assert ran.status == 0, ran.log
            found[name] = kept(ran.log, name)
            for sidecar in folder.glob("*.resume.json"):  # with it, data would go on where Caffe begins anew
                sidecar.unlink()
    return found


@pytest.mark.parametrize("name", LINES)
def test_logs_as_caffe(name: str, logs: dict[str, str], parity: Parity) -> None:
    compare(name, logs[name], (FOLDER / f"{name}.txt").read_text(), parity)


def test_logs_as_live_caffe(logs: dict[str, str], caffe: CaffeRoot, parity: Parity) -> None:
    make_command_folder(caffe.folder)
    for name, line in LINES.items():
        compare(name, logs[name], kept(caffe.run("caffe", *line.split()), name), parity)


def compare(name: str, ours: str, caffe: str, parity: Parity) -> None:
    """Compare two logs line by line: the words are equal, the numbers within 1e-4, but for measured times."""
    said, expected = comparable(ours), comparable(caffe)
    assert [words for words, _ in said] == [words for words, _ in expected]
    deviations = [
        abs(number - other) / (max(abs(number), abs(other)) or 1)
        for (_, numbers), (_, others) in zip(said, expected, strict=True)
        for number, other in zip(numbers, others, strict=True)
    ]
    worst = max(deviations, default=0.0)
    assert worst <= 1e-4
    parity("Tools", "caffe resume" if name == "resume" else f"caffe {name}", "log", worst)


def comparable(log: str) -> Log:
    """A log's lines, without times and without what only ours says."""
    return [
        (words, [] if words.endswith(" ms.") else numbers)
        for words, numbers in messages(log)
        if not words.startswith(ONLY_OURS)
    ]


ONLY_OURS = "torch N"  # and whether it finds a GPU


def test_prints_messages_as_caffe(logs: dict[str, str]) -> None:
    assert printed(logs["train"]) == printed((FOLDER / "train.txt").read_text())


def printed(log: str) -> list[str]:
    """The lines of a log that go on from the one before: those of solvers and nets, whose numbers are texts here."""
    return [line for line in log.splitlines() if not PREFIX.match(line)]


@pytest.mark.parametrize("name", ["train", "resume"])
def test_caffes_own_parser_finds_the_same(name: str, logs: dict[str, str]) -> None:
    ours, caffe = rows(logs[name]), rows((FOLDER / f"{name}.txt").read_text())
    assert [row[0] for row in ours] == [row[0] for row in caffe]
    for row, other in zip(ours, caffe, strict=True):
        assert len(row) == len(other)
        for value, expected in zip(row[1:], other[1:], strict=True):
            try:
                assert float(value) == pytest.approx(float(expected), rel=1e-4)
            except ValueError:  # a blob's name
                assert value == expected
    assert PREFIX.fullmatch(begins(logs[name]))


# What real Caffe says before it aborts, or gflags before it exits with 1.
REFUSED = {
    "train": "Need a solver definition to train",
    "test": "Need a model definition to score",
    "test -model net.prototxt": "Need model weights to score",
    "time": "Need a model definition to time",
    "time -model net.prototxt -phase train": 'phase must be "TRAIN" or "TEST"',
    "train -solver solver.prototxt -snapshot a -weights b": "to resume training or weights to finetune but not both",
    "train -solver solver.prototxt -sighup_effect=off": 'nvalid signal effect "off"',
    "train -solver none.prototxt": "none.prototxt",
    "train -sover solver.prototxt": "ERROR: unknown command line flag 'sover'",
    "train -iterations few": "illegal value 'few'",
    "train -solver": "flag '-solver' is missing its argument",
    "device_query -gpu 0": "GPU",
}


@pytest.mark.parametrize("line", REFUSED)
def test_refuses_what_caffe_refuses(line: str, training_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "-gpu" in line:
        monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    shutil.copy(FOLDER / "solver.prototxt", training_folder)
    monkeypatch.chdir(training_folder)
    ran = run_command(*line.split())
    assert ran.status == 1
    assert REFUSED[line] in ran.log


def test_live_caffe_refuses_the_same(caffe: CaffeRoot) -> None:
    make_command_folder(caffe.folder)
    for line, said in REFUSED.items():
        with pytest.raises(RuntimeError, match=re.escape(said)):
            caffe.run("caffe", *line.split())


# Of trainings without an end: their solver, flags, what is sent when a line with these words comes, and what is logged
# from the first signal on, without the iterations and the second line of each snapshot.
ENDLESS = 'net: "net.prototxt" base_lr: 0.001 lr_policy: "fixed" max_iter: 100000000 snapshot_prefix: "endless" '
TRAINING = ENDLESS + "display: 1"
TESTING = ENDLESS + "test_interval: 10 test_iter: 100000000"
STOPPED = ["Optimization stopped early.", "Optimization Done."]
SIGNALS = {
    "SIGINT": (TRAINING, "", [("Iteration 5", signal.SIGINT)], ["snapshot", *STOPPED]),
    "SIGHUP": (
        TRAINING,
        "",
        [("Iteration 5", signal.SIGHUP), ("solver state", signal.SIGINT)],
        ["snapshot", "snapshot", *STOPPED],
    ),
    "SIGHUP that stops": (TRAINING, "-sighup_effect stop", [("Iteration 5", signal.SIGHUP)], ["snapshot", *STOPPED]),
    "SIGINT without effect": (
        TRAINING,
        "-sigint_effect=none --sighup_effect stop",
        [("Iteration 5", signal.SIGINT), ("Iteration", signal.SIGHUP)],
        ["snapshot", *STOPPED],
    ),
    "SIGINT in a test": (TESTING, "", [("Testing net", signal.SIGINT)], ["Test interrupted.", "snapshot", *STOPPED]),
    "SIGHUP in a test": (
        TESTING,
        "",
        [("Testing net", signal.SIGHUP), ("solver state", signal.SIGINT)],
        ["snapshot", "Test interrupted.", "snapshot", *STOPPED],
    ),
    "no snapshot after": (TRAINING + " snapshot_after_train: false", "", [("Iteration 5", signal.SIGINT)], STOPPED),
}


@pytest.mark.parametrize("name", SIGNALS)
def test_signals_act_as_in_caffe(
    name: str, training_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(training_folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    solver, flags, signals, expected = SIGNALS[name]
    Path("endless.prototxt").write_text(solver)
    sender = Sender(signals)
    log.addHandler(sender)
    ran = run_command("train", "-solver", "endless.prototxt", *flags.split())
    log.removeHandler(sender)
    assert ran.status == 0
    assert reaction(sender.said) == expected
    assert_left(tmp_path, sender.said)


class Sender(logging.Handler):
    """Sends this process the first of `signals` when a line with its words is logged; keeps what is said after it."""

    def __init__(self, signals: list[tuple[str, int]]) -> None:
        super().__init__()
        self.left = list(signals)
        self.sent = False
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if self.sent:
            self.said.append(message)
        if self.left and self.left[0][0] in message:
            self.sent = True
            signal.raise_signal(self.left.pop(0)[1])


def test_signals_act_as_in_live_caffe(caffe: CaffeRoot, parity: Parity) -> None:
    make_command_folder(caffe.folder)
    for name, (solver, flags, signals, expected) in SIGNALS.items():
        (caffe.folder / "endless.prototxt").write_text(solver)
        process = caffe.start("caffe", "train", "-solver", "endless.prototxt", *flags.split())
        assert process.stderr is not None
        left, said = list(signals), []
        for line in process.stderr:
            if len(left) < len(signals):
                said.append(PREFIX.sub("", line))
            if left and left[0][0] in line:
                process.send_signal(left.pop(0)[1])
        process.stderr.close()
        assert process.wait() == 0
        assert reaction(said) == expected, name
        assert_left(caffe.folder, said)
        for snapshot in caffe.folder.glob("endless_iter_*"):
            snapshot.unlink()
    parity("Tools", "caffe train", "signals", 0)


def reaction(said: list[str]) -> list[str]:
    """What was said of signals."""
    return [
        "snapshot" if "binary proto file" in line else line.rstrip()
        for line in said
        if not re.search("Iteration|net output|solver state|Waiting|Ignoring", line)
    ]


def assert_left(folder: Path, said: list[str]) -> None:
    """The folder has the snapshots that were said to be written, no other ones, and each whole."""
    for suffix in ("caffemodel", "solverstate"):
        written = set(re.findall(rf"endless_iter_\d+\.{suffix}", "".join(said)))
        assert {path.name for path in folder.glob(f"endless_iter_*.{suffix}")} == written
