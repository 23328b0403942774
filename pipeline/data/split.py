"""Holds out a part of a set that comes without one: a share of every class, whole people together, by seed."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from pipeline.base.errors import SourceError

AUTO, NONE = "auto", "none"

# File names that show whose picture it is, as public sets have them; the first group is the person.
PEOPLE = (
    re.compile(r"(S\d{3})_\d{3}_\d{8}"),  # CK+ and CK+48: subject, sequence, frame
    re.compile(r"[AB]([FM]\d{2})(?:AF|AN|DI|HA|NE|SA|SU)(?:FL|FR|HL|HR|S)"),  # KDEF: session, person, expression, angle
    re.compile(r"([A-Z]{2})\.(?:AN|DI|FE|HA|NE|SA|SU)\d\.\d{1,3}"),  # JAFFE: person, expression and take, number
)


@dataclass(frozen=True)
class HoldOut:
    """How a part is held out. seed: of the order. share: of each class, in each part. groups: see group_names()."""

    seed: int = 1
    share: float = 0.1
    groups: str = AUTO


HOLD_OUT = HoldOut()


def group_names(files: Sequence[PurePath], groups: str) -> list[str | None]:
    """Whose picture each file is, None where nothing says.

    groups: AUTO reads the person from names of PEOPLE's forms; NONE takes every picture by itself; any other text is
    what ends the person in a name: with "_", ann_03.png is ann's. Raises SourceError naming a file without that text.
    """
    if groups == NONE:
        return [None] * len(files)
    if groups == AUTO:
        matches = (next(filter(None, (form.fullmatch(file.stem) for form in PEOPLE)), None) for file in files)
        return [match and match[1] for match in matches]
    for file in files:
        if groups not in file.stem.removeprefix(groups):
            raise SourceError(
                f"{file}: no {groups!r} in the name, where groups says that it ends the person; rename "
                "the file, or set groups to auto or none"
            )
    return [file.stem.split(groups, 1)[0] for file in files]


def hold_out(labels: np.ndarray, groups: Sequence[str | None], shares: Mapping[str, float], seed: int) -> list[str]:
    """The part each image is in: one of `shares`, which holds about that share of every class, or "Training".

    labels: (N,) class indices. groups: of images that must stay together; None of one by itself. Groups are taken in
    the order of numpy's RandomState(seed), which NEP 19 freezes; a part takes a group that brings its numbers of images
    closer, in the sum of squares over the classes, to what is wanted.
    """
    members: dict[object, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(index if group is None else group, []).append(index)
    everything = list(members.values())
    counts = np.zeros((len(everything), int(labels.max(initial=0)) + 1))
    for place, indices in enumerate(everything):
        np.add.at(counts[place], labels[indices], 1)
    order = np.random.RandomState(seed).permutation(len(everything))
    parts = ["Training"] * len(labels)
    for part, share in shares.items():
        missing = share * counts.sum(axis=0)
        left = []
        for place in order:
            if counts[place] @ counts[place] < 2 * missing @ counts[place]:
                missing = missing - counts[place]
                for index in everything[place]:
                    parts[index] = part
            else:
                left.append(place)
        order = np.array(left, dtype=int)
    return parts


def check_parts(
    path: PurePath,
    labels: np.ndarray,
    parts: Sequence[str],
    names: Sequence[str],
    expected: Sequence[str],
    *,
    people: Sequence[str | None],
) -> None:
    """Raise SourceError unless every class of `labels`, indices of `names`, has an image in each of `expected`.

    people: of each image, as group_names() gives them: that they are few may be why there is none.
    """
    found = Counter(zip(labels.tolist(), parts, strict=True))
    for label, count in sorted(Counter(labels.tolist()).items()):
        for part in expected:
            if not found[label, part]:
                its = len({person for person, each in zip(people, labels, strict=True) if each == label and person})
                whose, way_out = (f" of {its} people", "set groups to none, ") if its else ("", "")
                raise SourceError(
                    f"{path}: class {names[label]} has {count} images{whose}, too few to hold some out and to "
                    f"leave one in each part: {part} would have none; add images, set held_out higher, {way_out}"
                    "or leave the class out with classes"
                )
