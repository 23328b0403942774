"""parse_log and plot_training_log: logs of several test nets, resumed, cut, of other things."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from helpers.pictures import read_picture
from helpers.run_tool import run_tool

from pipeline.base.errors import InputError
from pipeline.caffe.tools.plot_training_log import CHARTS, curves_of
from pipeline.caffe.train_log_parser import read_history


def line(clock: str, message: str, day: str = "0704") -> str:
    return f"I{day} {clock} 12345 solver.cpp:1] {message}\n"


def display(clock: str, iteration: int, loss: str, rate: str = "0.1") -> str:
    return (
        line(clock, f"Iteration {iteration} (5 iter/s, 2s/10 iters), loss = {loss}")
        + line(clock, f"    Train net output #0: loss = {loss} (* 1 = {loss} loss)")
        + line(clock, f"Iteration {iteration}, lr = {rate}")
    )


def one_test(clock: str, iteration: int, accuracy: str, net: int = 0) -> str:
    return (
        line(clock, f"Iteration {iteration}, Testing net (#{net})")
        + line(clock, f"    Test net output #0: accuracy = {accuracy}")
        + line(clock, "    Test net output #1: per_class = 0.25")
        + line(clock, "    Test net output #2: per_class = 0.75")
    )


START = "some build\n" + line("09:00:00.000000", "Iteration 7, not yet") + line("10:00:00.000000", "Solving Net")
LOG = (
    START
    + one_test("10:00:00.500000", 0, "0.1")
    + display("10:00:01.000000", 0, "2.5")
    + "a progress bar\n"
    + display("10:00:03.250000", 10, "nan", "0.01")
    + one_test("10:00:04.000000", 20, "0.6")
    + display("10:00:05.000000", 20, "1e-05", "0.001")
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write(tmp_path, LOG)


def write(folder: Path, text: str, name: str = "train.log") -> Path:
    (folder / name).write_text(text)
    return folder / name


def table(path: Path, delimiter: str = ",") -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file, delimiter=delimiter))


def test_tables_have_a_row_for_each_display_and_test(log: Path, tmp_path: Path) -> None:
    run_tool("parse_log", log, tmp_path, "--delimiter", ";")
    assert table(tmp_path / "train.log.train", ";") == [
        ["NumIters", "Seconds", "LearningRate", "loss"],
        ["0.0", "1.0", "0.1", "2.5"],  # the rate before the second row, since none was displayed before the first
        ["10.0", "3.25", "0.1", "nan"],
        ["20.0", "5.0", "0.01", "1e-05"],
    ]
    assert table(tmp_path / "train.log.test", ";") == [
        ["NumIters", "Seconds", "LearningRate", "accuracy", "per_class", "per_class[1]"],
        ["0.0", "0.5", "0.01", "0.1", "0.25", "0.75"],
        ["20.0", "4.0", "0.01", "0.6", "0.25", "0.75"],
    ]


def test_each_test_net_has_a_table(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tests = "".join(
        one_test("10:00:01.000000", iteration, f"0.{net}{iteration}", net) for iteration in (1, 2) for net in (0, 1)
    )
    with caplog.at_level("INFO", logger="pipeline"):
        run_tool("parse_log", write(tmp_path, START + tests), tmp_path, "-verbose")
    for name, net in (("test", 0), ("test1", 1)):
        assert [row[3] for row in table(tmp_path / f"train.log.{name}")] == ["accuracy", f"0.{net}1", f"0.{net}2"]
    assert caplog.messages == [
        f"Not writing {tmp_path}/train.log.train; no lines to write",
        f"Wrote {tmp_path}/train.log.test",
        f"Wrote {tmp_path}/train.log.test1",
    ]


def test_a_resumed_training_goes_on(tmp_path: Path) -> None:
    log = write(
        tmp_path,
        START
        + display("10:00:01.000000", 0, "3")
        + line("10:00:02.000000", "Iteration 10 (5 iter/")
        + line("11:00:00.000000", "Solving Net")
        + line("11:00:00.000000", "Resuming from x_iter_5")
        + display("11:00:01.000000", 10, "2"),
    )
    history = read_history(log)
    assert [(row.iteration, row.seconds, row.rate) for row in history.train[1:]] == [(10, 3601, 0.1)]


@pytest.mark.parametrize(
    ("first", "second", "year", "days"),
    [("1231", "0101", 2026, 1), ("0228", "0229", 2024, 1), ("0229", "0301", 2024, 1), ("0228", "0301", 2023, 1)],
)
def test_seconds_go_on_over_the_ends_of_months_and_years(
    tmp_path: Path, first: str, second: str, year: int, days: int
) -> None:
    log = write(
        tmp_path,
        line("10:00:00.000000", "Solving Net", first)
        + line("10:00:00.000000", "Iteration 0, loss = 1", first)
        + line("10:00:00.000000", "Iteration 1, loss = 1", second),
    )
    time = (year - 1970) * 365.2425 * 86400 + 86400 * 60
    os.utime(log, (time, time))
    assert [value.seconds for value in read_history(log).losses] == [0, days * 86400]


def test_a_log_that_is_being_written_is_read_to_its_last_whole_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = LOG + "".join(one_test("10:01:00.000000", 30, "0.7").splitlines(keepends=True)[:3])
    history = read_history(write(tmp_path, text[:-9]))
    assert [row.iteration for row in history.tests[0]] == [0, 20]
    number = len(text.splitlines())
    assert caplog.messages == [
        f"{tmp_path}/train.log:{number}: the last line is cut off, and left out",
        f"{tmp_path}/train.log: left out what it tells of iteration 30, which is not all there",
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "no line 'Solving …', where a log of Caffe's training was expected"),
        ("hello\n" * 3, "no line 'Solving"),
        (START, "nothing but the beginning of a training; set display or test_interval"),
        (START + line("10:00:01.000000", "Iteration 0, loss = high"), r"train\.log:4: 'Iteration 0, loss = high'"),
        (
            START + line("10:00:01.000000", "Iteration 1") + line("10:00:01.000000", "    Test net output #0: a = b"),
            r"train\.log:5: 'Test net output #0: a = b' where a number",
        ),
        (START.replace("0704 10", "1340 10"), r"train\.log:3: 'I1340 10:00:00\.000000 .*' where a date"),
    ],
)
@pytest.mark.parametrize("tool", ["parse_log", "plot_training_log"])
def test_a_log_that_says_nothing_is_an_error(tool: str, text: str, error: str, tmp_path: Path) -> None:
    log = write(tmp_path, text)
    with pytest.raises(InputError, match=error):
        run_tool(tool, *((log, tmp_path) if tool == "parse_log" else (6, tmp_path / "plot.png", log)))
    assert [path.name for path in tmp_path.iterdir()] == ["train.log"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("{log}", "{folder}/none"), "none: no folder; make it first"),
        (("{log}", "{folder}", "-delimiter", ""), "delimiter '' where one character"),
        (("{log}", "{folder}", "-delimiter", "::"), "delimiter '::'"),
    ],
)
def test_bad_arguments_of_parse_log(arguments: tuple[str, ...], error: str, log: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=error):
        run_tool("parse_log", *(argument.format(log=log, folder=tmp_path) for argument in arguments))
    assert [path.name for path in tmp_path.iterdir()] == ["train.log"]


def test_the_eight_charts_are_caffes() -> None:
    assert [" vs. ".join(chart) for chart in CHARTS] == [
        "Test accuracy vs. Iters",
        "Test accuracy vs. Seconds",
        "Test loss vs. Iters",
        "Test loss vs. Seconds",
        "Train learning rate vs. Iters",
        "Train learning rate vs. Seconds",
        "Train loss vs. Iters",
        "Train loss vs. Seconds",
    ]


def test_curves_are_of_the_outputs_that_the_chart_is_of(log: Path) -> None:
    history = read_history(log)
    for quantity, output, expected in (
        ("Test accuracy", "accuracy", [0.1, 0.6]),
        ("Train learning rate", "learning rate", [0.1, 0.01, 0.001]),
        ("Train loss", "loss", [2.5, np.nan, 1e-5]),
    ):
        curves = curves_of(quantity, history, "log")
        assert [*curves] == [output]
        assert [value.value for value in curves[output]] == pytest.approx(expected, nan_ok=True)
    with pytest.raises(InputError, match="log: no test loss; the tests' outputs are accuracy, per_class, per_class"):
        curves_of("Test loss", history, "log")


@pytest.mark.parametrize("chart", range(len(CHARTS)))
def test_every_chart_is_drawn(chart: int, tmp_path: Path) -> None:
    text = LOG.replace("per_class = 0.25", "loss = 1.5")
    logs = [write(tmp_path, text, "one.log"), write(tmp_path, text.replace("2.5", "3.5"), "two.log")]
    run_tool("plot_training_log", chart, tmp_path / "plot.png", *logs)
    image = read_picture(tmp_path / "plot.png")
    colours = {tuple(pixel) for pixel in image.reshape(-1, 3)}
    assert {(0xB2, 0x72, 0x00), (0x00, 0x5E, 0xD5)} <= colours  # both logs' curves
    for suffix in (".svg", ".pdf") if chart == 0 else ():
        run_tool("plot_training_log", chart, tmp_path / f"plot{suffix}", *logs)


@pytest.mark.parametrize(
    ("chart", "plot", "error"),
    [
        ("8", "plot.png", "chart type '8' where 0 to 7"),
        ("loss", "plot.png", "chart type 'loss'"),
        ("0", "plot.gif", r"plot\.gif: a picture that ends with \.png"),
        ("2", "plot.png", "no test loss"),
    ],
)
def test_bad_arguments_of_plot_training_log(chart: str, plot: str, error: str, log: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=error):
        run_tool("plot_training_log", chart, tmp_path / plot, log)
    assert [path.name for path in tmp_path.iterdir()] == ["train.log"]
