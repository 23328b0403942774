"""Byte-equal images: FER2013 has them within and across its Usages, some with different labels."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from pipeline.manifest import USAGES, ManifestRow


def count_duplicates(rows: Iterable[ManifestRow]) -> dict[str, dict[str, int] | int]:
    """Count images that repeat another to the byte.

    within: per Usage, the images beyond the first of each distinct one. across: per pair "A in B", the images of A
    that stand in B too. distinct_with_disagreeing_labels: distinct images that occur under more than one label, and
    images_with_disagreeing_labels: all their copies.
    """
    copies = defaultdict(list)
    for row in rows:
        copies[row.sha256].append(row)
    within = Counter({usage: 0 for usage in USAGES})
    across = Counter({f"{a} in {b}": 0 for b in USAGES for a in USAGES if USAGES.index(a) > USAGES.index(b)})
    disagreeing = []
    for group in copies.values():
        usages = Counter(row.usage for row in group)
        within.update({usage: count - 1 for usage, count in usages.items()})
        across.update({pair: usages[pair.split(" in ")[0]] for pair in across if set(pair.split(" in ")) <= set(usages)})
        if len({row.label for row in group}) > 1:
            disagreeing.append(len(group))
    return {
        "within": dict(within),
        "across": dict(across),
        "distinct_with_disagreeing_labels": len(disagreeing),
        "images_with_disagreeing_labels": sum(disagreeing),
    }
