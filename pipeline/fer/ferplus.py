"""FER+ (Barsoum et al., "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label
Distribution", ICMI 2016): ten people's votes on each of FER2013's images, instead of one label."""

import csv
from collections import Counter
from pathlib import Path

from pipeline.fer.images import LabelledImage, SourceError

LABELS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
DROPPED = ("unknown", "NF")  # what else one could vote for: no expression to name, no face
COLUMNS = ("Usage", "Image name", *LABELS, *DROPPED)


class Votes:
    """The votes of a fer2013new.csv, row by row as in fer2013.csv, and what the majority says.

    dropped counts the images that relabel() gave no label, by reason: unknown, NF (no face), no majority.
    """

    def __init__(self, path: Path) -> None:
        """Read the file. Raises SourceError naming the line that is wrong, OSError when it cannot be read."""
        self.path = path
        self.dropped: Counter[str] = Counter()
        self._rows: list[tuple[str, str]] = []  # Usage and the majority's choice
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise SourceError(f"{path}:1: other columns than {','.join(COLUMNS)}; is this fer2013new.csv?")
            for record in reader:
                try:
                    votes = {choice: int(record[choice]) for choice in LABELS + DROPPED}
                except (TypeError, ValueError):
                    raise SourceError(f"{path}:{reader.line_num}: a field that is no number of votes; is the file "
                                      "truncated?") from None
                self._rows.append((record["Usage"], majority(votes)))

    def relabel(self, image: LabelledImage) -> int | None:
        """The majority's label for an image, None where it names none. Raises SourceError when the rows differ."""
        usage, choice = self._rows[image.row] if image.row < len(self._rows) else (None, "")
        if usage != image.usage:
            raise SourceError(f"{self.path}: no votes on the {image.usage} image of row {image.row}; votes and images "
                              "must have the same rows in the same order")
        if choice in LABELS:
            return LABELS.index(choice)
        self.dropped[choice] += 1
        return None


def majority(votes: dict[str, int]) -> str:
    """What more than half of the votes say; "no majority" otherwise. Single votes are left out as outliers, as in the
    FER+ authors' training."""
    counted = {choice: count for choice, count in votes.items() if count > 1}
    for choice, count in counted.items():
        if 2 * count > sum(counted.values()):
            return choice
    return "no majority"
