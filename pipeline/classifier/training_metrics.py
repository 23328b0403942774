"""What a training leaves to look at: metrics.csv as it goes, and the plots of it."""

import csv
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base.atomic import atomic_file
from pipeline.base.console import in_words, log, progress_bar
from pipeline.base.errors import InputError
from pipeline.base.text_files import read_text
from pipeline.caffe.database import DatabaseReader
from pipeline.caffe.proto.caffe_pb2 import DataParameter, LayerParameter, SolverParameter
from pipeline.caffe.solver import snapshot
from pipeline.caffe.solver.nets import train_net
from pipeline.caffe.solver.solve import Event, Finished, Iterated, Snapshotted, StoppedEarly, Tested
from pipeline.caffe.train_log_parser import read_history
from pipeline.classifier.board import TAGS

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS = ("iteration", "epoch", "lr", "train_loss", "test_loss", "test_accuracy")
FEW = 20  # points of a curve that are marked each
SNAPSHOTS_KEPT = 2  # the newest, beside the best one and those to be averaged


def read_rows(path: Path) -> dict[int, dict[str, str]]:
    """The rows of metrics.csv by iteration. Raises InputError naming the line that is wrong, or when it is missing."""
    remedy = "train again, which makes it anew"
    if not path.exists():
        raise InputError(f"{path}: missing; {remedy}")
    text = read_text(path, remedy)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        if tuple(next(reader, ())) != METRICS:
            raise ValueError(f"columns {','.join(METRICS)} were expected")
        rows: dict[int, dict[str, str]] = {}
        last = -1
        for fields in reader:
            if len(fields) != len(METRICS):
                raise ValueError(f"{len(fields)} fields where {len(METRICS)} were expected")
            for value in filter(None, fields):
                float(value)
            iteration = int(fields[0])
            if iteration <= last:
                raise ValueError(f"iteration {iteration} where one above {last} was expected")
            rows[iteration] = dict(zip(METRICS, fields, strict=True))
            last = iteration
        if not text.endswith("\n"):
            raise ValueError("a line without an end, as where a file is cut")
        return rows
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path}:{max(1, reader.line_num)}: {error}; {remedy}") from None


def check_average(param: SolverParameter, count: int) -> None:
    """Raise InputError where a run does not write `count` snapshots to average, or has no images to count."""
    if not count:
        return
    written = len(_written(param))
    if not 2 <= count <= written:
        raise InputError(
            f"average {count} where at least 2 and at most the run's {written} snapshots were expected; "
            "set average lower, 0 for none, or let a smaller `snapshot` write more"
        )
    if not any(layer.type == "Data" for layer in train_net(param).layers()):
        raise InputError(
            f"average {count}: the net has no Data layer, whose database says how many batches make an "
            "epoch; average by python -m pipeline.caffe average_snapshots"
        )


def _written(param: SolverParameter, end: int | None = None) -> list[int]:
    """The iterations of the snapshots that a run without interruptions writes until `end`, max_iter by default."""
    end = param.max_iter if end is None else end
    regular = list(range(param.snapshot, end + 1, param.snapshot)) if param.snapshot else []
    return sorted({*regular, end}) if param.snapshot_after_train else regular


class TrainingMetrics:
    """metrics.csv, a row a display or test, and the bar that shows the same; knows which snapshot tested best.

    average: how many snapshots are to be averaged at the end. board: shows the same in
    TensorBoard. stopped: where early stopping ended the training.
    """

    def __init__(
        self, path: Path, param: SolverParameter, start: int, average: int = 0, board: "SummaryWriter | None" = None
    ) -> None:
        self.path = path
        self.param = param
        self.start = start
        self.average = average
        self.board = board
        self.metric = f"test_{param.test_metric}"
        self.stopped: int | None = None
        data = next((layer for layer in train_net(param).layers() if layer.type == "Data"), None)
        self.batch = data.data_param.batch_size * param.iter_size if data else 0
        self.images = _size(data) if data else 0
        self.rows: dict[int, dict[str, str]] = {}
        if start:  # a resumed run: rows of iterations that are about to be run again are dropped
            self.rows = {iteration: row for iteration, row in self._earlier_rows().items() if iteration <= start}
            if start in self.rows:
                self.rows[start] |= {"lr": "", "train_loss": ""}
        self._write()

    def _earlier_rows(self) -> dict[int, dict[str, str]]:
        """The rows of metrics.csv or, where that is lost, of what train.log says."""
        try:
            return read_rows(self.path)
        except InputError as error:
            lost = str(error)
        try:
            history = read_history(self.path.with_name("train.log"))
        except (InputError, FileNotFoundError) as error:
            log.warning("%s; nor can it be made from train.log (%s): what was measured before is not counted", lost,
                        in_words(error))  # fmt: skip
            return {}
        log.warning("%s; made anew from train.log", lost)
        rows: dict[int, dict[str, str]] = {}

        def enter(iteration: int, name: str, value: float) -> None:
            row = rows.setdefault(iteration, dict.fromkeys(METRICS, ""))
            row |= {"iteration": str(iteration), "epoch": self.epoch(iteration), name: f"{value:.6g}"}

        for name, values in (("train_loss", history.losses), ("lr", history.rates)):
            for each in values:
                enter(each.iteration, name, each.value)
        for test in history.tests.get(0, []):
            for name, value in test.outputs.items():
                if f"test_{name}" in METRICS:
                    enter(test.iteration, f"test_{name}", value)
        return rows

    def follow(self, events: Iterator[Event]) -> Iterator[Event]:
        """Pass events on, writing rows and moving the bar."""
        param = self.param
        with progress_bar(param.max_iter, "it", "train") as bar:
            bar.update(self.start)
            bar.initial = self.start
            for event in events:
                if isinstance(event, Iterated):
                    bar.update(event.iteration + 1 - bar.n)  # real Caffe tells of the displayed ones alone
                    if not math.isfinite(event.loss):
                        raise InputError(
                            f"the loss is {event.loss} at iteration {event.iteration}: training diverged; "
                            "lower base_lr, or look at the data"
                        )
                    if event.displayed:
                        self._row(event.iteration, lr=f"{event.rate:.6g}", train_loss=f"{event.loss:.6g}")
                        bar.set_postfix_str(self._shown(event, bar.n, bar.format_dict["elapsed"]))
                elif isinstance(event, StoppedEarly):
                    self.stopped = event.iteration
                    log.info(
                        "stopped early at iteration %d: %d tests no better than %s %g",
                        event.iteration,
                        event.tests,
                        param.test_metric,
                        event.best,
                    )
                elif isinstance(event, Finished):
                    self._row(event.iteration, train_loss=f"{event.loss:.6g}")
                elif isinstance(event, Tested):
                    values = {
                        f"test_{name}": f"{value.item():.6g}"
                        for name, value in event.outputs.items()
                        if f"test_{name}" in METRICS and value.numel() == 1
                    }
                    self._row(event.iteration, **values)
                elif isinstance(event, Snapshotted):
                    self._prune(event.snapshot)
                yield event

    def _shown(self, event: Iterated, done: float, elapsed: float) -> str:
        """What the bar says beside itself, after `done` iterations and `elapsed` seconds."""
        said = f"loss {event.loss:.3f}, lr {event.rate:.2g}"
        if not self.images:
            return said
        rate = (done - self.start) * self.batch / max(elapsed, 1e-9)
        return f"epoch {self.epoch(event.iteration)}, {said}, {rate:.0f} images/s"

    def epoch(self, iteration: int) -> str:
        """How often the training images were taken, to two decimals; nothing where no Data layer counts them."""
        return f"{iteration * self.batch / self.images:.2f}" if self.images else ""

    def _row(self, iteration: int, **values: str) -> None:
        row = self.rows.setdefault(iteration, dict.fromkeys(METRICS, ""))
        row |= {"iteration": str(iteration), "epoch": self.epoch(iteration)} | values
        self._write()
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(TAGS[name], float(value), iteration)

    def _write(self) -> None:
        with atomic_file(self.path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, METRICS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows[key] for key in sorted(self.rows))

    def best(self) -> snapshot.Snapshot | None:
        """The snapshot that tested best by test_metric, the earliest on a tie; None where there was no test."""
        snapshots = snapshot.find_snapshots(self.param.snapshot_prefix)
        values = {s: float(self.rows.get(s.iteration, {}).get(self.metric) or "nan") for s in snapshots}
        tested = [s for s in snapshots if not math.isnan(values[s])]
        best = min if self.param.test_metric == "loss" else max
        return best(tested, key=values.__getitem__, default=None)

    def averaged(self) -> list[snapshot.Snapshot]:
        """The snapshots to average, oldest first: the last ones that a run without interruptions writes. Of a run that
        stopped early there may be fewer than asked for.

        Raises InputError where some are gone, as when the run kept fewer.
        """
        param = self.param
        found = {s.iteration: s for s in snapshot.find_snapshots(param.snapshot_prefix)}
        wanted = _written(param, self.stopped)[-self.average :]
        missing = [str(iteration) for iteration in wanted if iteration not in found]
        if missing:
            raise InputError(
                f"average {self.average}: the snapshots of iterations {', '.join(missing)} are gone, "
                f"which {param.snapshot_prefix}_iter_*.solverstate should be; average fewer, or delete "
                "the snapshots to train again"
            )
        return [found[iteration] for iteration in wanted]

    def _prune(self, newest: snapshot.Snapshot) -> None:
        found = snapshot.find_snapshots(newest.prefix)
        keep = {*found[-SNAPSHOTS_KEPT:], self.best()}
        if self.average:
            keep |= set([s for s in found if s.iteration % self.param.snapshot == 0][-self.average :])
        for old in found:
            if old not in keep:
                old.remove()


def _size(data: LayerParameter) -> int:
    param = data.data_param
    with DatabaseReader(Path(param.source), DataParameter.DB.Name(param.backend).lower()) as reader:
        return len(reader)


def plot(metrics_path: Path, loss_path: Path, accuracy_path: Path, marks: Mapping[int, str] | None = None) -> None:
    """Draw metrics.csv: training and test loss, and test accuracy, over epochs; the rate's steps, or its curve.

    Over iterations where it has no epochs, as of a net without a Data layer. marks: words for lines at iterations.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = list(read_rows(metrics_path).values())

    time = "epoch" if all(row["epoch"] for row in rows) else "iteration"

    def series(name: str) -> tuple[list[float], list[float]]:
        # The loss of the test before the first iteration, some tens high, would flatten all that follows.
        points = [
            (float(row[time]), float(row[name]))
            for row in rows
            if row[name] and not (name == "test_loss" and row["iteration"] == "0")
        ]
        return [x for x, _ in points], [y for _, y in points]

    times, rates = series("lr")
    steps = [times[i] for i in range(1, len(rates)) if rates[i] != rates[i - 1]]
    few = len(steps) < 10
    at = {int(row["iteration"]): float(row[time]) for row in rows}
    lines = [(at[iteration], word) for iteration, word in (marks or {}).items() if iteration in at]
    # Okabe and Ito's colours, told apart by colour-blind readers.
    for path, title, curves in (
        (loss_path, "loss", (("train_loss", "training", "#0072B2"), ("test_loss", "validation", "#D55E00"))),
        (accuracy_path, "accuracy", (("test_accuracy", "validation", "#D55E00"),)),
    ):
        figure, axes = pyplot.subplots(figsize=(7, 4), dpi=150, layout="constrained")
        for place, word in [(step, "lr step") for step in steps if few] + lines:
            axes.axvline(place, color="0.8", linewidth=1, zorder=0)
            axes.annotate(
                word,
                (place, 1),
                xycoords=("data", "axes fraction"),
                xytext=(3, -3),
                textcoords="offset points",
                va="top",
                fontsize=7,
                color="0.5",
                rotation=90,
            )
        if not few:
            right = axes.twinx()
            right.plot(times, rates, color="0.7", linewidth=1)
            right.set_ylabel("learning rate", color="0.5")
            right.tick_params(colors="0.5")
            right.spines["top"].set_visible(False)
            axes.set_zorder(right.get_zorder() + 1)
            axes.patch.set_visible(False)
        missing: list[str] = []
        for name, label, colour in curves:
            x, y = series(name)
            if len(x) > 1:
                axes.plot(
                    x,
                    y,
                    label=f"{label}, last {y[-1]:.3f}",
                    color=colour,
                    linewidth=1.4,
                    marker="." if len(x) < FEW else None,
                )
            elif x:  # no curve, but a value
                missing.append(f"{label}: only {y[0]:.3f}, at {time} {x[0]:g}")
            else:
                missing.append(f"{label}: not measured")
        if len(missing) == len(curves):
            axes.set(xticks=[], yticks=[])
            missing.append("the run is too short for a curve")
        axes.annotate(
            "\n".join(missing),
            (0.5, 0.5 if len(missing) > len(curves) else 0.03),
            xycoords="axes fraction",
            ha="center",
            va="center" if len(missing) > len(curves) else "bottom",
            color="0.35",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},  # over the lines
        )
        axes.set(xlabel=time, ylabel=title)
        axes.set_title(f"{path.absolute().parent.name}: {title}", parse_math=False)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.92")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(edgecolor="none", framealpha=0.85)  # the rate's curve may be behind it
        with atomic_file(path) as image:
            figure.savefig(image, format="png", metadata={"Software": None})
        pyplot.close(figure)
    log.info("drew %s and %s", loss_path, accuracy_path)
