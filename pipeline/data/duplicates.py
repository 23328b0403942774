"""Byte-equal images: FER2013 has them within and across its Usages, some under different labels."""

from array import array
from itertools import combinations
from typing import Any

import numpy as np

from pipeline.data.manifest import USAGES, ManifestRow


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
        order = np.lexsort(hashes.T)
        hashes, labels = hashes[order], np.asarray(self._labels)[order]
        first = np.ones(len(order), bool)  # of its group of equal images
        first[1:] = (hashes[1:] != hashes[:-1]).any(axis=1)
        group = np.cumsum(first) - 1
        usages = np.asarray(self._usages)[order]
        count = {
            usage: np.bincount(group[usages == place], minlength=int(first.sum())) for place, usage in enumerate(USAGES)
        }
        disagreeing = np.unique(group[labels != labels[first][group]])
        return {
            "within": {usage: int(np.maximum(each - 1, 0).sum()) for usage, each in count.items()},
            "across": {
                f"{later} in {earlier}": int(count[later][count[earlier] > 0].sum())
                for earlier, later in combinations(USAGES, 2)
            },
            "disagreeing": len(disagreeing),
            "disagreeing_copies": int(sum(each[disagreeing].sum() for each in count.values())),
        }
