"""export: put a trained net into a self-contained model folder that predict reads, its ONNX form checked."""

import argparse
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from pipeline.base.atomic import atomic_folder
from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.base.hashing import sha256
from pipeline.caffe.database import DatabaseReader
from pipeline.classifier import metrics as metrics_file
from pipeline.classifier import model_folder
from pipeline.classifier.hub_card import UNKNOWN, front_matter
from pipeline.classifier.model_folder import Preprocessing
from pipeline.classifier.run_record import read_run_record
from pipeline.classifier.trained import PARTS, Trained, load, predictions, read_batches, versions
from pipeline.stages.arguments import add_model_name, add_net_arguments

if TYPE_CHECKING:
    import onnx

TOLERANCE = 1e-4  # between ONNX Runtime's probabilities and the engine's
RANDOM_IMAGES = 64
CALIBRATION_BATCHES = 16  # of read_batches, from train_lmdb: they set the ranges of int8
# Of model.json, from metrics.json.
METRICS = ("training_shares", "temperature", "view_temperatures", "class_prior", "metrics")


class ExportError(InputError):
    """A net that cannot be exported, or whose ONNX form does not answer as it does."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_net_arguments(parser)
    parser.add_argument("output", type=Path, help="the model folder to write")
    parser.add_argument(
        "--faces",
        choices=("aligned", "images"),
        default="aligned",
        help="learned from aligned faces or from whole images (default aligned)",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "int8"),
        default="float32",
        help="of the ONNX file; int8 leaves the .caffemodel out and has half precision in the .safetensors "
        "(default float32)",
    )
    parser.add_argument("--metrics", type=Path, help="metrics.json of evaluate, for model.json and the card")
    parser.add_argument("--run", type=Path, dest="record", help="run.json of train, for model.json")
    add_model_name(parser)
    parser.add_argument(
        "--license", default=UNKNOWN, help=f"the model's licence, as hubs name it: mit, cc-by-4.0 (default {UNKNOWN})"
    )
    parser.add_argument("--web", action=_Web, nargs="?", metavar="FOLDER", help="the stage web writes a static page")


class _Web(argparse.Action):
    """Names the stage that writes a static page to who looks for it here, before arguments are missed."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        parser.error("--web: a static page is written by the stage web: python -m pipeline web MODEL FOLDER")


def run(args: argparse.Namespace) -> None:
    export(
        args.deploy,
        args.weights,
        args.output,
        databases=args.databases,
        mean=args.mean,
        faces=args.faces,
        precision=args.precision,
        metrics=args.metrics,
        record=args.record,
        name=args.name,
        version=args.model_version,
        license_name=args.license,
    )


def export(
    deploy: Path,
    weights: Path,
    output: Path,
    *,
    databases: Path,
    mean: Path,
    faces: str = "aligned",
    precision: str = "float32",
    metrics: Path | None = None,
    record: Path | None = None,
    name: str | None = None,
    version: str = "1",
    license_name: str = UNKNOWN,
) -> dict[str, Any]:
    """Write the model folder `output`, replaced as a whole, and only if nothing but a model's files is in it.

    The ONNX form must give the engine's probabilities within TOLERANCE on random images and on the first of val_lmdb
    (or, where that is empty, test_lmdb); what int8 changes is measured on all of them. The ranges of int8 come from the
    first images of train_lmdb, which lmdb shuffles. Returns what model.json holds.

    Raises ExportError when the two differ by more, InputError when the files do not belong together.
    """
    import onnx
    from safetensors.numpy import save

    from pipeline.caffe.onnx import quantise, to_onnx
    from pipeline.caffe.onnx.class_maps import with_class_maps

    trained = load(deploy, weights, mean, databases / "labels.txt")
    transform = trained.transformer.param
    preprocessing = Preprocessing(*trained.image_shape, transform.crop_size, transform.scale, faces)
    measured = read_model_metrics(metrics, trained.labels) if metrics else dict.fromkeys(METRICS)
    inputs = (deploy, weights, mean, databases)
    with atomic_folder(output, own=model_folder.FILES, inputs=inputs) as folder:
        # Where the net would take images of any size, those that it is served are of one.
        model = with_class_maps(trained.net, to_onnx(trained.net, flexible=False))
        held_out = held_out_database(databases)
        index: dict[str, Any] = {
            "name": name or trained.net.name or deploy.stem,
            "version": version,
            "license": license_name,
            "precision": precision,
            "source_weights_sha256": sha256(weights),
            "greatest_difference_from_engine": _compare(trained, model, held_out),
        }
        if precision == "int8":
            exact, model = model, quantise(model, _calibration(trained, databases / "train_lmdb"))
            sizes = {"bytes_float32": exact.ByteSize(), "bytes_int8": model.ByteSize()}
            index["int8"] = _measure_loss(trained, model, held_out) | sizes
            log.info("int8: %.2f MB where float32 has %.2f", *(sizes[name] / 1e6 for name in reversed(sizes)))
        else:
            shutil.copyfile(weights, folder / model_folder.WEIGHTS)
        (folder / model_folder.TENSORS).write_bytes(save(_tensors(trained, half=precision == "int8"), {"format": "pt"}))
        index |= {
            **measured,
            "training": read_run_record(record, "train again, which resumes, or leave --run out") if record else None,
            "created_by": versions("numpy", "torch", "onnx", "onnxruntime"),
        }
        onnx.save(model, folder / model_folder.ONNX)
        shutil.copyfile(deploy, folder / model_folder.DEPLOY)
        shutil.copyfile(mean, folder / model_folder.MEAN)
        shutil.copyfile(databases / "labels.txt", folder / model_folder.LABELS)
        model_folder.write_json(folder / model_folder.PREPROCESSING, asdict(preprocessing))
        count = sum(learnable.blob.numel() for learnable in trained.net.learnable if learnable.lr_mult)
        net = f"{trained.name}, {count:,} learned values (deploy.prototxt)"
        size = seal(folder, index, write_card(index, trained.labels, preprocessing, net))
    log.info("%s: %s version %s, %s, %.1f MB", output, index["name"], version, precision, size / 1e6)
    return index


def _tensors(trained: Trained, *, half: bool) -> dict[str, np.ndarray]:
    """The blobs by the name of their layer and their place in it, as conv1.0: Caffe has no names for them.

    half: whether those of more than one axis are float16, which vectors, as BatchNorm's sums, may be too large for.
    """
    return {
        f"{layer}.{place}": np.ascontiguousarray(array.astype(np.float16) if half and array.ndim > 1 else array)
        for layer, blobs in trained.net.params.items()
        for place, array in enumerate(blob.detach().cpu().float().numpy() for blob in blobs)
    }


def _calibration(trained: Trained, database: Path) -> Iterator[np.ndarray]:
    """The net's inputs of the first images of a database."""
    with DatabaseReader(database) as reader:
        for _, images, _ in islice(read_batches(reader, len(trained.labels)), CALIBRATION_BATCHES):
            yield trained.transformer(images)


def seal(folder: Path, index: dict[str, Any], card: str) -> int:
    """Write the card and model.json with all files' hashes, and open the model. Returns the folder's bytes."""
    (folder / model_folder.CARD).write_text(card, encoding="utf-8")
    index["sha256"] = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    model_folder.write_json(folder / model_folder.INDEX, index)
    model_folder.Classifier(model_folder.read(folder))  # what is shipped is what can be opened
    return sum(path.stat().st_size for path in folder.iterdir())


def read_model_metrics(path: Path, labels: tuple[str, ...]) -> dict[str, Any]:
    """METRICS of metrics.json. Raises ExportError when it tells of other classes, MetricsError when it is damaged."""
    metrics = metrics_file.read_metrics(path)
    parts = {part: found for part in PARTS if (found := metrics.get(part))}
    for part, found in parts.items():
        if [row["label"] for row in found["per_class"]] != list(labels):
            raise ExportError(
                f"{path}: {part} has other classes than {', '.join(labels)}; give the metrics of this net"
            )
    model_folder.read_training_shares(metrics, labels, path, metrics_file.REMEDY)
    left_out = ("confusion", "unseen", "seen_in_training")
    told = {part: {key: found[key] for key in found if key not in left_out} for part, found in parts.items()}
    return {name: metrics[name] for name in METRICS if name != "metrics"} | {"metrics": told}


def held_out_database(databases: Path) -> Path:
    """val_lmdb, or test_lmdb where that is empty."""
    for part in PARTS:
        with DatabaseReader(databases / f"{part}_lmdb") as reader:
            if len(reader):
                return reader.path
    raise ExportError(f"{databases}: val_lmdb and test_lmdb are both empty, where images to compare with were expected")


def _in_onnx(trained: Trained, model: "onnx.ModelProto") -> Trained:
    """The net in its ONNX form, run as it is served."""
    session = model_folder.Classifier.session(model.SerializeToString())
    (name,) = trained.net.inputs
    return replace(trained, run=lambda images: session.run(None, {name: images})[0])


def _compare(trained: Trained, model: "onnx.ModelProto", database: Path) -> float:
    """The greatest difference of probabilities from the engine's. Raises ExportError when it is above TOLERANCE."""
    other = _in_onnx(trained, model)
    with DatabaseReader(database) as reader:
        _, real, _ = next(read_batches(reader, len(trained.labels)))
    random = np.random.default_rng(0).integers(0, 256, (RANDOM_IMAGES, *trained.image_shape), dtype=np.uint8)
    greatest = 0.0
    for kind, images in (("random", random), ("real", real)):
        difference = float(np.abs(other.forward(images) - trained.forward(images)).max())
        log.info("ONNX against the engine: greatest difference %.2e on %d %s images", difference, len(images), kind)
        if not difference <= TOLERANCE:  # NaN too
            raise ExportError(
                f"{trained.net.name}: the ONNX form differs from the engine by {difference:.2e} on {kind} images where "
                f"at most {TOLERANCE:g} was expected; nothing was written"
            )
        greatest = max(greatest, difference)
    return greatest


def _measure_loss(trained: Trained, model: "onnx.ModelProto", database: Path) -> dict[str, Any]:
    """What int8 does to accuracy, labels and probabilities on all of a database."""
    _, truth, before = predictions(trained, database)
    _, _, after = predictions(_in_onnx(trained, model), database)
    loss = {
        "database": database.name,
        "images": len(truth),
        "accuracy_float32": float((before.argmax(axis=1) == truth).mean()),
        "accuracy_int8": float((after.argmax(axis=1) == truth).mean()),
        "labels_changed": int((before.argmax(axis=1) != after.argmax(axis=1)).sum()),
        "greatest_difference": float(np.abs(before - after).max()),
    }
    log.info(
        "int8 on the %(images)d images of %(database)s: accuracy %(accuracy_int8).4f where float32 has "
        "%(accuracy_float32).4f, %(labels_changed)d labels changed, greatest difference %(greatest_difference).4f",
        loss,
    )
    return loss


def write_card(index: dict[str, Any], labels: tuple[str, ...], preprocessing: Preprocessing, net: str) -> str:
    """MODEL_CARD.md: what the model takes and gives, what it was measured at, where its limits are; its head for hubs.

    net: what it is.
    """
    loss = index.get("int8")
    return front_matter(index) + CARD.format(
        **index,
        **asdict(preprocessing),
        kind="grey" if preprocessing.channels == 1 else "BGR",
        face="face, aligned by five landmarks" if preprocessing.faces == "aligned" else "picture of a face",
        crop=f", of which the centre {preprocessing.crop_size}x{preprocessing.crop_size}"
        if preprocessing.crop_size
        else "",
        labels=", ".join(labels),
        calibration=CALIBRATION.format(**index) if index["temperature"] else "; they are not calibrated",
        prior=_prior(index),
        net=net,
        weights=INT8.format(**loss) if loss else "float32.",
        figures="".join(_figures(part, found) for part, found in (index["metrics"] or {}).items()) or "Nothing yet.\n",
    )


CARD = """# {name}, version {version}

Reads the expression that a face shows in a picture.

- **Takes** a {width}x{height} {kind} {face}{crop}, less the mean image, times {scale:g} (preprocessing.json).
- **Gives** probabilities of {labels}{calibration}.{prior}
- **Net**: {net}. **Weights**: {weights}

## Measured

Every image once, with the net in float32.

{figures}
## Limits

It names what a face shows as people labelled such pictures, not what a person feels. People agree on such labels only
in part, and less across cultures; nothing here was measured by age, sex or skin. Not for decisions about people.
"""
CALIBRATION = (
    ", calibrated: served at the temperature {temperature:.3f}, which the held-out images of val chose, so that of the "
    "faces read with 70% about 70% are read right"
)
PRIOR = """
- **Class shares**: it learned from {shares}, and a net expects the shares that it learned from. {chosen} Say
  `class_prior` where you know more: `training`, `uniform`, a power, or the shares themselves."""
CHOSEN = (
    "Its probabilities are divided by these shares to the power {class_prior:g}: the greatest power whose mean of "
    "accuracy and macro-F1 on val is within one standard error of the best, and whose calibration error there is at "
    "most 0.03."
)
NOT_CHOSEN = "Its probabilities are left so, because there were no held-out images to choose by."
PRIOR_NAMES = {0.0: "training", 1.0: "uniform"}  # by power
INT8 = (
    "int8, and activations of 8 bits; on the {images:,} images of {database} that gives an accuracy of "
    "{accuracy_int8:.2%} where float32 has {accuracy_float32:.2%}, {labels_changed} other labels, and probabilities "
    "that differ by at most {greatest_difference:.4f}."
)


def _figures(part: str, found: dict[str, Any]) -> str:
    """A part's figures as a paragraph and a table of the classes."""
    low, high = found["accuracy_95"]
    lines = [
        f"**{part}**, {found['n']:,} images: accuracy {found['accuracy']:.2%} (95%: {low:.2%} to {high:.2%}), macro-F1 "
        f"{found['macro_f1']:.4f}, expected calibration error {found['ece']:.4f}.",
        "",
        "| class | precision | recall | F1 | images |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in found["per_class"]:
        shares = ("-" if row[key] is None else f"{row[key]:.3f}" for key in ("precision", "recall", "f1"))
        lines.append(f"| {row['label']} | {' | '.join(shares)} | {row['support']:,} |")
    return "\n".join(lines) + "\n\n" + _served(found)


def _served(found: dict[str, Any]) -> str:
    """The figures as they are served, and what class priors do, where there was a temperature."""
    if "served" not in found:
        return ""
    served, sure = found["served"], found["served"]["sure"]
    words = (
        f"As served: accuracy {served['accuracy']:.2%}, macro-F1 {served['macro_f1']:.4f}, macro-recall "
        f"{served['macro_recall']:.4f}, expected calibration error {served['ece']:.4f}"
    )
    if sure["accuracy"] is not None:
        words += (
            f"; {sure['share']:.0%} of the faces are at least {sure['threshold']:.0%} sure, and of those "
            f"{sure['accuracy']:.1%} right"
        )
    lines = [
        f"{words}.",
        "",
        "| class prior | accuracy | macro-F1 | macro-recall | calibration error | with faces of these shares |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in found["priors"]:
        power = PRIOR_NAMES.get(row["power"], f"{row['power']:g}")
        lines.append(
            f"| {power} | {row['accuracy']:.2%} | {row['macro_f1']:.4f} | {row['macro_recall']:.4f} | "
            f"{row['ece']:.4f} | {row['ece_at_prior']:.4f} |"
        )
    if len(found["views"]) > 1:
        lines += [
            "",
            "| views | accuracy | as served | macro-F1 | calibration error as served | ms an image |",
            "| ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for row in found["views"]:
            served = row["served"]
            lines.append(
                f"| {row['views']} | {row['accuracy']:.2%} | {served['accuracy']:.2%} | "
                f"{row['macro_f1']:.4f} | {served['ece']:.4f} | {row['ms_per_image']:.2f} |"
            )
    return "\n".join(lines) + "\n\n"


def _prior(index: dict[str, Any]) -> str:
    """What the card says of the class prior, where the training shares are known."""
    if not index["training_shares"]:
        return ""
    shares = ", ".join(f"{label} {share:.1%}" for label, share in index["training_shares"].items())
    return PRIOR.format(shares=shares, chosen=CHOSEN.format(**index) if index["temperature"] else NOT_CHOSEN)
