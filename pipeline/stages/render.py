"""render: fill a net's train_val, deploy and solver prototxts in for one run, on the parsed messages."""

import argparse
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.caffe.augmentation import LIMITS, read_augmentation
from pipeline.caffe.data_transformer import Transformer
from pipeline.caffe.database import DatabaseReader, datum_to_array
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter, Phase, SolverParameter
from pipeline.caffe.proto.files import PrototxtError, read_net, read_solver, write_binary, write_prototxt
from pipeline.classifier import fine_tuning
from pipeline.classifier.augmentation_sheet import draw_augmented
from pipeline.classifier.objective import INFOGAIN, LABELS_ALONE, Objective, last_inner_product
from pipeline.data import manifest

MAX_TEST_BATCH = 500
MAX_COUNT = (1 << 31) - 1  # of whole numbers in Caffe's messages
COUNTS = {"epochs": 1, "batch_size": 1, "crop_size": 0, "early_stopping": 0, "plateau_patience": 0}  # and the least
START = "start.caffemodel"

# What a run may say instead of the net's own prototxts: fields of SolverParameter and of TransformationParameter.
SOLVER_FIELDS = {
    "momentum": float,
    "weight_decay": float,
    "base_lr": float,
    "lr_policy": str,
    "gamma": float,
    "power": float,
    "plateau_patience": int,
    "early_stopping": int,
    "test_metric": str,
    "min_delta": float,
}
# The same, given as durations: iterations, such as "500", or epochs, such as "1.5 epochs".
DURATIONS = {"warmup": "warmup_iter", "display": "display", "test_interval": "test_interval", "snapshot": "snapshot"}
# What the rate of a policy depends on. Without them Caffe takes 0, and the rate is 0 or never changes.
POLICY_FIELDS = {
    "step": ("gamma", "stepsize"),
    "exp": ("gamma",),
    "inv": ("gamma", "power"),
    "multistep": ("gamma",),
    "plateau": ("gamma",),
    "poly": ("power",),
    "sigmoid": ("gamma", "stepsize"),
}
# The policies that each of these settings changes.
OVERRIDES_OF = {
    "gamma": [policy for policy, fields in POLICY_FIELDS.items() if "gamma" in fields],
    "power": [policy for policy, fields in POLICY_FIELDS.items() if "power" in fields],
    "plateau_patience": ["plateau"],
}
DURATION = re.compile(r"(\d{1,18})|(\d{1,9}(?:\.\d{1,9})?) epochs?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("net", type=Path, help="folder of the net's train_val, deploy and solver.prototxt")
    parser.add_argument("databases", type=Path, help="folder of train_lmdb, val_lmdb, test_lmdb, labels.txt and mean")
    parser.add_argument(
        "output",
        type=Path,
        help="folder of the run, for the three rendered prototxts and the sheet of augmented training images",
    )
    parser.add_argument("--epochs", type=int, required=True, help="passes over the training set")
    parser.add_argument("--batch-size", type=int, required=True, help="images in a training batch")
    parser.add_argument(
        "--steps",
        type=float,
        nargs="*",
        required=True,
        metavar="SHARE",
        help="when the multistep policy lowers the learning rate, as shares of all iterations",
    )
    parser.add_argument("--seed", type=int, required=True, help="of fillers, crops, mirrors and dropout")
    for name, field in DURATIONS.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            metavar="DURATION",
            help=f"iterations, or '5 epochs': instead of the solver.prototxt's {field}",
        )
    for name, kind in SOLVER_FIELDS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help="instead of the solver.prototxt's")
    parser.add_argument("--crop-size", type=int, help="instead of the train_val.prototxt's")
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help=".caffemodel or .safetensors to start from; the layer of the classes is made anew for another number",
    )
    parser.add_argument("--freeze", nargs="*", default=(), metavar="LAYER", help="keep layers as --weights has them")
    parser.add_argument("--mirror", action=argparse.BooleanOptionalAction, help="instead of the train_val.prototxt's")
    parser.add_argument(
        "--augmentation",
        nargs="*",
        metavar="CHANGE=RANGE[:PROBABILITY]",
        help=f"instead of the train_val.prototxt's; the changes are {', '.join(LIMITS)} and, without a "
        "range, alternate_mirror",
    )
    parser.add_argument(
        "--label-smoothing",
        type=float,
        default=0.0,
        help="share of every label that goes to all classes alike (default 0)",
    )
    parser.add_argument(
        "--class-weights",
        nargs="*",
        metavar="LABEL=WEIGHT",
        default=[],
        help="weights of the labels in the loss; the one word balanced gives every label the same say",
    )
    parser.add_argument("--targets", type=Path, help="folder of the stage `targets`: soft targets to learn")
    parser.add_argument(
        "--auxiliary-weight",
        type=float,
        default=0.4,
        help="weight of the second head's loss, where --targets has one (default 0.4)",
    )


def run(args: argparse.Namespace) -> None:
    options = ("epochs", "batch_size", "steps", "seed", "crop_size", "mirror", "augmentation", "weights", "freeze")
    overrides = {name: value for name in (*SOLVER_FIELDS, *DURATIONS) if (value := getattr(args, name)) is not None}
    objective = Objective(args.label_smoothing, tuple(args.class_weights), args.targets, args.auxiliary_weight)
    render(
        args.net,
        args.databases,
        args.output,
        objective=objective,
        **{name: getattr(args, name) for name in options},
        **overrides,
    )


def render(
    net: Path,
    databases: Path,
    output: Path,
    *,
    epochs: int,
    batch_size: int,
    steps: Sequence[float],
    seed: int,
    crop_size: int | None = None,
    mirror: bool | None = None,
    augmentation: Sequence[str] | None = None,
    objective: Objective = LABELS_ALONE,
    weights: Path | None = None,
    freeze: Sequence[str] = (),
    **overrides: float | str,
) -> None:
    """Write train_val.prototxt, deploy.prototxt and solver.prototxt of a run to `output`, with augmentation.png.

    overrides: values of SOLVER_FIELDS and DURATIONS, instead of the net's own. max_iter = ceil(epochs * N / batch_size)
    for N training images, or as near to it as lets a test_interval in epochs divide it: then the last weights are
    tested, which Caffe does not do otherwise. The i-th stepvalue is round(steps[i] * max_iter).
    The test batch is the largest divisor of the held-out set's size up to 500, since Caffe's test cursor wraps: only
    when test_iter * batch equals the set's size is every image counted once. Paths are written as they are given, so
    give them relative to the repository's root. What is taken of `weights` is written to start.caffemodel, which the
    solver names; fine_tuning tells what that and `freeze` do. Raises PrototxtError or another InputError naming the
    file at fault.
    """
    _check_counts({"epochs": epochs, "batch_size": batch_size, "crop_size": crop_size or 0, **overrides})
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
    training, held_out = (_phase_data_layer(train_val, phase, net) for phase in (TRAIN, TEST))
    for layer, database, batch in ((training, train_database, batch_size), (held_out, test_database, test_batch)):
        layer.data_param.source = database.as_posix()
        layer.data_param.batch_size = batch
        layer.transform_param.mean_file = (databases / "mean.binaryproto").as_posix()
        if crop_size is not None:
            layer.transform_param.crop_size = crop_size
    if mirror is not None:
        training.transform_param.mirror = mirror
    if augmentation is not None:
        training.transform_param.augmentation_param.CopyFrom(read_augmentation(augmentation))
    image_shape = _image_shape(train_database)
    input_shape, _ = (
        Transformer(layer.transform_param, layer.include[0].phase).output_shape(*image_shape)
        for layer in (held_out, training)
    )

    given = _input_layer(deploy, net)
    given.input_param.shape[0].dim[:] = [1, *input_shape]
    # Caffe's Input ignores it; evaluate and export take it from here.
    given.transform_param.scale = _common_scale(training, held_out, net)
    for message, name in ((train_val, "train_val.prototxt"), (deploy, "deploy.prototxt")):
        _classifier(message, net / name).inner_product_param.num_output = len(labels)

    objective.set_in(train_val, labels, train_database, batch_size, output / INFOGAIN)

    solver.net = (output / "train_val.prototxt").as_posix()
    solver.snapshot_prefix = (output / "snapshots" / net.name).as_posix()
    solver.random_seed = seed
    solver.test_iter[:] = [test_size // test_batch]
    _set_schedule(solver, net, test_database, overrides, epochs=epochs, steps=steps, epoch=train_size / batch_size)
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
    draw_augmented(output / "augmentation.png", training, seed)
    log.info("%d classes: %s", len(labels), ", ".join(labels))
    log.info(
        "train: %d images, %d iterations of %d, learning rate %g by lr_policy %s%s%s",
        train_size,
        solver.max_iter,
        batch_size,
        solver.base_lr,
        solver.lr_policy,
        f", falling at {', '.join(map(str, solver.stepvalue))}" if solver.stepvalue else "",
        f", after a warm-up of {solver.warmup_iter} iterations" if solver.warmup_iter else "",
    )
    log.info("test: all %d images of %s, %d iterations of %d", test_size, test_database, *solver.test_iter, test_batch)


def _set_schedule(
    solver: SolverParameter,
    net: Path,
    test_database: Path,
    overrides: Mapping[str, float | str],
    *,
    epochs: int,
    steps: Sequence[float],
    epoch: float,
) -> None:
    """Set how long is trained, at which rates, and what happens when; an epoch has `epoch` iterations."""
    iterations = math.ceil(epochs * epoch)
    if iterations > MAX_COUNT:
        raise InputError(f"epochs {epochs}: {iterations} iterations, where Caffe counts to {MAX_COUNT}; say fewer")
    solver.max_iter = iterations
    for field in SOLVER_FIELDS.keys() & overrides:
        setattr(solver, field, overrides[field])
    _set_durations(solver, {name: str(overrides[name]) for name in DURATIONS if name in overrides}, epoch)
    _check_policy(solver, net, test_database)
    _check_effect(solver, overrides)
    solver.ClearField("stepvalue")
    if solver.lr_policy == "multistep":
        solver.stepvalue[:] = [round(step * solver.max_iter) for step in steps]


def _check_counts(given: Mapping[str, float | str]) -> None:
    """Raise InputError naming one of COUNTS that is below its least value, or that Caffe's messages do not hold."""
    for name in COUNTS.keys() & given:
        if not COUNTS[name] <= int(given[name]) <= MAX_COUNT:
            raise InputError(f"{name} {given[name]} where {COUNTS[name]} to {MAX_COUNT} was expected")


def _set_durations(solver: SolverParameter, durations: Mapping[str, str], epoch: float) -> None:
    """Set the fields that DURATIONS names, for epochs of `epoch` iterations, and move max_iter to the nearest multiple
    of a test_interval in epochs.

    Raises InputError for what is no duration, and where no snapshot would be of an iteration that is tested.
    """
    found = {name: DURATION.fullmatch(text) for name, text in durations.items()}
    for name, match in found.items():
        if match is None:
            raise InputError(f"{name} '{durations[name]}' where a number of iterations, or '5 epochs', was expected")
    interval = found.get("test_interval")
    if interval and interval[2]:
        asked = max(1, round(float(interval[2]) * epoch))
        tests = max(1, round(solver.max_iter / asked))
        solver.test_interval = max(1, round(solver.max_iter / tests))
        solver.max_iter = tests * solver.test_interval
        if asked < solver.max_iter:
            epoch = solver.test_interval / float(interval[2])  # so that multiples of durations are multiples
    for name, match in found.items():
        if match and not (name == "test_interval" and match[2]):
            iterations = int(match[1]) if match[1] else max(1, round(float(match[2]) * epoch))
            if iterations > MAX_COUNT:
                raise InputError(f"{name} {durations[name]}: Caffe counts to {MAX_COUNT} iterations; say fewer")
            setattr(solver, DURATIONS[name], iterations)
    apart = sorted((solver.snapshot, solver.test_interval))
    if apart[0] and apart[1] % apart[0]:
        raise InputError(
            f"snapshot {solver.snapshot} and test_interval {solver.test_interval} (iterations), where one "
            "was expected to be a multiple of the other: the best snapshot is one that was tested"
        )


def _check_policy(solver: SolverParameter, net: Path, test_database: Path) -> None:
    """Raise InputError where nothing sets a number that the rate of the lr_policy depends on, or nothing is held out
    that a training could go by.
    """
    missing = [field for field in POLICY_FIELDS.get(solver.lr_policy, ()) if not solver.HasField(field)]
    if missing:
        raise InputError(
            f"{net / 'solver.prototxt'}: lr_policy '{solver.lr_policy}' without {' and '.join(missing)}; "
            f"set {'it' if len(missing) == 1 else 'them'} there or in the settings"
        )
    if (solver.early_stopping or solver.plateau_patience) and test_database.name != "val_lmdb":
        raise InputError(
            f"{test_database.with_name('val_lmdb')} is empty, so nothing is held out to go by for "
            "early_stopping or plateau_patience; leave them out, or take protocol kaggle with a source "
            "that has PublicTest"
        )


def _check_effect(solver: SolverParameter, overrides: Mapping[str, float | str]) -> None:
    """Raise InputError naming an override that would change nothing."""
    for name, policies in OVERRIDES_OF.items():
        if name in overrides and solver.lr_policy not in policies:
            raise InputError(
                f"{name} {overrides[name]}: changes nothing with lr_policy '{solver.lr_policy}'; leave it out (null), "
                f"or take lr_policy {' or '.join(policies)}"
            )
    by_tests = solver.early_stopping or (solver.lr_policy == "plateau" and solver.plateau_patience)
    if overrides.get("min_delta") and not by_tests:
        raise InputError(
            f"min_delta {overrides['min_delta']}: changes nothing without early_stopping or plateau_patience; leave it "
            "out (null), or set one of them"
        )


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`, both at least 1."""
    return next(divisor for divisor in range(min(number, limit), 0, -1) if number % divisor == 0)


def _held_out(databases: Path) -> Path:
    """The database of the TEST phase: validation, or where the protocol leaves none the test set."""
    for name in ("val_lmdb", "test_lmdb"):
        if _size(databases / name):
            return databases / name
    raise InputError(
        f"{databases}: val_lmdb and test_lmdb are both empty, where images to measure the net on were "
        "expected; has the source any of PublicTest or PrivateTest?"
    )


def _size(database: Path) -> int:
    with DatabaseReader(database) as reader:
        return len(reader)


def _image_shape(database: Path) -> tuple[int, int, int]:
    """(C, H, W) of the first image; the engine checks the others as it reads them."""
    with DatabaseReader(database) as reader:
        key, datum = next(iter(reader))
        channels, height, width = datum_to_array(datum, reader.name(key)).shape
    return channels, height, width


def _phase_data_layer(message: NetParameter, phase: "Phase", net: Path) -> LayerParameter:
    found = [
        layer
        for layer in message.layer
        if layer.type == "Data" and any(rule.HasField("phase") and rule.phase == phase for rule in layer.include)
    ]
    if len(found) != 1:
        name = Phase.Name(phase)
        raise PrototxtError(
            f"{net / 'train_val.prototxt'}: {len(found)} Data layers with include {{ phase: {name} }} "
            "where one was expected; give each phase a Data layer of its own"
        )
    return found[0]


def _common_scale(training: LayerParameter, held_out: LayerParameter, net: Path) -> float:
    """What both phases multiply pixels by."""
    scale, measured = (layer.transform_param.scale for layer in (training, held_out))
    if scale != measured:
        raise PrototxtError(
            f"{net / 'train_val.prototxt'}: scale {scale:g} in TRAIN and {measured:g} in TEST, where a "
            "net is measured as it was trained; give both Data layers the same"
        )
    return scale


def _input_layer(message: NetParameter, net: Path) -> LayerParameter:
    found = [layer for layer in message.layer if layer.type == "Input"]
    if len(found) != 1 or len(found[0].input_param.shape) != 1:
        raise PrototxtError(
            f"{net / 'deploy.prototxt'}: {len(found)} Input layers where one with one shape was expected"
        )
    return found[0]


def _classifier(message: NetParameter, path: Path) -> LayerParameter:
    layer = last_inner_product(message)
    if layer is None:
        raise PrototxtError(f"{path}: no InnerProduct layer, whose num_output would be the number of classes")
    return layer
