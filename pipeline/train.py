"""train: train a rendered net with Caffe's solver; interrupted, the same command goes on from the last snapshot.

Writes, beside the solver: train.log (glog's form), metrics.csv (as it goes), snapshots/, then final.caffemodel,
best.caffemodel (best accuracy in the test phase, the earliest on a tie), run.json and, last of all, loss.png and
accuracy.png.
"""

import argparse
import csv
import hashlib
import json
import math
import platform
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from pipeline import __version__
from pipeline.atomic import atomic_file
from pipeline.caffe import glog, snapshot
from pipeline.caffe.allocation import keep_freed_memory
from pipeline.caffe.layers.data import Data
from pipeline.caffe.log import TrainingLog
from pipeline.caffe.net import PRECISIONS
from pipeline.caffe.proto import read_solver
from pipeline.caffe.solver import Solver, get_solver
from pipeline.caffe.solver.nets import weights
from pipeline.caffe.training import Action, Finished, Iterated, Snapshotted, Tested, solve
from pipeline.console import log, progress_bar
from pipeline.errors import InputError

METRICS = ("iteration", "epoch", "lr", "train_loss", "test_loss", "test_accuracy")
SNAPSHOTS_KEPT = 2  # the newest, beside the best one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("solver", type=Path, help="rendered solver.prototxt; outputs go to its folder")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto",
                        help="auto takes CUDA where there is one (default auto)")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32",
                        help="of products and convolutions; weights stay float32 (default float32)")
    parser.add_argument("--threads", type=int, default=2,
                        help="CPU threads; results are the same to the bit for the same number (default 2)")


def run(args: argparse.Namespace) -> None:
    train(args.solver, args.device, args.precision, args.threads)


def train(solver_path: Path, device: str = "auto", precision: str = "float32", threads: int = 2) -> None:
    """Train to max_iter. Raises InputError for a solver, net or database that is none, or a loss that is no number.

    SIGINT and SIGTERM finish the iteration, write a snapshot and end with status 130 or 143.
    """
    torch.set_num_threads(threads)
    keep_freed_memory()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = solver_path.parent
    param = read_solver(solver_path)
    solver = get_solver(param, device, precision)
    settings = _settings(solver_path, solver, device, precision, threads)
    _resume(solver, folder / "run.json", settings)
    with atomic_file(folder / "run.json", "w", encoding="utf-8") as file:
        json.dump(settings, file, indent=1)
    with _signals() as received, glog.log_file(folder / "train.log") as logger:
        training_log = TrainingLog(solver, logger)
        if solver.iteration:
            logger.info("Resuming at iteration %d", solver.iteration)
        metrics = _Metrics(folder / "metrics.csv", solver)
        for event in metrics.follow(solve(solver, lambda: Action.STOP if received else Action.NONE)):
            training_log.record(event)
    if received:
        if not snapshot.Snapshot(param.snapshot_prefix, solver.iteration).state.exists():  # snapshot_after_train: false
            snapshot.save(solver, param.snapshot_prefix)
        log.info("stopped at iteration %d of %d; the same command goes on from there", solver.iteration, param.max_iter)
        raise SystemExit(128 + received[0])
    _keep(folder, solver, metrics)
    plot(folder / "metrics.csv", folder / "loss.png", folder / "accuracy.png")


def _settings(solver_path: Path, solver: Solver, device: str, precision: str, threads: int) -> dict[str, Any]:
    """What decides a run's result: the prototxts, the data, and what computes it."""
    files = {str(solver_path): solver_path}
    for path in filter(None, (solver.param.net, solver.param.train_net, *solver.param.test_net)):
        files[path] = Path(path)
    files |= {str(path): path for path in weights(solver.param)}
    for net in (solver.net, *solver.test_nets):
        for layer in net.layers:
            if isinstance(layer, Data):
                source = layer.param.data_param.source
                files[source] = Path(source) / "data.mdb"
                if layer.param.transform_param.mean_file:
                    files[layer.param.transform_param.mean_file] = Path(layer.param.transform_param.mean_file)
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "precision": precision,
        "threads": threads,
        "sha256": {name: _sha256(path) for name, path in sorted(files.items())},
        "versions": {"pipeline": __version__, "python": platform.python_version()}
        | {name: version(name) for name in ("torch", "numpy", "protobuf", "lmdb")},
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _resume(solver: Solver, record: Path, settings: dict[str, Any]) -> None:
    """Go on from the newest snapshot if it was made by these very settings; say so if it was not."""
    prefix = solver.param.snapshot_prefix
    found = snapshot.find_snapshots(prefix)
    if not found:
        return
    before = json.loads(record.read_text(encoding="utf-8")) if record.exists() else None
    if before != settings:
        log.warning("the snapshots under %s were made by other settings: starting anew, they will be replaced", prefix)
        for old in found:
            old.remove()
        for name in ("train.log", "metrics.csv"):
            record.with_name(name).unlink(missing_ok=True)
        return
    snapshot.restore(solver, found[-1].state)
    log.info("going on from %s", found[-1].state)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Metrics:
    """metrics.csv, a row a display or test, and the bar that shows the same; knows which snapshot tested best."""

    def __init__(self, path: Path, solver: Solver) -> None:
        self.path = path
        self.solver = solver
        data = next((layer for layer in solver.net.layers if isinstance(layer, Data)), None)
        self.batch = data.param.data_param.batch_size * solver.param.iter_size if data else 0
        self.images = len(data.reader) if data else 0
        self.rows: dict[int, dict[str, str]] = {}
        if path.exists():  # a resumed run: rows of iterations that are about to be run again are dropped
            with open(path, encoding="utf-8", newline="") as file:
                self.rows = {int(row["iteration"]): row for row in csv.DictReader(file)
                             if int(row["iteration"]) <= solver.iteration}
            if solver.iteration in self.rows:
                self.rows[solver.iteration] |= {"lr": "", "train_loss": ""}

    def follow(self, events: Iterator[Any]) -> Iterator[Any]:
        """Pass events on, writing rows and moving the bar."""
        param = self.solver.param
        with progress_bar(param.max_iter, "it", "train") as bar:
            bar.update(self.solver.iteration)
            bar.initial = self.solver.iteration
            for event in events:
                if isinstance(event, Iterated):
                    bar.update()
                    if not math.isfinite(event.loss):
                        raise InputError(f"the loss is {event.loss} at iteration {event.iteration}: training diverged; "
                                         "lower base_lr, or look at the data")
                    if event.displayed:
                        self._row(event.iteration, lr=f"{event.rate:.6g}", train_loss=f"{event.loss:.6g}")
                        rate = (bar.format_dict["rate"] or 0) * self.batch
                        bar.set_postfix_str(f"epoch {self.epoch(event.iteration)}, loss {event.loss:.3f}, lr "
                                            f"{event.rate:.2g}, {rate:.0f} images/s")
                elif isinstance(event, Finished):
                    self._row(event.iteration, train_loss=f"{event.loss:.6g}")
                elif isinstance(event, Tested):
                    values = {f"test_{name}": f"{value.item():.6g}" for name, value in event.outputs.items()
                              if f"test_{name}" in METRICS and value.numel() == 1}
                    self._row(event.iteration, **values)
                elif isinstance(event, Snapshotted):
                    self._prune(event.snapshot)
                yield event

    def epoch(self, iteration: int) -> str:
        return f"{iteration * self.batch / self.images:.2f}" if self.images else ""

    def _row(self, iteration: int, **values: str) -> None:
        row = self.rows.setdefault(iteration, dict.fromkeys(METRICS, ""))
        row |= {"iteration": str(iteration), "epoch": self.epoch(iteration)} | values
        with atomic_file(self.path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, METRICS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows[key] for key in sorted(self.rows))

    def best(self) -> snapshot.Snapshot | None:
        """The snapshot that tested best, the earliest on a tie; None where there was no test."""
        snapshots = snapshot.find_snapshots(self.solver.param.snapshot_prefix)
        tested = [s for s in snapshots if self.rows.get(s.iteration, {}).get("test_accuracy")]
        return max(tested, key=lambda s: float(self.rows[s.iteration]["test_accuracy"]), default=None)

    def _prune(self, newest: snapshot.Snapshot) -> None:
        found = snapshot.find_snapshots(newest.prefix)
        keep = {*found[-SNAPSHOTS_KEPT:], self.best()}
        for old in found:
            if old not in keep:
                old.remove()


def _keep(folder: Path, solver: Solver, metrics: _Metrics) -> None:
    final = snapshot.find_snapshots(solver.param.snapshot_prefix)[-1]
    best = metrics.best() or final
    for source, name in ((final, "final.caffemodel"), (best, "best.caffemodel")):
        with atomic_file(folder / name) as target, open(source.weights, "rb") as weights:
            shutil.copyfileobj(weights, target)
    accuracy = metrics.rows.get(best.iteration, {}).get("test_accuracy")
    log.info("final.caffemodel is of iteration %d; best.caffemodel of %d%s", final.iteration, best.iteration,
             f", with test accuracy {accuracy}" if accuracy else ", for there was no test phase")


def plot(metrics_path: Path, loss_path: Path, accuracy_path: Path) -> None:
    """Draw metrics.csv: training and test loss over epochs with the rate's steps, and test accuracy."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with open(metrics_path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))

    def series(name: str) -> tuple[list[float], list[float]]:
        # The loss of the test before the first iteration, some tens high, would flatten all that follows.
        points = [(float(row["epoch"] or row["iteration"]), float(row[name])) for row in rows
                  if row[name] and not (name == "test_loss" and row["iteration"] == "0")]
        return [x for x, _ in points], [y for _, y in points]

    epochs, rates = series("lr")
    steps = [epochs[i] for i in range(1, len(rates)) if rates[i] != rates[i - 1]]
    # Okabe and Ito's colours, told apart by colour-blind readers.
    for path, title, curves in (
        (loss_path, "loss", (("train_loss", "training", "#0072B2"), ("test_loss", "validation", "#D55E00"))),
        (accuracy_path, "accuracy", (("test_accuracy", "validation", "#D55E00"),)),
    ):
        figure, axes = pyplot.subplots(figsize=(7, 4), dpi=150, layout="constrained")
        for step in steps if len(steps) < 10 else []:
            axes.axvline(step, color="0.8", linewidth=1, zorder=0)
            axes.annotate("lr step", (step, 1), xycoords=("data", "axes fraction"), xytext=(3, -3),
                          textcoords="offset points", va="top", fontsize=7, color="0.5")
        for name, label, colour in curves:
            x, y = series(name)
            if x:
                axes.plot(x, y, label=f"{label}, last {y[-1]:.3f}", color=colour, linewidth=1.4,
                          marker="." if len(x) < 3 else None)
        axes.set(xlabel="epoch", ylabel=title, title=f"{path.parent.name}: {title}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.92")
        axes.legend(frameon=False)
        with atomic_file(path) as image:
            figure.savefig(image, format="png", metadata={"Software": None})
        pyplot.close(figure)
    log.info("drew %s and %s", loss_path, accuracy_path)
