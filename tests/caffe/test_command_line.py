"""The command with Caffe's words: its flags, its log, its refusals, what train, test, time and device_query do."""

import importlib
import logging
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.run_command import run_command

from pipeline.base.console import log
from pipeline.caffe.__main__ import COMMANDS
from pipeline.caffe.glog import log_file
from pipeline.caffe.tools.flags import FlagParser

NET = """
name: "Line"
layer { name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 1 }
  data_filler { value: 1 } data_filler { value: 0 } } }
layer { name: "w" type: "InnerProduct" bottom: "x" top: "wx"
  inner_product_param { num_output: 1 weight_filler { type: "constant" value: 1 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "wx" bottom: "y" top: "loss" loss_weight: 0.5 }
layer { name: "staged" type: "Silence" bottom: "x" include { stage: "b" min_level: 1 } }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A net, a solver and weights, in the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 3 display: 1 snapshot_prefix: "line"'
    )
    assert run_command("train", "-solver", "solver.prototxt").status == 0
    Path("line_iter_3.caffemodel").rename("line.caffemodel")
    return tmp_path


def lines(said: str) -> list[str]:
    return [re.sub(r"^[IWEF]\d{4} \S+ +\d+ \S+\] ", "", line) for line in said.splitlines()]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", ("", 50, False, [])),
        ("-name a --count 3 -gray in out", ("a", 3, True, ["in", "out"])),
        ("in --name=a -count=0x10 out -nogray", ("a", 16, False, ["in", "out"])),
        ("--gray=yes --count -2", ("", -2, True, [])),
        ("-gray=0 -name=", ("", 50, False, [])),
        ("-name -gray", ("-gray", 50, False, [])),
        ("-gray -- -name a", ("", 50, True, ["-name", "a"])),
        ("-count 1 -count 2", ("", 2, False, [])),
    ],
)
def test_flags_are_read_as_gflags_reads_them(words: str, expected: tuple[object, ...]) -> None:
    args = parser().parse(words.split())
    assert (args.name, args.count, args.gray, args.files) == expected


def parser() -> FlagParser:
    made = FlagParser(prog="tool")
    made.add_flag("name", "", "a name")
    made.add_flag("count", 50, "a number")
    made.add_flag("gray", False, "whether")
    made.add_argument("files", nargs="*")
    return made


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-nme a -cout=3", "ERROR: unknown command line flag 'nme'\nERROR: unknown command line flag 'cout'"),
        ("-count a", "illegal value 'a'"),
        ("-count 2147483648", "illegal value '2147483648'"),
        ("-gray=maybe", "illegal value 'maybe'"),
        ("-noname", "unknown command line flag 'noname'"),
        ("-name", "flag '-name' is missing its argument"),
    ],
)
def test_flags_that_cannot_be_read_end_with_status_1(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parser().parse(words.split())
    assert end.value.code == 1
    assert said in capsys.readouterr().err


def test_a_flag_with_dashes_is_the_one_with_underscores(folder: Path) -> None:
    assert 'invalid signal effect "x"' in run_command("train", "-solver", "solver.prototxt", "--sigint-effect=x").log


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_module_and_help(name: str) -> None:
    module = importlib.import_module(f"pipeline.caffe.tools.{name}")
    assert callable(module.run)
    ran = run_command(name, "--help")
    assert (ran.status, ran.log) == (0, "")
    assert "--minloglevel" in ran.output


def test_the_commands_are_told_without_torch() -> None:
    program = (
        "import sys, runpy; sys.argv = ['caffe']\n"
        "try: runpy.run_module('pipeline.caffe', run_name='__main__')\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("0 False\n")
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("words", [("trian",), ("-solver", "train", "x"), ("-solver", "x")])
def test_an_unknown_command_is_refused(words: tuple[str, ...]) -> None:
    ran = run_command(*words)
    assert ran.status == 1
    assert "ERROR" in ran.log


@pytest.mark.parametrize("words", ["train -solver x", "convert_imageset root/ list database"])
def test_a_word_too_many_is_refused(words: str) -> None:
    ran = run_command(*words.split(), "more", "words")
    assert ran.status == 1
    assert "ERROR: nothing takes the words more words\n" in ran.log


def test_flags_may_stand_before_the_action(folder: Path) -> None:
    ran = run_command("-solver", "solver.prototxt", "-minloglevel=1", "train", "-level", "1")
    assert (ran.status, ran.log) == (0, "")


def test_a_flag_without_use_is_warned_of(folder: Path) -> None:
    said = run_command(
        "test", "-model", "net.prototxt", "-weights", "line.caffemodel", "-solver", "x", "-iterations", "1"
    ).log
    assert "test has no use for --solver: it is ignored" in lines(said)[0]


def test_glogs_flags_and_environment_choose_what_is_logged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = ("train", "-solver", "solver.prototxt")
    whole = run_command(*train).log
    assert re.match(r"I\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ train\.py:\d+\] Use CPU\.\n", whole)
    Path("logs").mkdir()
    assert run_command(*train, "-log_dir", "logs", "-noalsologtostderr").log == ""
    (written,) = Path("logs").iterdir()
    assert len(written.read_text().splitlines()) == len(whole.splitlines())
    failed = run_command("train", "-noalsologtostderr").log
    assert failed.startswith("F")
    monkeypatch.setenv("GLOG_minloglevel", "2")
    assert run_command(*train).log == ""


def test_a_log_that_cannot_be_written_is_told(folder: Path) -> None:
    ran = run_command("train", "-solver", "solver.prototxt", "-log_dir", "nowhere")
    assert ran.status == 1
    assert "nowhere" in ran.log


def test_snapshot_and_weights_replace_the_solvers_weights(folder: Path) -> None:
    with open("solver.prototxt", "a") as file:
        file.write(' weights: "none.caffemodel" snapshot: 1')
    assert run_command("train", "-solver", "solver.prototxt").status == 1
    said = lines(run_command("train", "-solver", "solver.prototxt", "-weights", "line.caffemodel,line.caffemodel").log)
    assert said.count("Finetuning from line.caffemodel") == 2
    said = lines(run_command("train", "-solver", "solver.prototxt", "-snapshot", "line_iter_1.solverstate").log)
    resumed = said[said.index("Resuming from line_iter_1.solverstate") :]
    assert resumed[1:4] == ["Starting Optimization", "Solving Line", "Learning Rate Policy: fixed"]
    assert [line.split(" (")[0] for line in resumed if "iter/s" in line] == ["Iteration 1", "Iteration 2"]


def test_level_and_stage_choose_layers(folder: Path) -> None:
    with open("solver.prototxt", "a") as file:
        file.write(" train_state { level: 1 }")
    said = lines(run_command("train", "-solver", "solver.prototxt", "-stage", "a,b").log)
    assert "train_state's level 1 becomes 0, as in Caffe: give -level 1 to keep it" in said
    assert not any("Creating Layer staged" in line for line in said)
    assert "The NetState level (0) is below the min_level (1) specified by a rule in layer staged" in said
    said = lines(run_command("train", "-solver", "solver.prototxt", "-stage", "a,b", "-level", "1").log)
    assert "Creating Layer staged" in said


@pytest.mark.parametrize(
    ("flags", "number", "left"),
    [
        ((), signal.SIGINT, [2]),
        ((), signal.SIGHUP, [2, 3]),
        (("-sigint_effect=snapshot",), signal.SIGINT, [2, 3]),
        (("-sigint_effect", "none"), signal.SIGINT, [3]),
        (("-sighup_effect", "stop"), signal.SIGHUP, [2]),
    ],
)
def test_a_signal_acts_after_the_iteration_that_runs(
    folder: Path, flags: tuple[str, ...], number: int, left: list[int]
) -> None:
    class Sender(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("Iteration 1 ("):
                signal.raise_signal(number)

    before = signal.getsignal(number)
    log.addHandler(sender := Sender())
    ran = run_command("train", "-solver", "solver.prototxt", *flags)
    log.removeHandler(sender)
    assert ran.status == 0
    assert sorted(int(path.stem.split("_")[-1]) for path in folder.glob("line_iter_*.caffemodel")) == left
    assert ("Optimization stopped early." in ran.log) == (3 not in left)
    assert signal.getsignal(number) == before


def test_ctrl_c_snapshots_where_it_ends_the_reader_of_the_log_too(folder: Path) -> None:
    """As in `train ... 2>&1 | tee log`, where real Caffe dies of SIGPIPE before it has snapshotted."""
    solver = Path("solver.prototxt")
    solver.write_text(solver.read_text().replace("max_iter: 3", "max_iter: 100000000"))
    for path in folder.glob("line_iter_*"):
        path.unlink()
    command = [sys.executable, "-m", "pipeline.caffe", "train", "-solver", "solver.prototxt"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("Iteration 1 " in line for line in process.stderr)
        process.stderr.close()
        process.send_signal(signal.SIGINT)
    assert process.returncode == 0
    assert list(folder.glob("line_iter_*.solverstate"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_log_on_a_full_disk_is_told_once_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with log_file(Path("/dev/full")) as logger:
        logger.info("one")
        logger.info("two")
    assert caplog.messages == ["/dev/full: No space left on device; nothing more is logged there"]


def test_a_net_is_scored_by_the_means_of_its_outputs(folder: Path) -> None:
    said = lines(run_command("test", "-model", "net.prototxt", "-weights", "line.caffemodel", "-iterations", "2").log)
    scored = said[said.index("Running for 2 iterations.") + 1 :]
    pattern = r"Batch 0, loss = (\S+)|Batch 1, loss = (\S+)|Loss: (\S+)|loss = (\S+) \(\* 0\.5 = (\S+) loss\)"
    assert len(scored) == 4
    matches = [re.fullmatch(pattern, line) for line in scored]
    values = [float(value) for match in matches if match for value in match.groups() if value]
    assert values == pytest.approx([values[0], values[0], values[0] / 2, values[0], values[0] / 2], rel=1e-5)


@pytest.mark.parametrize("words", [("test", "-weights", "line.caffemodel"), ("time",)])
def test_no_iterations_are_refused(folder: Path, words: tuple[str, ...]) -> None:
    ran = run_command(*words, "-model", "net.prototxt", "-iterations", "0")
    assert ran.status == 1
    assert "-iterations 0 where at least 1 was expected" in ran.log


def test_times_of_layers_add_up(folder: Path) -> None:
    said = lines(run_command("time", "-model", "net.prototxt", "-iterations", "3").log)
    for way in ("forward", "backward"):
        times = [float(match[1]) for line in said if (match := re.search(rf"\t{way}: (\S+) ms\.$", line))]
        assert len(times) == 3
        assert all(time > 0 for time in times)
        (whole,) = (float(line.split()[-2]) for line in said if line.startswith(f"Average {way.capitalize()} pass"))
        assert sum(times) == pytest.approx(whole, rel=1e-4)


def test_a_net_whose_layers_share_a_weight_is_timed(folder: Path) -> None:
    layer = (
        'layer {{ name: "{0}" type: "InnerProduct" bottom: "{1}" top: "{0}" param {{ name: "w" }} '
        "inner_product_param {{ num_output: 3 }} }}"
    )
    Path("shared.prototxt").write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } '
        "} }" + layer.format("a", "x") + layer.format("b", "a")
    )
    assert run_command("time", "-model", "shared.prototxt", "-iterations", "1").status == 0


@pytest.mark.parametrize(
    ("gpu", "said"),
    [
        ("2", "torch finds only 2, from 0 here"),
        ("first", "a number, several with commas between them, or all was expected"),
    ],
)
def test_gpus_that_cannot_be_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, gpu: str, said: str) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    ran = run_command("train", "-solver", "solver.prototxt", "-gpu", gpu)
    assert ran.status == 1
    assert said in ran.log


def test_the_latest_snapshot_is_resumed_if_there_is_any(folder: Path) -> None:
    Path("line_iter_3.solverstate").unlink()
    words = ("train", "-solver", "solver.prototxt", "-snapshot", "latest")
    assert "Resuming" not in run_command(*words).log
    text = Path("solver.prototxt").read_text()
    Path("solver.prototxt").write_text(text.replace("max_iter: 3", "max_iter: 11"))
    assert "Resuming from line_iter_3.solverstate" in run_command(*words).log
    assert "Resuming from line_iter_11.solverstate" in run_command(*words).log  # 11 is later than 3


def test_a_solver_for_a_gpu_is_refused_without_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with open("solver.prototxt", "a") as file:
        file.write(" solver_mode: GPU")
    ran = run_command("train", "-solver", "solver.prototxt")
    assert ran.status == 1
    assert "solver_mode is GPU, and torch finds none here; give solver_mode: CPU" in ran.log


def test_gpus_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(major=9, minor=0, name="Card", total_memory=85, multi_processor_count=132)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda gpu: found)
    said = lines(run_command("device_query", "-gpu", "1").log)
    assert said[:2] == ["Querying GPUs 1", "Device id:                     1"]
    assert "Name:                          Card" in said
    assert run_command("device_query").log.count("Device id") == 2
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "finds no GPU here" in run_command("device_query").log
