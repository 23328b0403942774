"""evaluate: measure a trained net on every held-out image, once, and draw its confusion matrix."""

import argparse
import json
import math
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.base.atomic import atomic_file, atomic_folder, temporary_folder
from pipeline.base.console import log
from pipeline.base.hashing import sha256
from pipeline.caffe.database import DatabaseReader, record_key
from pipeline.caffe.proto.caffe_pb2 import DataParameter, LayerParameter
from pipeline.caffe.proto.files import read_net, write_prototxt
from pipeline.caffe.real_caffe import RealCaffe, refuse_extensions, root_from_environment
from pipeline.classifier.board import add_picture, open_board
from pipeline.classifier.calibration import (
    UNCERTAIN,
    calibrate,
    calibration_error,
    fit_temperature,
    negative_log_likelihood,
)
from pipeline.classifier.objective import read_class_weights
from pipeline.classifier.trained import (
    BATCH,
    PARTS,
    Measurable,
    MeasureError,
    Trained,
    load,
    predictions,
    versions,
)
from pipeline.classifier.views import COUNTS, check
from pipeline.data import manifest
from pipeline.data.manifest import ManifestRow
from pipeline.data.shards import SHARD_FILE, Shard, in_order, read_shard, write_note
from pipeline.stages.arguments import add_engine_arguments, add_net_arguments, add_views
from pipeline.stages.shard_arguments import add_shard_arguments

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STAGE = "evaluate"
BOOTSTRAP_DRAWS = 2000
TITLE_WIDTH = 4.8  # inches, that the title of a confusion table has room in
SERVED_ECE = 0.03  # that a model is served with at most, where its class prior can be chosen so
BOOTSTRAP_SEED = 1
PRIOR_POWERS = (0.0, 0.25, 0.5, 1.0)  # of the table of class priors
CHOICE_POWERS = np.arange(21) / 20  # that the default class prior is chosen from
CAFFE_BATCH = 100
CELL, MAX_NUMBERED = 0.66, 30  # inches of a cell with a number; classes that have such cells
UNNUMBERED, MAX_TICKS = 12.0, 120  # inches of the matrix of more classes; names beside it: of still more some have none
MAX_TICK = 16  # letters of a class's name beside the confusion matrix


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_net_arguments(parser)
    parser.add_argument("output", type=Path, help="folder to write metrics.json and confusion.png to")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.csv that the databases were made from")
    add_views(parser, "of each image, whose probabilities are averaged, and fewer views for comparison: ")
    parser.add_argument(
        "--tensorboard",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="also show confusion.png in TensorBoard",
    )
    parser.add_argument(
        "--class-weights",
        nargs="*",
        metavar="LABEL=WEIGHT",
        default=[],
        help="those that the net was trained with: to it each label was as common as its weight made it",
    )
    add_engine_arguments(parser)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of real Caffe (default 2)")
    add_shard_arguments(parser, "run the net on")


def run(args: argparse.Namespace) -> None:
    if args.engine == "caffe" and (args.shard or args.gather):
        raise MeasureError("shards with engine caffe, which reads whole databases; say engine torch, or no shards")
    if args.shard:
        given = {"databases": args.databases, "mean": args.mean, "views": args.views}
        evaluate_shard(args.deploy, args.weights, args.output, read_shard(args.shard), **given)
        return
    caffe = RealCaffe(args.caffe or root_from_environment(), args.threads) if args.engine == "caffe" else None
    evaluate(
        args.deploy,
        args.weights,
        args.output,
        databases=args.databases,
        mean=args.mean,
        manifest_path=args.manifest,
        views=args.views,
        class_weights=args.class_weights,
        caffe=caffe,
        shards=args.gather,
    )
    if args.tensorboard:
        with open_board(args.output) as board:
            add_picture(board, "confusion", args.output / "confusion.png")


def evaluate(
    deploy: Path,
    weights: Path,
    output: Path,
    *,
    databases: Path,
    mean: Path,
    manifest_path: Path,
    views: int = 1,
    class_weights: Sequence[str] = (),
    caffe: RealCaffe | None = None,
    shards: Sequence[Path] = (),
) -> dict[str, Any]:
    """Run every image of val_lmdb and test_lmdb through the net; write metrics.json and confusion.png under `output`.

    views: of each image (views.COUNTS). All figures are of one view, but those under `views`, a row for each number of
    them up to this one: view_figures(). class_weights: those that the net was trained with, as render takes them.
    caffe: real Caffe, to run the images in instead of the project's engine.
    shards: folders of all shards that evaluate_shard() made with the same arguments, whose answers are measured.

    Returns what metrics.json holds: under `val` and `test` figures() of all images, and under `unseen` those of the
    images whose source is not byte-equal to one in training; null where the database is empty. Under
    `training_shares` the share of each label in train_lmdb, as the class weights made it; under `temperature` the one
    that calibrates the net on val_lmdb and under `class_prior` the power of the shares that choose_power() finds there;
    null where val_lmdb is empty, for nothing may be chosen on test_lmdb. Under `view_temperatures` the temperature of
    each larger number of views. With a temperature each part has served_figures() under `served` and prior_figures()
    under `priors`. Raises InputError when both databases are empty, or when net, mean, labels, databases and manifest
    do not belong together, and where a shard is missing, given twice or made with other arguments.
    """
    trained = load(deploy, weights, mean, databases / "labels.txt")
    if caffe and views > 1:
        raise MeasureError(f"views {views} with engine caffe, whose Data layer gives one; say views 1, or engine torch")
    in_caffe = (
        partial(_in_caffe, caffe=caffe, trained=trained, deploy=deploy, weights=weights, output=output)
        if caffe
        else None
    )
    return measure(
        trained,
        output,
        databases=databases,
        manifest_path=manifest_path,
        views=views,
        class_weights=read_class_weights(class_weights, trained.labels, databases / "train_lmdb"),
        files=(deploy, weights, mean),
        made_by=[*versions("numpy", "torch", "scikit-learn"), *([caffe.version] if caffe else [])],
        in_caffe=in_caffe,
        shards=in_order(STAGE, shards, _made_by(deploy, weights, mean, databases, views))[0] if shards else (),
    )


def evaluate_shard(
    deploy: Path, weights: Path, output: Path, shard: Shard, *, databases: Path, mean: Path, views: int = 1
) -> None:
    """Run one shard of each held-out database through the net, for evaluate() to measure. Raises as evaluate() does."""
    trained = load(deploy, weights, mean, databases / "labels.txt")
    check(views, trained.transformer)
    own = [_answers(part, count) for part in PARTS for count in COUNTS]
    with atomic_folder(output, own=(*own, SHARD_FILE)) as folder:
        for part in PARTS:
            database = databases / f"{part}_lmdb"
            with DatabaseReader(database) as reader:
                rows = shard.rows(len(reader), BATCH)
            for count in [count for count in COUNTS if count <= views]:
                start = time.perf_counter()
                _, truth, probabilities = predictions(trained, database, views=count, rows=rows)
                seconds = time.perf_counter() - start
                np.savez(folder / _answers(part, count), truth=truth, probabilities=probabilities, seconds=seconds)
        write_note(folder, STAGE, shard, _made_by(deploy, weights, mean, databases, views))


def _answers(part: str, views: int) -> str:
    """The file of a shard with what the net says of a part."""
    return f"{part}_{views}.npz"


def _made_by(deploy: Path, weights: Path, mean: Path, databases: Path, views: int) -> dict[str, Any]:
    """What decides the net's answers."""
    files = (deploy, weights, mean, *(databases / f"{part}_lmdb" / "data.mdb" for part in PARTS))
    return {"views": views, "sha256": [sha256(path) for path in files]}


def _read_answers(shards: Sequence[Path], part: str, views: int) -> tuple[np.ndarray, np.ndarray, float]:
    """What the net says of a part: truth (N,), probabilities (N, classes), and the seconds of all shards."""
    found = []
    for shard in shards:
        try:
            with np.load(shard / _answers(part, views)) as file:
                found.append((file["truth"], file["probabilities"], float(file["seconds"])))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise MeasureError(f"{shard / _answers(part, views)}: {error}; make the shard again") from None
    truth, probabilities, seconds = zip(*found, strict=True)
    return np.concatenate(truth), np.concatenate(probabilities), sum(seconds)


def measure(
    trained: Measurable,
    output: Path,
    *,
    databases: Path,
    manifest_path: Path,
    views: int,
    files: tuple[Path, ...],
    made_by: list[str],
    class_weights: Mapping[str, float] | None = None,
    member_shares: Sequence[np.ndarray | None] = (),
    in_caffe: Callable[[Path], np.ndarray] | None = None,
    shards: Sequence[Path] = (),
) -> dict[str, Any]:
    """evaluate(), of what gives probabilities. files: its own; made_by: names and versions of what computes them.

    member_shares: of each member whose probabilities it averages the label shares that it learned, None where they are
    not known and those of train_lmdb are taken. The mean has learned their mean: it is what members say of a face that
    tells them nothing.
    """
    check(views, trained.transformer)

    def predict(part: str, count: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Truth, probabilities and the seconds that they took."""
        if shards:
            return _read_answers(shards, part, count)
        start = time.perf_counter()
        database = databases / f"{part}_lmdb"
        _, truth, probabilities = predictions(trained, database, in_caffe if count == 1 else None, views=count)
        return truth, probabilities, time.perf_counter() - start

    images = {row.path: row for row in manifest.read(manifest_path)}
    training = _listed(databases, "train", images, manifest_path)
    seen = {row.sha256 for row in training}
    found = [row.label for row in training]
    natural = training_shares(found, trained.labels, databases)
    shares = training_shares(found, trained.labels, databases, class_weights)
    if member_shares:
        shares = np.mean([shares if known is None else known for known in member_shares], axis=0)
    metrics: dict[str, Any] = {
        **dict.fromkeys(PARTS),
        "training_shares": dict(zip(trained.labels, map(float, shares), strict=True)),
        "temperature": None,
        "class_prior": None,
        "view_temperatures": {},
    }
    for part in PARTS:  # val first: its temperature is measured on both
        truth, probabilities, seconds = predict(part, 1)
        if len(truth):
            unseen = np.array([row.sha256 not in seen for row in _listed(databases, part, images, manifest_path)])
            metrics[part] = figures(truth, probabilities, trained.labels)
            metrics[part]["seen_in_training"] = int((~unseen).sum())
            metrics[part]["unseen"] = (
                figures(truth[unseen], probabilities[unseen], trained.labels) if unseen.any() else None
            )
            if part == "val":
                metrics["temperature"] = fit_temperature(truth, probabilities)
                metrics["class_prior"] = choose_power(truth, probabilities, metrics["temperature"], shares)
            if metrics["temperature"]:
                calibrated = partial(calibrate, probabilities, metrics["temperature"])
                metrics[part]["served"] = served_figures(truth, calibrated(shares ** -metrics["class_prior"]))
                metrics[part]["priors"] = [
                    {
                        "power": power,
                        **prior_figures(truth, calibrated(shares**-power), shares ** (1 - power) / natural),
                    }
                    for power in PRIOR_POWERS
                ]
            told = partial(view_figures, metrics=metrics, shares=shares)
            rows = [told(truth, probabilities, views=1, seconds=seconds)]
            for count in [count for count in COUNTS if 1 < count <= views]:
                _, averaged, seconds = predict(part, count)
                if part == "val":
                    metrics["view_temperatures"][str(count)] = fit_temperature(truth, averaged)
                rows.append(told(truth, averaged, views=count, seconds=seconds))
            metrics[part]["views"] = rows
    if not any(metrics[part] for part in PARTS):
        raise MeasureError(f"{databases}: val_lmdb and test_lmdb are both empty, where images to measure were expected")
    files = (*files, *(databases / f"{part}_lmdb" / "data.mdb" for part in PARTS if metrics[part]))
    # Lists, so that `dvc metrics show` leaves them out.
    metrics["files"] = [{"path": str(path), "sha256": sha256(path)} for path in files]
    metrics["versions"] = made_by
    _draw_confusion({part: metrics[part] for part in PARTS if metrics[part]}, trained.labels, output / "confusion.png")
    with atomic_file(output / "metrics.json", "w", encoding="utf-8") as file:
        json.dump(metrics, file, indent=2)
        file.write("\n")
    for part in PARTS:
        _report(part, metrics[part], metrics["class_prior"])
    return metrics


def _in_caffe(
    database: Path, *, caffe: RealCaffe, trained: Trained, deploy: Path, weights: Path, output: Path
) -> np.ndarray:
    """Probabilities (N, classes) of a database's images, in its order, which real Caffe reads and transforms itself."""
    net = read_net(deploy)
    refuse_extensions(net, str(deploy))
    (given,) = (layer for layer in net.layer if layer.type == "Input")
    data = LayerParameter(name=given.name, type="Data", top=given.top, transform_param=trained.transformer.param)
    data.data_param.MergeFrom(DataParameter(source=str(database), batch_size=CAFFE_BATCH, backend=DataParameter.LMDB))
    given.CopyFrom(data)
    with DatabaseReader(database) as reader:
        count = len(reader)
    with temporary_folder(output / "caffe") as folder:  # where a container sees it
        write_prototxt(folder / "net.prototxt", net)
        batches = math.ceil(count / CAFFE_BATCH)  # the last one may run over the end to the beginning
        caffe.run(
            "extract_features",
            str(weights),
            f"{folder}/net.prototxt",
            trained.net.outputs[0],
            f"{folder}/lmdb",
            str(batches),
            "lmdb",
        )
        with DatabaseReader(folder / "lmdb") as reader:
            return np.concatenate([rows.copy() for rows in reader.images(CAFFE_BATCH)])[:count, :, 0, 0]


def training_shares(
    truth: list[int], labels: tuple[str, ...], databases: Path, class_weights: Mapping[str, float] | None = None
) -> np.ndarray:
    """The share of each label among the training images, (classes,), each of which counts as its label weighs.

    A label that weighs 0 is not learned, so its share does not matter, but it must not be 0. Raises MeasureError when
    a label has no image.
    """
    counts = np.bincount(truth, minlength=len(labels))
    if not counts.all():
        raise MeasureError(
            f"{databases / 'train.txt'}: no image of '{labels[counts.argmin()]}', which the net has as a class; train "
            "on images of every class"
        )
    weighted = counts * [(class_weights or {}).get(label) or 1.0 for label in labels]
    return weighted / weighted.sum()


def _listed(databases: Path, part: str, rows: dict[str, ManifestRow], manifest_path: Path) -> list[ManifestRow]:
    """The manifest's rows of a database's records, in their order.

    Raises MeasureError where the database, its list and the manifest are not of the same images and labels.
    """
    path, database = databases / f"{part}.txt", databases / f"{part}_lmdb"
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    found = []
    with DatabaseReader(database) as reader:
        if len(reader) != len(lines):
            raise MeasureError(
                f"{path}: {len(lines)} lines where {database} has {len(reader)} records; make both again with lmdb"
            )
        for number, (line, (key, datum)) in enumerate(zip(lines, reader, strict=True)):
            image, _, label = line.rpartition(" ")
            if key != record_key(number, image) or str(datum.label) != label:
                raise MeasureError(
                    f"{path}:{number + 1}: {line} where {reader.name(key)} has label {datum.label}; make both "
                    "again with lmdb"
                )
            row = rows.get(image)
            if row is None or row.label != datum.label:
                what = "no row of" if row is None else f"label {row.label} for"
                raise MeasureError(
                    f"{manifest_path}: {what} {image}, which the databases hold with label {datum.label}; give the "
                    "manifest they were made from"
                )
            found.append(row)
    return found


def figures(truth: np.ndarray, probabilities: np.ndarray, labels: tuple[str, ...]) -> dict[str, Any]:
    """What is said of predictions: truth (N,) class indices, probabilities (N, classes), N > 0.

    accuracy with its 95% Wilson interval; macro_f1, the mean over the classes that occur or were predicted, with its
    95% bootstrap interval; ece, the expected calibration error of the top probability over CALIBRATION_BINS bins; nll,
    the mean -log of the true class's probability; per_class; confusion, rows being the truth.
    """
    from scipy.stats import binomtest
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    classes = range(len(labels))
    predicted = probabilities.argmax(axis=1)
    correct = predicted == truth
    interval = binomtest(int(correct.sum()), len(truth)).proportion_ci(0.95, "wilson")
    confusion = confusion_matrix(truth, predicted, labels=classes)
    columns = precision_recall_fscore_support(truth, predicted, labels=classes, zero_division=np.nan)
    return {
        "n": len(truth),
        "accuracy": float(correct.mean()),
        "accuracy_95": [interval.low, interval.high],
        "macro_f1": float(macro_f1(confusion)),
        "macro_f1_95": macro_f1_interval(confusion),
        "ece": calibration_error(probabilities.max(axis=1), correct),
        "nll": negative_log_likelihood(truth, probabilities),
        "per_class": [
            {
                "label": label,
                **{
                    name: None if np.isnan(value) else float(value)
                    for name, value in zip(("precision", "recall", "f1"), values, strict=True)
                },
                "support": int(support),
            }
            for label, *values, support in zip(labels, *columns, strict=True)
        ],
        "confusion": confusion.tolist(),
    }


def served_figures(truth: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """What is said of probabilities as they are served, calibrated and with the default class prior.

    accuracy, macro_f1, macro_recall, ece and nll; under `sure` the faces that are not below UNCERTAIN, their share of
    all and the accuracy among them (null where there are none).
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    sure = confidence >= UNCERTAIN
    return {
        **_summary(truth, probabilities),
        "sure": {
            "threshold": UNCERTAIN,
            "share": float(sure.mean()),
            "accuracy": float(correct[sure].mean()) if sure.any() else None,
        },
    }


def prior_figures(truth: np.ndarray, probabilities: np.ndarray, ratios: np.ndarray) -> dict[str, Any]:
    """What a class prior makes of a part: accuracy, macro_f1, macro_recall, and ece twice.

    ece is that of the images as they are; ece_at_prior that of images with the shares that the prior assumes, for
    which each image counts as often as `ratios` (classes,) says of its class.
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    return {
        **_totals(truth, probabilities),
        "ece": calibration_error(confidence, correct),
        "ece_at_prior": calibration_error(confidence, correct, ratios[truth]),
    }


def view_figures(
    truth: np.ndarray,
    probabilities: np.ndarray,
    *,
    views: int,
    seconds: float,
    metrics: dict[str, Any],
    shares: np.ndarray,
) -> dict[str, Any]:
    """What a number of views comes to: accuracy, macro_f1, macro_recall, ece and nll of their mean probabilities.

    `served` has the same as they are served, null without a temperature; ms_per_image is the time on the machine that
    measured it, the database's included.
    """
    temperature = metrics["temperature"] if views == 1 else metrics["view_temperatures"].get(str(views))
    served = calibrate(probabilities, temperature, shares ** -metrics["class_prior"]) if temperature else None
    return {
        "views": views,
        **_summary(truth, probabilities),
        "served": None if served is None else _summary(truth, served),
        "ms_per_image": 1000 * seconds / len(truth),
    }


def _summary(truth: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    return {
        **_totals(truth, probabilities),
        "ece": calibration_error(probabilities.max(axis=1), probabilities.argmax(axis=1) == truth),
        "nll": negative_log_likelihood(truth, probabilities),
    }


def _totals(truth: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """accuracy, macro_f1 and macro_recall, the last over the classes that occur."""
    confusion = _confusion(truth, probabilities)
    occur = confusion.sum(axis=1) > 0
    recall = np.diagonal(confusion)[occur] / confusion[occur].sum(axis=1)
    return {
        "accuracy": float(np.trace(confusion) / confusion.sum()),
        "macro_f1": float(macro_f1(confusion)),
        "macro_recall": float(recall.mean()),
    }


def _confusion(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Counts (classes, classes), rows being the truth."""
    classes = probabilities.shape[1]
    places = truth * classes + probabilities.argmax(axis=1)
    return np.bincount(places, minlength=classes * classes).reshape(classes, classes)


def choose_power(truth: np.ndarray, probabilities: np.ndarray, temperature: float, shares: np.ndarray) -> float:
    """The power of the training shares (classes,) that a model divides its probabilities by unless a user says more.

    Users' faces do not have the training's shares, so the correction is to be as strong as the held-out images allow:
    the greatest of CHOICE_POWERS whose mean of accuracy and macro-F1 is within one standard error of the best one's
    (the rule of Breiman, Friedman, Olshen, Stone: Classification and Regression Trees, 1984, 3.4.3). The error is the
    bootstrap's. A power whose calibration error is above SERVED_ECE, and above the best one's, is left out.
    """
    served = [calibrate(probabilities, temperature, shares**-power) for power in CHOICE_POWERS]
    confusions = [_confusion(truth, each) for each in served]
    scores = np.array([_accuracy_and_f1(confusion) for confusion in confusions])
    errors = np.array([calibration_error(each.max(axis=1), each.argmax(axis=1) == truth) for each in served])
    best = int(scores.argmax())
    near = scores >= scores[best] - _accuracy_and_f1(_draws(confusions[best])).std()
    return float(CHOICE_POWERS[np.flatnonzero(near & (errors <= max(SERVED_ECE, errors[best])))[-1]])


def _accuracy_and_f1(confusion: np.ndarray) -> np.ndarray:
    """Mean of accuracy and macro-F1 of confusion matrices (..., classes, classes)."""
    accuracy = np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=(-2, -1))
    return np.asarray((accuracy + macro_f1(confusion)) / 2)


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Mean F1 of confusion matrices (..., classes, classes), over the classes that occur or were predicted."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    involved = confusion.sum(axis=-1) + confusion.sum(axis=-2)  # 2 TP + FP + FN
    return (2 * hits / np.maximum(involved, 1)).sum(axis=-1) / (involved > 0).sum(axis=-1)


def macro_f1_interval(confusion: np.ndarray) -> list[float]:
    """The 95% percentile bootstrap interval."""
    low, high = np.percentile(macro_f1(_draws(confusion)), (2.5, 97.5))
    return [float(low), float(high)]


def _draws(confusion: np.ndarray) -> np.ndarray:
    """(BOOTSTRAP_DRAWS, classes, classes): drawing N images again with replacement is one multinomial draw."""
    count = confusion.sum()
    draws = np.random.default_rng(BOOTSTRAP_SEED).multinomial(count, confusion.ravel() / count, BOOTSTRAP_DRAWS)
    return draws.reshape(-1, *confusion.shape)


def _report(part: str, found: dict[str, Any] | None, power: float | None) -> None:
    if not found:
        log.info("%s: no images", part)
        return
    low, high = found["accuracy_95"]
    log.info(
        "%s: %d images, accuracy %.2f%% (95%%: %.2f to %.2f), macro-F1 %.4f (%.4f to %.4f), ECE %.4f, NLL %.4f",
        part,
        found["n"],
        100 * found["accuracy"],
        100 * low,
        100 * high,
        found["macro_f1"],
        *found["macro_f1_95"],
        found["ece"],
        found["nll"],
    )
    if "served" in found:
        served = found["served"]
        log.info(
            "  served with class prior %g: accuracy %.2f%%, macro-F1 %.4f, macro-recall %.4f, ECE %.4f; %.1f%% of "
            "the faces at least %.0f%% sure, accuracy among them %s",
            power,
            100 * served["accuracy"],
            served["macro_f1"],
            served["macro_recall"],
            served["ece"],
            100 * served["sure"]["share"],
            100 * UNCERTAIN,
            "-" if served["sure"]["accuracy"] is None else f"{served['sure']['accuracy']:.2%}",
        )
        log.info("  class prior  accuracy  macro-F1  macro-recall     ECE  ECE at these shares")
        for row in found["priors"]:
            log.info(
                "         %4.2f    %6.2f%%    %6.4f        %6.4f  %6.4f               %6.4f",
                row["power"],
                100 * row["accuracy"],
                row["macro_f1"],
                row["macro_recall"],
                row["ece"],
                row["ece_at_prior"],
            )
    if len(found["views"]) > 1:
        for row in found["views"]:
            served = row["served"] or row
            log.info(
                "  %2d views: accuracy %.2f%% (as served %.2f%%), macro-F1 %.4f, ECE as served %.4f, %.2f ms each",
                row["views"],
                100 * row["accuracy"],
                100 * served["accuracy"],
                row["macro_f1"],
                served["ece"],
                row["ms_per_image"],
            )
    width = max(len(row["label"]) for row in found["per_class"])
    log.info("  %-*s  precision  recall      F1  images", width, "class")
    for row in found["per_class"]:
        shares = ("     -" if row[name] is None else f"{row[name]:6.3f}" for name in ("precision", "recall", "f1"))
        log.info("  %-*s     %s  %s  %s  %6d", width, row["label"], *shares, row["support"])
    if found["unseen"] and found["seen_in_training"]:
        log.info(
            "  without the %d images that are also in training byte for byte: accuracy %.2f%%, macro-F1 %.4f",
            found["seen_in_training"],
            100 * found["unseen"]["accuracy"],
            found["unseen"]["macro_f1"],
        )


def _draw_confusion(parts: dict[str, dict[str, Any]], labels: tuple[str, ...], path: Path) -> None:
    """A row of two tables for each part: counts, and shares of each true class; the darker, the more.

    Of more than MAX_NUMBERED classes the cells are smaller and have no numbers, so that any number has a picture.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    side = 1.8 + (CELL * len(labels) if len(labels) <= MAX_NUMBERED else UNNUMBERED)
    width = max(side, TITLE_WIDTH)
    # A dollar in a class's name begins no formula, and a letter that the font lacks is drawn as a box.
    with rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        layout = ConstrainedLayoutEngine(h_pad=0.15)
        figure = Figure(figsize=(2 * width + 0.6, (side + 0.8) * len(parts)), layout=layout)
        FigureCanvasAgg(figure)
        rows = figure.subplots(len(parts), 2, squeeze=False)
        for (left, right), (part, found) in zip(rows, parts.items(), strict=True):
            counts = np.array(found["confusion"])
            shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            low, high = found["accuracy_95"]
            left.set_title(f"{part}: {found['n']:,} images\nmacro-F1 {found['macro_f1']:.3f}", fontweight="bold")
            right.set_title(
                f"{part}: shares of the true class\naccuracy {found['accuracy']:.1%} (95%: {low:.1%} to {high:.1%})",
                fontweight="bold",
            )
            _draw_table(left, counts / max(counts.max(), 1), counts, "{:,}", labels)
            _draw_table(right, shares, shares, "{:.0%}", labels)
        with atomic_file(path) as file:
            figure.savefig(file, format="png", dpi=140)


def _draw_table(axes: "Axes", darkness: np.ndarray, values: np.ndarray, form: str, labels: tuple[str, ...]) -> None:
    from matplotlib.patches import Rectangle

    # One hue from light to dark: read by lightness alone, so colour blindness takes nothing away.
    axes.imshow(darkness, cmap="Blues", vmin=0, vmax=1.1)
    names = [label if len(label) <= MAX_TICK else f"{label[: MAX_TICK - 1]}…" for label in labels]
    every = -(-len(labels) // MAX_TICKS)
    ticks = range(0, len(labels), every)
    size = min(10, 56 * UNNUMBERED / len(ticks))
    axes.set_xticks(ticks, names[::every], rotation=40, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(ticks, names[::every], fontsize=size)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.tick_params(length=0)
    axes.spines[:].set_color("#888888")
    if len(labels) > MAX_NUMBERED:
        return
    for place in range(len(labels)):
        axes.add_patch(Rectangle((place - 0.5, place - 0.5), 1, 1, fill=False, edgecolor="#08306B", linewidth=1.5))
    for (i, j), value in np.ndenumerate(darkness):
        ink = "white" if value > 0.55 else "black" if value >= 0.01 or i == j else "#777777"
        axes.text(
            j,
            i,
            form.format(values[i, j]),
            ha="center",
            va="center",
            color=ink,
            fontsize=10.5,
            fontweight="bold" if i == j else "normal",
        )
