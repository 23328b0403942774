"""FER+: the votes of ten people on each of FER2013's images, in place of its one label.

Barsoum et al., "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label Distribution",
ICMI 2016; the file is fer2013new.csv, row by row the images of fer2013.csv.
"""

import csv
from collections import Counter
from pathlib import Path

from pipeline.fer.images import LabelledImage, SourceError

LABELS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
CHOICES = (*LABELS, "unknown", "NF")  # what could be voted for; NF: not a face
COLUMNS = ("Usage", "Image name", *CHOICES)
NO_MAJORITY = "no majority"


def majority(votes: dict[str, int]) -> str:
    """The choice of more than half of the votes, or NO_MAJORITY.

    A choice with a single vote counts as an outlier and is left out first, as in the authors' own training.
    """
    counted = {choice: count for choice, count in votes.items() if count > 1}
    return next((choice for choice, count in counted.items() if 2 * count > sum(counted.values())), NO_MAJORITY)


class Votes:
    """What the majority says of each image. dropped counts those on which it names no expression, by its choice."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises SourceError naming the line that is wrong."""
        self.path = path
        self._choices: list[tuple[str, str]] = []  # Usage, choice
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise SourceError(f"{path}:1: columns {','.join(COLUMNS)} were expected; is this fer2013new.csv?")
            for record in reader:
                try:
                    votes = {choice: int(record[choice]) for choice in CHOICES}
                except (TypeError, ValueError):
                    raise SourceError(f"{path}:{reader.line_num}: a number of votes for each of {', '.join(CHOICES)} "
                                      "was expected; is the file truncated?") from None
                self._choices.append((record["Usage"], majority(votes)))
        self.dropped = Counter(choice for _, choice in self._choices if choice not in LABELS)

    def __len__(self) -> int:
        return len(self._choices)

    def label(self, image: LabelledImage) -> int | None:
        """Index into LABELS of what the majority sees in an image, None when that is no expression.

        Raises SourceError when the image has no votes.
        """
        usage, choice = self._choices[image.row] if image.row < len(self) else ("", "")
        if usage != image.usage:
            raise SourceError(f"{self.path}: no votes for row {image.row}, a {image.usage} image; votes and images "
                              "must be of the same rows in the same order")
        return LABELS.index(choice) if choice in LABELS else None
