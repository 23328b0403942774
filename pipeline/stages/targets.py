"""targets: write soft targets for the training images, in the order of train_lmdb, as databases of float Datums."""

import argparse
import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice, tee
from pathlib import Path

import numpy as np

from pipeline.base.atomic import atomic_folder
from pipeline.base.console import log, printable
from pipeline.base.errors import InputError
from pipeline.caffe.database import DatabaseReader, DatabaseWriter
from pipeline.caffe.proto.caffe_pb2 import Datum
from pipeline.classifier.objective import AUXILIARY, TARGETS
from pipeline.data import ferplus, manifest

SOURCES = ("labels", "votes", "teacher")
TRAIN_VOTES = f"train_{ferplus.SIDECAR}"
ANSWERS = "answers.csv"
RECORDS_AT_ONCE = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "databases", type=Path, help="folder of train_lmdb, train.txt, labels.txt and, with FER+, train_votes.csv"
    )
    parser.add_argument("output", type=Path, help=f"folder to write {TARGETS} and {AUXILIARY} to")
    parser.add_argument(
        "--soft-targets",
        nargs="*",
        metavar="SOURCE=SHARE",
        default=[],
        help="what the net learns, as shares that add up to 1: of labels, of votes (FER+'s vote "
        "shares) and of teacher, such as labels=0.3 teacher=0.7 (default: no targets)",
    )
    parser.add_argument(
        "--label-smoothing",
        type=float,
        default=0.0,
        help="share of the labels' part that goes to all classes alike (default 0)",
    )
    parser.add_argument(
        "--teacher", type=Path, help=f"{ANSWERS} of the stage `answers`: what a teacher says of the training images"
    )
    parser.add_argument("--auxiliary", choices=("votes",), help="what a second head learns: FER+'s vote shares")


def run(args: argparse.Namespace) -> None:
    targets(
        args.databases,
        args.output,
        read_shares(args.soft_targets),
        smoothing=args.label_smoothing,
        teacher=args.teacher,
        auxiliary=args.auxiliary,
    )


def read_shares(words: Sequence[str]) -> dict[str, float]:
    """What --soft-targets says. Raises InputError unless it names sources once each, with shares that add up to 1."""
    shares: dict[str, float] = {}
    for word in words:
        source, _, share = word.partition("=")
        try:
            value = float(share)
        except ValueError:
            value = -1.0
        if source not in SOURCES or source in shares or not 0 < value <= 1:
            raise InputError(
                f"soft_targets: '{word}', where one of {', '.join(SOURCES)}, each once and with a share "
                "above 0 and up to 1, was expected"
            )
        shares[source] = value
    if shares and abs(sum(shares.values()) - 1) > 1e-6:
        raise InputError(f"soft_targets: shares that add up to {sum(shares.values()):g} where 1 was expected")
    return shares


def targets(
    databases: Path,
    output: Path,
    shares: Mapping[str, float],
    *,
    smoothing: float = 0.0,
    teacher: Path | None = None,
    auxiliary: str | None = None,
) -> None:
    """Write targets_lmdb, a mixture of `shares`, and auxiliary_lmdb under `output`: Datums (K, 1, 1) of float32.

    A record's key is its image's. targets_lmdb has a value for each label and is left out where `shares` is empty;
    auxiliary_lmdb has FER+'s vote shares for each of its ten choices and is left out without `auxiliary`. Votes become
    targets of the labels by name, and what was voted beside them is left out; an image whose votes name no label keeps
    its label. Raises InputError when votes or teacher are missing or of other images or labels.
    """
    labels = manifest.read_labels(databases / "labels.txt")
    if shares.get("teacher") and teacher is None:
        raise InputError("soft_targets: a share of teacher, but no teacher is named")
    votes = read_votes(databases) if "votes" in shares or auxiliary else None
    with (
        DatabaseReader(databases / "train_lmdb") as reader,
        atomic_folder(output, own=(TARGETS, AUXILIARY)) as folder,
        ExitStack() as stack,
    ):
        count = len(reader)
        if votes is not None and len(votes) != count:
            raise InputError(
                f"{databases / TRAIN_VOTES}: votes on {len(votes)} images where train_lmdb has "
                f"{count}; make both again with lmdb"
            )
        mixtures = stack.enter_context(DatabaseWriter(folder / TARGETS)) if shares else None
        voted = stack.enter_context(DatabaseWriter(folder / AUXILIARY)) if auxiliary else None
        records, answers = iter(reader), None
        if teacher and "teacher" in shares:
            records, same = tee(records)
            answers = read_answers(teacher, labels, (key for key, _ in same))
        first = 0
        while batch := list(islice(records, RECORDS_AT_ONCE)):
            keys, truth = [key for key, _ in batch], [datum.label for _, datum in batch]
            counts = None if votes is None else votes[first : first + len(batch)].astype(np.float64)
            first += len(batch)
            one_hot = np.eye(len(labels), dtype=np.float32)[truth]
            parts = {"labels": (1 - smoothing) * one_hot + smoothing / len(labels)}
            if counts is not None and "votes" in shares:
                parts["votes"] = votes_of_labels(counts, labels, one_hot)
            if answers is not None:
                parts["teacher"] = np.array(list(islice(answers, len(batch))), dtype=np.float32)
            if mixtures is not None:
                mixture = sum(share * parts[source] for source, share in shares.items())
                _put(mixtures, keys, np.asarray(mixture, np.float32))
            if voted is not None and counts is not None:
                _put(voted, keys, (counts / counts.sum(axis=1, keepdims=True)).astype(np.float32))
    log.info(
        "targets of %d images: %s%s",
        count,
        ", ".join(f"{share:g} {name}" for name, share in shares.items()) or "none",
        "; a second head learns FER+'s vote shares" if auxiliary else "",
    )


def read_votes(databases: Path) -> np.ndarray:
    """Votes (N, 10) on the training images for each of ferplus.CHOICES. Raises InputError where there are none."""
    path = databases / TRAIN_VOTES
    with open(databases / "train.txt", encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        votes = ferplus.read_sidecar(path, (line.rsplit(" ", 1)[0] for line in lines))
    if votes is None:
        raise InputError(
            f"{path}: missing, where FER+'s votes on the training images were expected; set ferplus to fer2013new.csv"
        )
    return votes


def votes_of_labels(votes: np.ndarray, labels: tuple[str, ...], one_hot: np.ndarray) -> np.ndarray:
    """Shares (N, K) of the votes that each label got among those for labels; where there are none, the one-hot row."""
    places = [ferplus.CHOICES.index(ferplus.LABEL_OF.get(label, label)) for label in labels]
    counts = votes[:, places]
    total = counts.sum(axis=1, keepdims=True)
    return np.where(total > 0, counts / np.maximum(total, 1), one_hot)


def read_answers(path: Path, labels: tuple[str, ...], keys: Iterable[bytes]) -> Iterator[list[float]]:
    """Probabilities (K) that a teacher gave each training image, in the order of their keys.

    Raises InputError naming the line that is wrong, or when the teacher has other labels or saw other images.
    """
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file)
        try:
            header = tuple(next(reader, ()))
            if header != ("key", *labels):
                raise InputError(
                    f"{path}:1: a teacher of the labels {', '.join(map(printable, header[1:])) or 'none'} where "
                    f"{', '.join(labels)} were expected; take a teacher that was trained on these labels"
                )
            expected = iter(keys)
            for count, key in enumerate(expected):
                line = next(reader, None)
                if line is None:
                    total = count + 1 + sum(1 for _ in expected)
                    raise InputError(
                        f"{path}: answers on {count} images where train_lmdb has {total}; let the teacher answer again"
                    )
                yield _answer(line, f"{path}:{count + 2}", key, len(header))
        except csv.Error as error:
            raise InputError(f"{path}:{reader.line_num}: {error}; let the teacher answer again") from None


def _answer(line: list[str], where: str, key: bytes, width: int) -> list[float]:
    if not line or line[0] != key.decode("utf-8", "surrogateescape"):
        raise InputError(
            f"{where}: an answer on '{printable(line[0]) if line else ''}' where the record "
            f"'{key.decode('utf-8', 'replace')}' was expected; let the teacher answer again"
        )
    try:
        values = [float(value) for value in line[1:]] if len(line) == width else []
    except ValueError:
        values = []
    if not values or not min(values) >= 0 or not abs(sum(values) - 1) <= 1e-3:  # NaN, too
        raise InputError(f"{where}: probabilities that add up to 1 were expected; let the teacher answer again")
    return values


def _put(database: DatabaseWriter, keys: Sequence[bytes], values: np.ndarray) -> None:
    for key, row in zip(keys, values, strict=True):
        database.put(key, Datum(channels=len(row), height=1, width=1, float_data=row.tolist(), encoded=False))
