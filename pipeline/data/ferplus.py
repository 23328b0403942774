"""FER+: the votes of ten people on each of FER2013's images, in place of its one label or beside it.

Barsoum et al., "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label Distribution",
ICMI 2016; the file is fer2013new.csv, plain, compressed or in an archive, row by row the images of fer2013.csv.
"""

import csv
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.base.atomic import atomic_file
from pipeline.base.errors import SourceError
from pipeline.base.text_files import LineReader, text_at
from pipeline.data.labelled_images import LabelledImage
from pipeline.data.manifest import USAGES
from pipeline.data.spreadsheet import delimiter_of, names_delimiter, open_csv

LABELS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
LABEL_OF = {"angry": "anger", "happy": "happiness", "sad": "sadness"}  # FER2013's words, where they differ
CHOICES = (*LABELS, "unknown", "NF")  # what could be voted for; NF: not a face
COLUMNS = ("Usage", "Image name", *CHOICES)
NO_MAJORITY, TIE = "no majority", "tie"
KNOWN = "fer2013new.csv"  # its name in an archive
SIDECAR = "votes.csv"  # beside a manifest.csv: the votes on each of its images
SIDECAR_COLUMNS = ("path", *CHOICES)
SIDECAR_HEADER = ",".join(SIDECAR_COLUMNS)
MAX_VOTES = 1000  # on one image, where FER+ has ten; 16 bits hold them


def majority(votes: dict[str, int]) -> str:
    """The choice of more than half of the votes, or NO_MAJORITY.

    A choice with a single vote counts as an outlier and is left out first, as in the authors' own training.
    """
    counted = _without_outliers(votes)
    return next((choice for choice, count in counted.items() if 2 * count > sum(counted.values())), NO_MAJORITY)


def plurality(votes: dict[str, int]) -> str:
    """The choice with the most votes, or TIE where several have as many."""
    most = max(votes.values())
    choices = [choice for choice, count in votes.items() if count == most]
    return choices[0] if len(choices) == 1 else TIE


def leading_expression(votes: dict[str, int]) -> str:
    """The expression with the most votes, the first of several in LABELS' order.

    NO_MAJORITY unless more than half of the votes, single ones left out, are for expressions.
    """
    counted = _without_outliers(votes)
    expressions = {choice: count for choice, count in counted.items() if choice in LABELS}
    if 2 * sum(expressions.values()) <= sum(counted.values()):
        return NO_MAJORITY
    return max(expressions, key=lambda choice: expressions[choice])


def _without_outliers(votes: dict[str, int]) -> dict[str, int]:
    return {choice: count for choice, count in votes.items() if count > 1}


# How votes become a label: one rule for the images that train and one for those that are held out. The vote shares are
# what a net may learn from; what it is measured on has a label that most people agree on, as the authors measure.
POLICIES: dict[str, tuple[Callable[[dict[str, int]], str], Callable[[dict[str, int]], str]]] = {
    "majority": (majority, majority),
    "plurality": (plurality, plurality),
    "shares": (leading_expression, majority),
}


class Votes:
    """The votes on each image, and what a policy makes of them."""

    def __init__(self, path: Path, policy: str = "majority") -> None:
        """Read the file. Raises SourceError naming the line that is wrong."""
        self.path = path
        self._usages, self._votes = array("b"), array("H")  # places in USAGES, -1 for others; a number for each choice
        self._policies = POLICIES[policy]
        with open_csv(path, (KNOWN,)) as file:
            header, lines = file.readline(), 1
            if names_delimiter(header):
                header, lines = file.readline(), 2
            delimiter = delimiter_of(header)
            names = [name.strip(' "\n').lower() for name in header.split(delimiter)]
            if names != [name.lower() for name in COLUMNS]:
                raise SourceError(f"{path}:{lines}: columns {','.join(COLUMNS)} were expected; is this fer2013new.csv?")
            for line, (usage, *fields) in _records(file, path, delimiter, lines):
                self._usages.append(USAGES.index(usage) if usage in USAGES else -1)
                self._votes.extend(_votes(fields[1:], f"{path}:{line}"))

    def __len__(self) -> int:
        return len(self._usages)

    def of(self, row: int) -> dict[str, int]:
        """The number of votes for each of CHOICES that an image has, by its row in the source."""
        return dict(zip(CHOICES, self._votes[row * len(CHOICES) : (row + 1) * len(CHOICES)], strict=True))

    def check(self, image: LabelledImage) -> None:
        """Raise SourceError unless an image has votes, and they are of its Usage."""
        if image.row >= len(self) or self._usages[image.row] != USAGES.index(image.usage):
            raise SourceError(
                f"{self.path}: no votes for row {image.row}, a {image.usage} image; votes and images "
                "must be of the same rows in the same order"
            )

    def label(self, image: LabelledImage) -> int | str:
        """Index into LABELS of what the policy sees in an image, or what it says instead: no expression.

        Raises SourceError when the image has no votes.
        """
        self.check(image)
        training, held_out = self._policies
        choice = (training if image.usage == "Training" else held_out)(self.of(image.row))
        return LABELS.index(choice) if choice in LABELS else choice


def _records(
    texts: Iterable[str], path: Path, delimiter: str = ",", before: int = 1
) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV's lines behind the header, with their lines in the file, of which `before` came first.

    Raises SourceError for one that is no CSV.
    """
    reader = csv.reader(texts, delimiter=delimiter)
    try:
        for record in reader:
            if any(record):  # spreadsheets leave empty ones at the end
                yield reader.line_num + before, record
    except csv.Error as error:
        raise SourceError(f"{path}:{reader.line_num + before}: {error}; is the file damaged?") from None


def _votes(texts: Sequence[str], where: str) -> list[int]:
    """The votes for each of CHOICES that a record's fields say."""
    try:
        votes = [*map(int, texts)]
        if len(votes) != len(CHOICES) or min(votes) < 0 or not 0 < sum(votes) <= MAX_VOTES:
            raise ValueError
    except ValueError:
        raise SourceError(
            f"{where}: a number of votes for each of {', '.join(CHOICES)}, and one vote at least, was "
            "expected; is the file truncated?"
        ) from None
    return votes


def write_sidecar(path: Path, votes: Iterable[tuple[str, Iterable[int]]]) -> None:
    """Write SIDECAR: an image's path and the number of votes for each of CHOICES, one image a line."""
    with atomic_file(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SIDECAR_COLUMNS)
        writer.writerows((image, *counts) for image, counts in votes)


def read_sidecar(path: Path, images: Iterable[str]) -> np.ndarray | None:
    """The votes (N, 10) uint16 on a manifest's images for each of CHOICES; None where no SIDECAR stands at `path`.

    Raises SourceError naming the line that is wrong, or when it is not of these images in this order.
    """
    if not path.exists():
        return None
    votes = array("H")
    for counts, _ in _stream_sidecar(path, images):
        votes.extend(counts)
    return np.asarray(votes).reshape(-1, len(CHOICES))


def find_in_sidecar(path: Path, images: Iterable[str]) -> Sequence[int] | None:
    """Where the votes on a manifest's images stand, for pick_from_sidecar(), in 8 bytes of memory an image.

    Returns None, and raises SourceError, as read_sidecar() does.
    """
    if not path.exists():
        return None
    ends = array("q", [len(SIDECAR_HEADER) + 1])
    ends.extend(end for _, end in _stream_sidecar(path, images))
    return ends


def pick_from_sidecar(path: Path, ends: Sequence[int], numbers: Iterable[int], picked: Path) -> None:
    """Write the SIDECAR `picked`: of the one at `path` the records of some numbers, from 0, in their order.

    ends: as find_in_sidecar() gave them for the file at `path`.
    """
    with atomic_file(picked, "w", encoding="utf-8", newline="") as file:
        file.write(f"{SIDECAR_HEADER}\n")
        for text in text_at(path, ends, numbers):
            record = text.strip("\r\n")  # empty lines may come before it
            file.write(f"{record}\n")


def _stream_sidecar(path: Path, images: Iterable[str]) -> Iterator[tuple[list[int], int]]:
    """The votes on each image, and the offset behind its record in bytes. Raises as read_sidecar() does."""
    lines = LineReader(path, "make it again with extract", SourceError)
    texts = iter(lines)
    if next(texts, "").removesuffix("\n") != SIDECAR_HEADER:
        raise SourceError(f"{path}:1: columns {SIDECAR_HEADER} were expected; make it again with extract")
    expected = iter(images)
    alike = True
    for line, (image, *fields) in _records(texts, path):
        yield _votes(fields, f"{path}:{line}"), lines.end
        alike = alike and image == next(expected, None)
    if not alike or next(expected, None) is not None:
        raise SourceError(
            f"{path}: votes on other images than those in manifest.csv beside it; make both again with extract"
        )
