"""export: put a trained net into a self-contained model folder that predict reads, its ONNX form checked."""

import argparse
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import evaluate as measuring
from pipeline import model_folder
from pipeline.atomic import atomic_folder
from pipeline.console import log
from pipeline.errors import InputError
from pipeline.model_folder import Preprocessing, sha256

if TYPE_CHECKING:
    import onnxruntime

    from pipeline.evaluate import Trained

TOLERANCE = 1e-4  # between ONNX Runtime's probabilities and the engine's
RANDOM_IMAGES = 64


class ExportError(InputError):
    """A net that cannot be exported, or whose ONNX form does not answer as it does."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    measuring.add_net_arguments(parser)
    parser.add_argument("output", type=Path, help="the model folder to write")
    parser.add_argument(
        "--faces",
        choices=("aligned", "images"),
        default="aligned",
        help="what the net learned from: straightened faces or whole images (default aligned)",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "int8"),
        default="float32",
        help="of the ONNX file's weights; with int8 the .caffemodel is left out (default float32)",
    )
    parser.add_argument("--metrics", type=Path, help="metrics.json of evaluate, for the card")
    parser.add_argument("--run", type=Path, dest="run_record", help="run.json of train, for the card")
    parser.add_argument("--name", help="the model's name (default: the net's)")
    parser.add_argument("--model-version", default="1", help="the model's version (default 1)")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    export(args.deploy, args.weights, args.databases, args.mean, args.output, scale=args.scale, faces=args.faces,
           precision=args.precision, metrics=args.metrics, run_record=args.run_record, name=args.name,
           version=args.model_version)  # fmt: skip


def export(
    deploy: Path,
    weights: Path,
    databases: Path,
    mean: Path,
    output: Path,
    *,
    scale: float = 1.0,
    faces: str = "aligned",
    precision: str = "float32",
    metrics: Path | None = None,
    run_record: Path | None = None,
    name: str | None = None,
    version: str = "1",
) -> dict[str, Any]:
    """Write the model folder `output`; it replaces a model folder of before as a whole.

    The ONNX form must give the engine's probabilities within TOLERANCE on random images and on those of val_lmdb (or,
    where that is empty, test_lmdb); what int8 weights change is measured on the latter. Returns what model.json holds.
    Raises ExportError when the two differ by more, InputError when the files do not belong together.
    """
    import onnx

    from pipeline.caffe.onnx import quantise_weights, to_onnx

    if (
        output.exists()
        and not (output / model_folder.INDEX).exists()
        and (not output.is_dir() or any(output.iterdir()))
    ):
        raise ExportError(f"{output}: exists and is no model folder; give a new folder")
    trained = measuring.load(deploy, weights, mean, databases / "labels.txt", scale)
    assert trained.transformer.mean is not None
    channels, height, width = trained.transformer.mean.shape
    preprocessing = Preprocessing(channels, height, width, trained.transformer.param.crop_size, scale, faces)
    origin = {"metrics": _read_json(metrics), "training": _read_json(run_record)}
    for part, found in (origin["metrics"] or {}).items():
        listed = [row["label"] for row in found.get("per_class", [])] if isinstance(found, dict) else []
        if listed and listed != list(trained.labels):
            raise ExportError(
                f"{metrics}: {part} has the classes {', '.join(listed)} where {databases / 'labels.txt'} names "
                f"{', '.join(trained.labels)}; give the metrics of this net"
            )
    with atomic_folder(output) as folder:
        shutil.copyfile(deploy, folder / model_folder.DEPLOY)
        shutil.copyfile(mean, folder / model_folder.MEAN)
        shutil.copyfile(databases / "labels.txt", folder / model_folder.LABELS)
        model_folder.write_json(folder / model_folder.PREPROCESSING, asdict(preprocessing))
        model = to_onnx(trained.net)
        compared = _compare(trained, model, databases)
        if precision == "int8":
            model = quantise_weights(model)
            compared["int8"] = _measure_loss(trained, model, databases)
        else:
            shutil.copyfile(weights, folder / model_folder.WEIGHTS)
        onnx.save(model, folder / model_folder.ONNX)
        index: dict[str, Any] = {
            "name": name or trained.net.name or deploy.stem,
            "version": version,
            "precision": precision,
            "source_weights_sha256": sha256(weights),
            "onnx_against_engine": compared,
            "metrics": _figures(origin["metrics"]),
            "training": origin["training"],
            "created_by": measuring.versions("numpy", "torch", "onnx", "onnxruntime"),
        }
        (folder / model_folder.CARD).write_text(_card(index, trained, preprocessing), encoding="utf-8")
        index["sha256"] = {path.name: sha256(path) for path in sorted(folder.iterdir())}
        model_folder.write_json(folder / model_folder.INDEX, index)
        model_folder.Classifier(model_folder.read(folder))  # what is shipped is what can be opened
        size = sum(path.stat().st_size for path in folder.iterdir())
    log.info("%s: %s version %s, %s, %.1f MB", output, index["name"], version, precision, size / 1e6)
    return index


def _read_json(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExportError(f"{path}: no JSON ({error}); make it again") from None


def _figures(metrics: dict[str, Any] | None) -> dict[str, Any] | None:
    """Of metrics.json what a reader of model.json wants."""
    if metrics is None:
        return None
    wanted = ("n", "accuracy", "accuracy_95", "macro_f1", "macro_f1_95", "ece", "nll", "per_class")
    return {part: {key: metrics[part][key] for key in wanted} for part in measuring.PARTS if metrics.get(part)}


class _OnnxNet:
    """An ONNX model on the runtime that serving uses: raw images (N, C, H, W) to (N, classes)."""

    def __init__(self, model: Any, trained: "Trained") -> None:
        import onnxruntime

        self.session: onnxruntime.InferenceSession = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        self.trained = trained

    def forward(self, images: np.ndarray) -> np.ndarray:
        (name,) = self.trained.net.inputs
        return self.session.run(None, {name: self.trained.transformer(images)})[0]


def _real_batches(databases: Path, classes: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and labels of val_lmdb, or of test_lmdb where that is empty."""
    for part in measuring.PARTS:
        found = False
        for _, images, labels in measuring.read_batches(databases / f"{part}_lmdb", classes):
            found = True
            yield images, labels
        if found:
            return


def _compare(trained: "Trained", model: Any, databases: Path) -> dict[str, Any]:
    """The greatest difference from the engine's probabilities. Raises ExportError when it is above TOLERANCE."""
    onnx_net = _OnnxNet(model, trained)
    assert trained.transformer.mean is not None
    shape = (RANDOM_IMAGES, *trained.transformer.mean.shape)
    random = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    real = [images for images, _ in islice(_real_batches(databases, len(trained.labels)), 4)]
    differences = {}
    for kind, batches in (("random", [random]), ("real", real)):
        images = sum(map(len, batches))
        greatest = max(
            (float(np.abs(onnx_net.forward(batch) - trained.forward(batch)).max()) for batch in batches), default=0
        )
        log.info("ONNX against the engine: greatest difference %.2e on %d %s images", greatest, images, kind)
        if greatest > TOLERANCE or np.isnan(greatest):
            raise ExportError(
                f"{trained.net.name}: the ONNX form differs from the engine by {greatest:.2e} on {kind} images "
                f"where at most {TOLERANCE:g} was expected; nothing was written"
            )
        differences[kind] = {"images": images, "greatest_difference": greatest}
    return differences


def _measure_loss(trained: "Trained", model: Any, databases: Path) -> dict[str, Any]:
    """Accuracy before and after, and how many images change their label."""
    onnx_net = _OnnxNet(model, trained)
    images = correct_before = correct_after = changed = 0
    greatest = 0.0
    for batch, labels in _real_batches(databases, len(trained.labels)):
        before, after = trained.forward(batch), onnx_net.forward(batch)
        images += len(batch)
        correct_before += int((before.argmax(axis=1) == labels).sum())
        correct_after += int((after.argmax(axis=1) == labels).sum())
        changed += int((before.argmax(axis=1) != after.argmax(axis=1)).sum())
        greatest = max(greatest, float(np.abs(before - after).max()))
    if not images:
        raise ExportError(
            f"{databases}: no images in val_lmdb and test_lmdb to measure the loss of int8 on; export float32"
        )
    log.info(
        "int8 against float32 on %d images: accuracy %.3f%% after %.3f%%, %d labels changed, greatest difference %.4f",
        images,
        100 * correct_after / images,
        100 * correct_before / images,
        changed,
        greatest,
    )
    return {
        "images": images,
        "accuracy_float32": correct_before / images,
        "accuracy_int8": correct_after / images,
        "labels_changed": changed,
        "greatest_difference": greatest,
    }


def _card(index: dict[str, Any], trained: "Trained", preprocessing: Preprocessing) -> str:
    """MODEL_CARD.md: what the model is for, what it was measured at, what it takes and gives."""
    crop = preprocessing.crop_size
    takes = (
        f"A {preprocessing.width}x{preprocessing.height} {'grey' if preprocessing.channels == 1 else 'colour (BGR)'} "
        + ("face, straightened by five landmarks" if preprocessing.faces == "aligned" else "image of a face")
    )
    lines = [
        f"# {index['name']}, version {index['version']}",
        "",
        "Reads the expression a face shows in a picture.",
        "",
        f"- **Takes**: {takes}; the mean image is subtracted"
        + (f", then multiplied by {preprocessing.scale:g}" if preprocessing.scale != 1 else "")
        + (f", and the centre {crop}x{crop} cut out." if crop else "."),
        f"- **Gives**: probabilities of {', '.join(trained.labels)}.",
        f"- **Net**: {trained.net.name}, {sum(blob.numel() for blobs in trained.net.params.values() for blob in blobs):,} "
        f"values; deploy.prototxt tells its layers. Weights: {index['precision']}"
        + (
            "."
            if index["precision"] == "float32"
            else " in the large products, float32 elsewhere; no .caffemodel is included."
        ),
    ]
    loss = index["onnx_against_engine"].get("int8")
    if loss:
        lines.append(
            f"- **Cost of int8**: accuracy {loss['accuracy_int8']:.2%} instead of {loss['accuracy_float32']:.2%} on "
            f"the same {loss['images']:,} images, {loss['labels_changed']} labels changed."
        )
    lines += ["", "## Measured", ""]
    if index["metrics"]:
        lines.append("With float32 weights, every image once:" if loss else "Every image once:")
        for part, found in index["metrics"].items():
            low, high = found["accuracy_95"]
            lines += [
                "",
                f"**{part}**, {found['n']:,} images: accuracy {found['accuracy']:.2%} (95%: {low:.2%} to {high:.2%}), "
                f"macro-F1 {found['macro_f1']:.4f}, expected calibration error {found['ece']:.4f}.",
                "",
                "| class | precision | recall | F1 | images |",
                "| --- | ---: | ---: | ---: | ---: |",
            ]
            for row in found["per_class"]:
                shares = " | ".join(
                    "-" if row[key] is None else f"{row[key]:.3f}" for key in ("precision", "recall", "f1")
                )
                lines.append(f"| {row['label']} | {shares} | {row['support']:,} |")
    else:
        lines.append("Nothing: it was exported without metrics.")
    lines += [
        "",
        "## Limits",
        "",
        "It names what a face shows, as people labelled such faces, and not what a person feels. Labels of expressions "
        "are uncertain and differ between people and cultures; errors are not spread evenly over age, skin and sex. Not "
        "to be used for decisions about people.",
    ]
    return "\n".join(lines) + "\n"
