"""Byte-equal images: FER2013 has them within and across its Usages, some under different labels."""

from array import array
from itertools import combinations
from typing import Any

import numpy as np

from pipeline.data.manifest import USAGES, ManifestRow

# Equal images are in one part, and the parts are counted one after the other: sorting all at once would take several
# times the memory that the images have.
PARTS = 16


class Duplicates:
    """Counts the images that equal another, in 21 bytes of memory an image: half of its hash tells it from others."""

    def __init__(self) -> None:
        self._hashes, self._usages, self._labels = array("Q"), array("b"), array("i")

    def add(self, row: ManifestRow) -> None:
        self._hashes.frombytes(bytes.fromhex(row.sha256[:32]))
        self._usages.append(USAGES.index(row.usage))
        self._labels.append(row.label)

    def count(self) -> dict[str, Any]:
        """Count what was added.

        within: for each Usage, its images beyond the first of each distinct one. across: for each pair "B in A", the
        images of B that stand in A too. disagreeing: distinct images that stand under more than one label, with
        disagreeing_copies in all.
        """
        hashes = np.asarray(self._hashes).reshape(-1, 2)
        usages, labels = np.asarray(self._usages), np.asarray(self._labels)
        part_of = hashes.view(np.uint8)[:, 0] % PARTS
        within, across = np.zeros(len(USAGES), int), np.zeros((len(USAGES), len(USAGES)), int)
        disagreeing = copies = 0
        for part in range(PARTS):
            chosen = np.flatnonzero(part_of == part)
            count, disagree = _groups(hashes[chosen], usages[chosen], labels[chosen])
            within += np.maximum(count - 1, 0).sum(axis=1)
            across += count @ (count > 0).T
            disagreeing += int(disagree.sum())
            copies += int(count[:, disagree].sum())
        return {
            "within": dict(zip(USAGES, within.tolist(), strict=True)),
            "across": {
                f"{USAGES[later]} in {USAGES[earlier]}": int(across[later, earlier])
                for earlier, later in combinations(range(len(USAGES)), 2)
            },
            "disagreeing": disagreeing,
            "disagreeing_copies": copies,
        }


def _groups(hashes: np.ndarray, usages: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many of N images are in each Usage and group of equal ones (3, G), and which groups disagree (G,)."""
    order = np.lexsort(hashes.T)
    hashes, usages, labels = hashes[order], usages[order], labels[order]
    first = np.ones(len(order), bool)  # of its group
    first[1:] = (hashes[1:] != hashes[:-1]).any(axis=1)
    group = np.cumsum(first) - 1
    groups = int(first.sum())
    count = [np.bincount(group[usages == usage], minlength=groups) for usage in range(len(USAGES))]
    disagree = np.zeros(groups, bool)
    disagree[group[labels != labels[first][group]]] = True
    return np.array(count), disagree
