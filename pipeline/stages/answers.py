"""answers: write what trained nets say of the training images, for a student to learn (Hinton et al., 2015)."""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.base.atomic import atomic_file
from pipeline.base.console import log, progress_bar
from pipeline.base.errors import InputError
from pipeline.caffe.database import DatabaseReader
from pipeline.classifier import model_folder
from pipeline.classifier.calibration import calibrate
from pipeline.classifier.model_folder import Classifier
from pipeline.classifier.trained import read_batches
from pipeline.data import manifest
from pipeline.data.folds import fold_mark, fold_of
from pipeline.stages.arguments import add_train_on, positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("databases", type=Path, help="folder of train_lmdb and labels.txt: the student's")
    parser.add_argument("output", type=Path, help="CSV to write: a record's key and a probability for each label")
    parser.add_argument(
        "--teacher",
        type=Path,
        nargs="+",
        required=True,
        metavar="MODEL",
        help="model folder of a run, such as results/big/model; of several the mean is written",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        help="flattens the answers: probabilities to the power 1/T, made to add up to 1 (default 1)",
    )
    parser.add_argument(
        "--manifest",
        type=Path,
        metavar="CSV",
        help="manifest.csv of the databases: out of fold; the i-th teacher, which was trained without "
        "fold i, answers on the images of fold i alone",
    )
    add_train_on(parser)
    parser.add_argument("--threads", type=positive, default=2, help="CPU threads to use (default 2)")


def run(args: argparse.Namespace) -> None:
    answers(
        args.databases,
        args.output,
        args.teacher,
        args.temperature,
        args.manifest,
        train_on=args.train_on,
        threads=args.threads,
    )


def answers(
    databases: Path,
    output: Path,
    teachers: Sequence[Path],
    temperature: float = 1.0,
    manifest_path: Path | None = None,
    *,
    train_on: str = "aligned",
    threads: int = 2,
) -> None:
    """Write the teachers' mean answer on every image of train_lmdb, in its order, to a CSV: key and labels.

    teachers: model folders. manifest_path: answers out of fold, by one teacher a fold. train_on: what the databases
    hold. Raises InputError when a model folder is damaged, a teacher has other labels, has not learned from such faces
    or, out of fold, names databases in its record that do not leave its fold out, or the manifest has not these images.
    """
    if not temperature > 0:
        raise InputError(f"temperature {temperature:g} where more than 0 was expected")
    labels = databases / "labels.txt"
    nets = [_open(folder, labels, train_on, threads) for folder in teachers]
    folds = _folds(manifest_path, len(nets)) if manifest_path else None
    if folds:
        _check_folds(teachers)
    with (
        DatabaseReader(databases / "train_lmdb") as reader,
        progress_bar(len(reader), "images", "answers") as bar,
        atomic_file(output, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["key", *manifest.read_labels(labels)])
        for keys, images, _ in read_batches(reader, len(nets[0].labels)):
            names = [key.decode("utf-8", "surrogateescape") for key in keys]
            said = np.stack([net(images) for net in nets])  # (teachers, N, K)
            if folds is None:
                mean = said.mean(axis=0)
            else:
                mean = said[[_fold(folds, name, manifest_path) for name in names], range(len(names))]
            for name, row in zip(names, calibrate(mean, temperature), strict=True):
                writer.writerow([name, *(f"{value:.6f}" for value in row)])
            bar.update(len(keys))
    log.info(
        "answers of %d %s on the training images%s",
        len(nets),
        "nets" if len(nets) > 1 else "net",
        ", each on the fold that it was trained without" if folds else "",
    )


def _open(folder: Path, labels: Path, train_on: str, threads: int) -> Classifier:
    model = model_folder.read(folder)
    model_folder.check_labels(model, labels)
    model_folder.check_faces(model, train_on)
    return Classifier.as_trained(model, threads)


def _folds(path: Path, count: int) -> dict[str, int]:
    """Each image's fold, by its path."""
    return {row.path: fold_of(row.sha256, count) for row in manifest.read(path)}


def _check_folds(teachers: Sequence[Path]) -> None:
    for number, folder in enumerate(teachers, 1):
        fold = f"{number}/{len(teachers)}"
        for file in map(Path, model_folder.read_training(folder).get("sha256", ())):
            databases = file.parent.parent
            if file.parent.name == "train_lmdb" and not databases.name.endswith(fold_mark(fold)):
                raise InputError(
                    f"{folder}: was trained on {databases}, which does not leave out fold {fold}, on which it is to "
                    f"answer; name here the run that was trained with fold={fold}"
                )


def _fold(folds: dict[str, int], name: str, path: Path | None) -> int:
    image = name.split("_", 1)[1]
    if image not in folds:
        raise InputError(f"{path}: no row of {image}, which train_lmdb holds; give the manifest that it was made from")
    return folds[image]
