"""Byte-equal images: FER2013 has them within and across its Usages, some under different labels."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import combinations
from typing import Any

from pipeline.data.manifest import USAGES, ManifestRow


def count_duplicates(rows: Iterable[ManifestRow]) -> dict[str, Any]:
    """Count the images that equal another.

    within: for each Usage, its images beyond the first of each distinct one. across: for each pair "B in A", the
    images of B that stand in A too. disagreeing: distinct images that stand under more than one label, with
    disagreeing_copies in all.
    """
    copies = defaultdict(list)
    for row in rows:
        copies[row.sha256].append(row)
    groups = [group for group in copies.values() if len(group) > 1]
    usages = [Counter(row.usage for row in group) for group in groups]
    disagreeing = [len(group) for group in groups if len({row.label for row in group}) > 1]
    return {
        "within": {usage: sum(max(count[usage] - 1, 0) for count in usages) for usage in USAGES},
        "across": {
            f"{later} in {earlier}": sum(count[later] for count in usages if count[earlier])
            for earlier, later in combinations(USAGES, 2)
        },
        "disagreeing": len(disagreeing),
        "disagreeing_copies": sum(disagreeing),
    }
