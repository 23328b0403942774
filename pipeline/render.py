"""render: fill a net's train_val, deploy and solver prototxts in for one run, on the parsed messages."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from pipeline import fine_tuning, manifest
from pipeline.caffe.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter, Phase
from pipeline.caffe.database import DatabaseReader, datum_to_array
from pipeline.caffe.proto import PrototxtError, read_net, read_solver, write_binary, write_prototxt
from pipeline.caffe.transformer import Transformer
from pipeline.console import log
from pipeline.errors import InputError

MAX_TEST_BATCH = 500
START = "start.caffemodel"

# What a run may say instead of the net's own prototxts: fields of SolverParameter and of TransformationParameter.
SOLVER_FIELDS = {
    "base_lr": float, "gamma": float, "momentum": float, "weight_decay": float, "display": int, "test_interval": int,
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("net", type=Path, help="folder of the net's train_val, deploy and solver.prototxt")
    parser.add_argument("databases", type=Path, help="folder of train_lmdb, val_lmdb, test_lmdb, labels.txt and mean")
    parser.add_argument("output", type=Path, help="folder of the run, for the three rendered prototxts")
    parser.add_argument("--epochs", type=int, required=True, help="passes over the training set")
    parser.add_argument("--batch-size", type=int, required=True, help="images in a training batch")
    parser.add_argument("--steps", type=float, nargs="*", required=True, metavar="SHARE",
                        help="when the multistep policy lowers the learning rate, as shares of all iterations")
    parser.add_argument("--snapshot", type=int, required=True, help="iterations between two snapshots")
    parser.add_argument("--seed", type=int, required=True, help="of fillers, crops, mirrors and dropout")
    for name, kind in SOLVER_FIELDS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help="instead of the solver.prototxt's")
    parser.add_argument("--crop-size", type=int, help="instead of the train_val.prototxt's")
    parser.add_argument("--weights", type=Path, metavar="FILE",
                        help=".caffemodel to start from; the layer of the classes is made anew for another number")
    parser.add_argument("--freeze", nargs="*", default=(), metavar="LAYER", help="keep layers as --weights has them")
    parser.add_argument("--mirror", action=argparse.BooleanOptionalAction, help="instead of the train_val.prototxt's")


def run(args: argparse.Namespace) -> None:
    options = ("epochs", "batch_size", "steps", "snapshot", "seed", "crop_size", "mirror", "weights", "freeze")
    overrides = {name: value for name in SOLVER_FIELDS if (value := getattr(args, name)) is not None}
    render(args.net, args.databases, args.output, **{name: getattr(args, name) for name in options}, **overrides)


def render(
    net: Path, databases: Path, output: Path, *, epochs: int, batch_size: int, steps: Sequence[float], snapshot: int,
    seed: int, crop_size: int | None = None, mirror: bool | None = None, weights: Path | None = None,
    freeze: Sequence[str] = (), **solver_fields: float,
) -> None:
    """Write train_val.prototxt, deploy.prototxt and solver.prototxt of a run to `output`.

    max_iter = ceil(epochs * N / batch_size) for N training images; the i-th stepvalue is round(steps[i] * max_iter).
    The test batch is the largest divisor of the held-out set's size up to 500, since Caffe's test cursor wraps: only
    when test_iter * batch equals the set's size is every image counted once. Paths are written as they are given, so
    give them relative to the repository's root. What is taken of `weights` is written to start.caffemodel, which the
    solver names; fine_tuning tells what that and `freeze` do. Raises PrototxtError or another InputError naming the
    file at fault.
    """
    train_val, deploy = read_net(net / "train_val.prototxt"), read_net(net / "deploy.prototxt")
    solver = read_solver(net / "solver.prototxt")
    labels = manifest.read_labels(databases / "labels.txt")
    train_database, test_database = databases / "train_lmdb", _held_out(databases)
    train_size, test_size = _size(train_database), _size(test_database)
    if not train_size:
        raise InputError(f"{train_database}: no images to train on; has the source any of the Training Usage?")
    if list(steps) != sorted(set(steps)) or not all(0 < step < 1 for step in steps):
        raise InputError(f"steps {list(steps)}: ascending shares of the iterations between 0 and 1 were expected")

    test_batch = largest_divisor(test_size, MAX_TEST_BATCH)
    image_shape = _image_shape(train_database)
    for phase, database, batch in ((TRAIN, train_database, batch_size), (TEST, test_database, test_batch)):
        layer = _data_layer(train_val, phase, net)
        layer.data_param.source = database.as_posix()
        layer.data_param.batch_size = batch
        transform = layer.transform_param
        transform.mean_file = (databases / "mean.binaryproto").as_posix()
        if crop_size is not None:
            transform.crop_size = crop_size
        if mirror is not None and phase == TRAIN:
            transform.mirror = mirror
        input_shape = Transformer(transform, phase).output_shape(*image_shape)

    _only_input(deploy, net).input_param.shape[0].dim[:] = [1, *input_shape]
    for message, name in ((train_val, "train_val.prototxt"), (deploy, "deploy.prototxt")):
        _classifier(message, net / name).inner_product_param.num_output = len(labels)

    solver.net = (output / "train_val.prototxt").as_posix()
    solver.max_iter = math.ceil(epochs * train_size / batch_size)
    if solver.lr_policy == "multistep":
        solver.stepvalue[:] = [round(step * solver.max_iter) for step in steps]
    solver.test_iter[:] = [test_size // test_batch]
    solver.snapshot = snapshot
    solver.snapshot_prefix = (output / "snapshots" / net.name).as_posix()
    solver.random_seed = seed
    for field, value in solver_fields.items():
        setattr(solver, field, value)

    start = None
    if weights:
        start = fine_tuning.starting_weights(weights, deploy, _classifier(deploy, net / "deploy.prototxt").name)
        fine_tuning.freeze(train_val, freeze, start)
        solver.weights[:] = [(output / START).as_posix()]
    elif freeze:
        raise InputError(f"freeze: {', '.join(freeze)}: nothing to keep without weights to start from; set weights")

    if start:
        write_binary(output / START, start)
    write_prototxt(output / "train_val.prototxt", train_val)
    write_prototxt(output / "deploy.prototxt", deploy)
    write_prototxt(output / "solver.prototxt", solver)
    log.info("%d classes: %s", len(labels), ", ".join(labels))
    log.info("train: %d images, %d iterations of %d, learning rate %g falling at %s", train_size, solver.max_iter,
             batch_size, solver.base_lr, ", ".join(map(str, solver.stepvalue)) or "no step")
    log.info("test: all %d images of %s, %d iterations of %d", test_size, test_database, *solver.test_iter, test_batch)


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`, both at least 1."""
    return next(divisor for divisor in range(min(number, limit), 0, -1) if number % divisor == 0)


def _held_out(databases: Path) -> Path:
    """The database of the TEST phase: validation, or where the protocol leaves none the test set."""
    for name in ("val_lmdb", "test_lmdb"):
        if _size(databases / name):
            return databases / name
    raise InputError(f"{databases}: val_lmdb and test_lmdb are both empty, where images to measure the net on were "
                     "expected; has the source any of PublicTest or PrivateTest?")


def _size(database: Path) -> int:
    with DatabaseReader(database) as reader:
        return len(reader)


def _image_shape(database: Path) -> tuple[int, int, int]:
    """(C, H, W) of the first image; the engine checks the others as it reads them."""
    with DatabaseReader(database) as reader:
        key, datum = next(iter(reader))
        channels, height, width = datum_to_array(datum, reader.name(key)).shape
    return channels, height, width


def _data_layer(message: NetParameter, phase: "Phase", net: Path) -> LayerParameter:
    found = [
        layer for layer in message.layer
        if layer.type == "Data" and any(rule.HasField("phase") and rule.phase == phase for rule in layer.include)
    ]
    if len(found) != 1:
        name = Phase.Name(phase)
        raise PrototxtError(f"{net / 'train_val.prototxt'}: {len(found)} Data layers with include {{ phase: {name} }} "
                            "where one was expected; give each phase a Data layer of its own")
    return found[0]


def _only_input(message: NetParameter, net: Path) -> LayerParameter:
    found = [layer for layer in message.layer if layer.type == "Input"]
    if len(found) != 1 or len(found[0].input_param.shape) != 1:
        raise PrototxtError(f"{net / 'deploy.prototxt'}: {len(found)} Input layers where one with one shape was "
                            "expected")
    return found[0]


def _classifier(message: NetParameter, path: Path) -> LayerParameter:
    """The last InnerProduct: its outputs are the classes."""
    for layer in reversed(message.layer):
        if layer.type == "InnerProduct":
            return layer
    raise PrototxtError(f"{path}: no InnerProduct layer, whose num_output would be the number of classes")

