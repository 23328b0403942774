"""train: train a rendered net with Caffe's solver; interrupted, the same command resumes from the last snapshot.

Writes, beside the solver: train.log (glog's form), metrics.csv (as it goes), snapshots/, then final.caffemodel,
best.caffemodel (best test_metric in the test phase, the earliest on a tie), with --average averaged.caffemodel,
run.json and, last of all, loss.png and accuracy.png.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from pipeline import __version__
from pipeline.base.atomic import atomic_file
from pipeline.base.console import log, printable
from pipeline.base.errors import InputError
from pipeline.base.hashing import sha256
from pipeline.base.signals import ENDING, on_ending
from pipeline.caffe import glog
from pipeline.caffe.averaging import average_snapshots
from pipeline.caffe.common import check_device, solver_count, solver_rank
from pipeline.caffe.database import DatabaseReader
from pipeline.caffe.layers.hdf5 import listed_files
from pipeline.caffe.memory_budget import keep_freed_memory
from pipeline.caffe.net import Net
from pipeline.caffe.precision import AUTO, PRECISIONS, bfloat16_speed, faster_precision, has_bfloat16_units
from pipeline.caffe.proto.caffe_pb2 import DataParameter, SolverParameter
from pipeline.caffe.proto.files import read_solver
from pipeline.caffe.proto.prototxt_errors import shorten
from pipeline.caffe.real_caffe import RealCaffe, refuse_extensions, root_from_environment
from pipeline.caffe.solver import POLICIES, get_solver, naming_solver, parallel, snapshot
from pipeline.caffe.solver.nets import test_nets, train_net, weights
from pipeline.caffe.solver.solve import Action, Event, solve
from pipeline.caffe.solver.train_log_writer import TrainingLog, described
from pipeline.classifier.board import add_picture, open_board
from pipeline.classifier.run_record import read_run_record
from pipeline.classifier.training_metrics import TrainingMetrics, check_average, plot
from pipeline.stages.arguments import add_engine_arguments

ASKED = "precision_asked"  # in run.json beside the precision that ran; decides no run's result
PROCESSES = "processes"  # in run.json; a run may resume in another number of them
RECORD_LENGTHS = struct.Struct("<QQ")  # of a key and a value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("solver", type=Path, help="rendered solver.prototxt; outputs go to its folder")
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto takes CUDA where there is one (default auto)",
    )
    parser.add_argument(
        "--precision",
        choices=(AUTO, *PRECISIONS),
        default=AUTO,
        help="of products and convolutions; weights stay float32. auto takes bfloat16 where the "
        "processor or GPU has units for it and is faster with them; a run that resumes keeps the "
        "precision of its snapshots (default auto)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=2,
        help="CPU threads; results are the same to the bit for the same number (default 2)",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="train in N processes, which share each batch and the threads, with CUDA one for each GPU (default 1)",
    )
    parser.add_argument(
        "--average",
        type=int,
        default=0,
        metavar="N",
        help="average the weights of the last N snapshots into averaged.caffemodel (default 0: off)",
    )
    parser.add_argument(
        "--tensorboard",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="also write what metrics.csv says, and the sheet of augmented images, for TensorBoard",
    )
    add_engine_arguments(parser)


def run(args: argparse.Namespace) -> None:
    if args.processes < 1 or (args.processes > 1 and args.engine == "caffe"):
        raise InputError(f"processes {args.processes} where at least 1, and with the engine caffe 1, was expected")
    if args.processes > 1 and "WORLD_SIZE" not in os.environ:
        parallel.launch(args.processes, "pipeline")
    train(
        args.solver,
        args.device,
        args.precision,
        args.threads,
        args.average,
        engine=args.engine,
        caffe=args.caffe,
        tensorboard=args.tensorboard,
    )


def train(
    solver_path: Path,
    device: str = "auto",
    precision: str = AUTO,
    threads: int = 2,
    average: int = 0,
    *,
    engine: str = "torch",
    caffe: str | None = None,
    tensorboard: bool = False,
) -> None:
    """Train to max_iter, or until early stopping.

    precision: of PRECISIONS, or auto: that of the snapshots that the run resumes from, else the faster one.
    average: of how many snapshots, the last ones, to average the weights; 0: of none. tensorboard: whether to write
    for TensorBoard as well, into tensorboard/.

    A run that was interrupted resumes from its last snapshot, in the other engine as well. SIGINT and SIGTERM finish
    the iteration, write a snapshot and end with status 130 or 143. Raises InputError for a solver, net or database that
    is none, and for a loss that is no number.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() and engine == "torch" else "cpu"
    param = read_solver(solver_path)
    folder = solver_path.parent
    with parallel.together():
        rank = solver_rank()
        torch.set_num_threads(max(1, threads // solver_count()))
        with naming_solver(solver_path):
            trainer = (
                _Torch(param, device, precision, threads, _earlier_runs(param, folder / "run.json"))
                if engine == "torch"
                else _Caffe(param, solver_path, device, precision, threads=threads, where=caffe)
            )
        check_average(param, average)
        start = None
        if rank == 0:
            start = _resume(param, folder / "run.json", trainer.settings | _hashes(solver_path, param))
        start = _start_of_first(param, start)
        if start:
            _check_whole(start)
        parallel.check_alike(param, [start.state] if start else [*weights(param)])
        first = start.iteration if start else 0
        with (
            _collect_signals(trainer.stop) as received,
            open_board(folder, first) if tensorboard and rank == 0 else nullcontext() as board,
        ):
            if board and (folder / "augmentation.png").exists():
                add_picture(board, "augmentation", folder / "augmentation.png")
            events = trainer.train(start, folder / "train.log")
            if rank == 0:
                metrics = TrainingMetrics(folder / "metrics.csv", param, first, average, board)
                events = metrics.follow(events)
            for _ in events:
                pass
    if received:
        if rank == 0:
            reached = trainer.stopped_at()
            log.info("stopped at iteration %d of %d; the same command resumes from there", reached, param.max_iter)
        raise SystemExit(128 + received[0])
    if rank > 0:
        return
    _keep(folder, param, metrics)
    if average:
        _average(folder, param, metrics, {"device": device, "precision": trainer.settings["precision"]})
    marks = {metrics.stopped: "stopped early"} if metrics.stopped is not None else {}
    if best := metrics.best():
        marks[best.iteration] = "best"
    plot(folder / "metrics.csv", folder / "loss.png", folder / "accuracy.png", marks)


def _start_of_first(param: SolverParameter, start: snapshot.Snapshot | None) -> snapshot.Snapshot | None:
    """The snapshot that the first rank resumes from, in every rank."""
    iteration, hdf5 = parallel.from_first(start.iteration if start else -1, start.hdf5 if start else 0)
    return snapshot.Snapshot(param.snapshot_prefix, int(iteration), bool(hdf5)) if iteration >= 0 else None


class _Torch:
    """Trains in the project's own engine. settings: what of a run's result it decides."""

    def __init__(
        self, param: SolverParameter, device: str, precision: str, threads: int, earlier: list[dict[str, Any]]
    ) -> None:
        if device == "cuda" and solver_count() > 1:
            device = f"cuda:{os.environ['LOCAL_RANK']}"
        check_device(device)
        if torch.device(device).type == "cuda":
            torch.cuda.set_device(device)
        keep_freed_memory()
        self.action = Action.NONE
        self.settings: dict[str, Any] = {
            "engine": "torch",
            "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
            ASKED: precision,
            PROCESSES: solver_count(),
            "threads": threads,
            "versions": {"pipeline": __version__, "python": platform.python_version()}
            | {name: version(name) for name in ("torch", "numpy", "protobuf", "lmdb")},
            "machine": platform.machine(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        }
        own = _precision(precision, device, self.settings, earlier)
        [number] = parallel.from_first([*PRECISIONS].index(own))
        self.settings["precision"] = [*PRECISIONS][int(number)]
        self.solver = get_solver(param, device, self.settings["precision"], parallel.NetOfRank)

    def train(self, start: snapshot.Snapshot | None, log_path: Path) -> Iterator[Event]:
        """Train from a snapshot or the beginning, logging to a file if this is the first rank; yield what happens."""
        if solver_rank() > 0:
            if start:
                snapshot.restore(self.solver, start.state)
            parallel.start(self.solver)
            yield from solve(self.solver)
            return
        with glog.log_file(log_path) as logger:
            training_log = TrainingLog(self.solver, logger)
            if start:
                if not snapshot.restore(self.solver, start.state):
                    log.info(
                        "real Caffe wrote %s and does not say how far databases were read: they are read from "
                        "their beginning",
                        start.state,
                    )
                logger.info("Resuming at iteration %d", self.solver.iteration)
            parallel.start(self.solver)
            for event in solve(self.solver, lambda: self.action):
                training_log.record(event)
                yield event

    def stop(self) -> None:
        """Have the training stop, with a snapshot, after the iteration that is being made."""
        self.action = Action.STOP

    def stopped_at(self) -> int:
        """The iteration that was reached, of which there is a snapshot even if snapshot_after_train is false."""
        prefix, iteration = self.solver.param.snapshot_prefix, self.solver.iteration
        if not any(found.iteration == iteration for found in snapshot.find_snapshots(prefix)):
            snapshot.save(self.solver, prefix)
        return iteration


class _Caffe:
    """Trains in real Caffe. settings: what of a run's result it decides."""

    def __init__(
        self, param: SolverParameter, path: Path, device: str, precision: str, *, threads: int, where: str | None
    ) -> None:
        if device != "cpu" or precision not in (AUTO, "float32"):
            raise InputError(
                f"engine caffe: device {device} and precision {precision}, where Caffe as it is packaged "
                "computes on the CPU in float32; leave both out, or take the engine torch"
            )
        refuse_extensions(param, str(path))
        for net in (train_net(param), *test_nets(param)):
            refuse_extensions(net.read(), str(net.source) if isinstance(net.source, str) else net.field)
        if param.lr_policy not in POLICIES:
            raise InputError(
                f"engine caffe: lr_policy '{param.lr_policy}', which Caffe has not; choose one of "
                f"{', '.join(POLICIES)}, or take the engine torch"
            )
        self.param = param
        self.path = path
        self.caffe = RealCaffe(where or root_from_environment(), threads)
        self.settings = {
            "engine": "caffe",
            "device": device,
            ASKED: precision,
            "precision": "float32",
            "threads": threads,
            "versions": {"pipeline": __version__, "caffe": self.caffe.version},
            "machine": platform.machine(),
        }

    def train(self, start: snapshot.Snapshot | None, log_path: Path) -> Iterator[Event]:
        """Train from a snapshot or the beginning, logging to a file; yield what happens."""
        Path(self.param.snapshot_prefix).parent.mkdir(parents=True, exist_ok=True)  # Caffe does not
        with open(log_path, "a", encoding="utf-8") as file:
            yield from self.caffe.train(self.param, self.path, start, file)

    def stop(self) -> None:
        """Have the training stop, with a snapshot, after the iteration that is being made."""
        self.caffe.interrupt()

    def stopped_at(self) -> int:
        """The iteration of the last snapshot."""
        return max((found.iteration for found in snapshot.find_snapshots(self.param.snapshot_prefix)), default=0)


def _hashes(solver_path: Path, param: SolverParameter) -> dict[str, Any]:
    """Under "sha256", those of what decides a run's result: prototxts, weights, databases, lists, means.

    Of a LevelDB it is that of its records, for reading it changes its files. Those of the pictures that a list of
    ImageData's or WindowData's names are left out.
    """
    files = {str(solver_path): solver_path}
    for path in filter(None, (param.net, param.train_net, *param.test_net)):
        files[path] = Path(path)
    files |= {str(path): path for path in weights(param)}
    hashes = {}
    for net in (train_net(param), *test_nets(param)):
        for layer in net.layers():
            if layer.type == "Data" and layer.data_param.backend == DataParameter.LEVELDB:
                hashes[layer.data_param.source] = _records_sha256(Path(layer.data_param.source))
            elif layer.type == "Data":
                database = Path(layer.data_param.source) / "data.mdb"
                files[str(database)] = database
            elif layer.type == "HDF5Data":
                files |= {str(path): path for path in listed_files(Path(layer.hdf5_data_param.source))}
            files |= {
                name: Path(name)
                for name in filter(
                    None,
                    (
                        layer.hdf5_data_param.source,
                        layer.image_data_param.source,
                        layer.window_data_param.source,
                        layer.infogain_loss_param.source,
                        layer.transform_param.mean_file,
                    ),
                )
            }
    hashes |= {name: sha256(path) for name, path in files.items()}
    return {"sha256": dict(sorted(hashes.items()))}


def _records_sha256(database: Path) -> str:
    """Of a LevelDB's keys and values, each pair behind its lengths."""
    digest = hashlib.sha256()
    with DatabaseReader(database, "leveldb") as reader:
        for key, value in reader.records():
            digest.update(RECORD_LENGTHS.pack(len(key), len(value)) + key + value)
    return digest.hexdigest()


def _earlier_runs(param: SolverParameter, record: Path) -> list[dict[str, Any]]:
    """What run.json says of those who made the snapshots, the last first; nothing where there are no snapshots."""
    if not snapshot.find_snapshots(param.snapshot_prefix):
        return []
    try:
        last = read_run_record(record)
    except InputError:
        return []
    return [last, *reversed(last.pop("earlier", []))]


def _decisive(run: dict[str, Any]) -> dict[str, Any]:
    """Of what run.json holds, what decides the run's result."""
    return {name: value for name, value in run.items() if name not in (ASKED, PROCESSES)}


def _precision(asked: str, device: str, settings: dict[str, Any], earlier: list[dict[str, Any]]) -> str:
    """The precision to train in, of PRECISIONS. Warns where that is bfloat16 and there are no units for it."""
    if asked != AUTO:
        precision, reason = asked, ""
    elif recorded := _recorded_precision(settings, earlier):
        precision, reason = recorded, "the snapshots were made in it"
    else:
        precision, reason = faster_precision(device)
    if reason:
        log.info("precision auto: %s, because %s", precision, reason)
    if precision == "bfloat16" and not has_bfloat16_units(device):
        log.warning(
            "precision bfloat16: there are no units for it here, and it takes %.1f times as long as float32; "
            "--precision float32 starts anew in float32",
            1 / bfloat16_speed(device),
        )
    return precision


def _recorded_precision(settings: dict[str, Any], earlier: list[dict[str, Any]]) -> str | None:
    """That of the last run with these settings: a measurement that turns out otherwise must not cost its snapshots."""
    for run in earlier:
        if run.get("precision") in PRECISIONS and _decisive(settings).items() <= run.items():
            return str(run["precision"])
    return None


def _resume(param: SolverParameter, record: Path, settings: dict[str, Any]) -> snapshot.Snapshot | None:
    """The snapshot to resume from, the newest one, if these settings, or the other engine on the same files, made it.

    Writes the settings; of a run that changes engines, those of the engines before as well. Says so where snapshots of
    other settings have to go.
    """
    found = snapshot.find_snapshots(param.snapshot_prefix)
    before: dict[str, Any] = {}
    earlier: list[dict[str, Any]] = []
    try:
        if found:
            before = read_run_record(record)
            earlier = before.pop("earlier", [])
    except InputError as error:
        log.warning("%s. Nothing says which settings made the snapshots under %s: they are taken for made by the "
                    "present ones; to start anew, remove them", error, param.snapshot_prefix)  # fmt: skip
        earlier = [{"until": found[-1].iteration, "settings": "unknown, for run.json was lost"}]
    if before and _decisive(before) != _decisive(settings):
        if before.get("sha256") == settings["sha256"] and before.get("engine") != settings["engine"]:
            earlier.append({"until": found[-1].iteration} | before)
        else:
            log.warning(
                "the snapshots under %s were made by other settings: starting anew, they will be replaced; %s says %s",
                param.snapshot_prefix,
                record,
                "; ".join(_differences(_decisive(before), _decisive(settings))),
            )
            for old in found:
                old.remove()
            for name in ("train.log", "metrics.csv"):
                record.with_name(name).unlink(missing_ok=True)
            found, earlier = [], []
    with atomic_file(record, "w", encoding="utf-8") as file:
        json.dump(settings | ({"earlier": earlier} if earlier else {}), file, indent=1)
    if found:
        log.info("going on from %s", found[-1].state)
    return found[-1] if found else None


def _differences(before: dict[str, Any], now: dict[str, Any], place: str = "") -> Iterator[str]:
    """What differs, a line each: "precision: float32, now bfloat16". Of hashes only the file is named."""
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name, "nothing"), now.get(name, "nothing")
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{place}{name} ")
        elif old != new:
            what = "another one" if place == "sha256 " else f"{shorten(str(old))}, now {new}"
            yield f"{place}{printable(name)}: {what}"


def _check_whole(found: snapshot.Snapshot) -> None:
    """Raise InputError for a snapshot that was cut off, which real Caffe's are where it crashed."""
    try:
        found.check()
    except InputError as error:
        raise InputError(f"{error} Delete {found.state} to resume from the snapshot before it") from None


@contextmanager
def _collect_signals(stop: Callable[[], None]) -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGHUP instead of dying of them, and call `stop` at each."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        stop()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING)}
    signal.signal(signal.SIGINT, note)
    on_ending(note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _keep(folder: Path, param: SolverParameter, metrics: TrainingMetrics) -> None:
    final = snapshot.find_snapshots(param.snapshot_prefix)[-1]
    best = metrics.best() or final
    for source, name in ((final, "final.caffemodel"), (best, "best.caffemodel")):
        if source.hdf5:  # all that comes after training reads .caffemodels: the one that BINARYPROTO would have left
            net = train_net(param).build(Net)
            net.copy_from(source.weights)
            net.save(folder / name)
            continue
        with atomic_file(folder / name) as target, open(source.weights, "rb") as weights:
            shutil.copyfileobj(weights, target)
    value = metrics.rows.get(best.iteration, {}).get(metrics.metric)
    log.info(
        "final.caffemodel is of iteration %d; best.caffemodel of %d%s",
        final.iteration,
        best.iteration,
        f", with test {param.test_metric} {value}" if value else ", for there was no test phase",
    )


def _average(folder: Path, param: SolverParameter, metrics: TrainingMetrics, options: dict[str, Any]) -> None:
    """Write averaged.caffemodel, measure it by the test nets, and log both. `options` are Net's."""
    snapshots = metrics.averaged()
    seed = param.random_seed if param.random_seed >= 0 else None
    net = train_net(param).build(Net, seed=seed, **options)
    batches = -(-metrics.images * param.iter_size // metrics.batch)  # an epoch
    average_snapshots(net, [found.weights for found in snapshots], batches)
    net.save(folder / "averaged.caffemodel")
    iterations = ", ".join(str(found.iteration) for found in snapshots)
    with glog.log_file(folder / "train.log") as logger:
        logger.info("Averaged the snapshots of iterations %s, with the statistics of %d batches", iterations, batches)
        for number, named in enumerate(test_nets(param)):
            test_net = named.build(Net, **options)
            test_net.share_with(net)
            for line in described(test_net, _means(test_net, param.test_iter[number]).items()):
                logger.info("    Averaged net output #%d: %s", number, line)
                log.info("averaged.caffemodel, of iterations %s: %s", iterations, line)


def _means(net: Net, batches: int) -> dict[str, torch.Tensor]:
    """The mean of each output over some batches."""
    sums: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for _ in range(batches):
            for name, value in net.forward().items():
                sums[name] = sums[name] + value if name in sums else value.clone()
    return {name: value / batches for name, value in sums.items()}
