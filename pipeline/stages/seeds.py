"""seeds: join what the runs of several seeds measured into a mean and a spread."""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from pipeline.base.atomic import atomic_file
from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.classifier.metrics import describe_seeds, read_metrics

FIGURES = ("accuracy", "macro_f1", "ece")


class SeedsError(InputError):
    """Runs whose figures do not belong together."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", type=Path, help="JSON file to write the means and spreads to")
    parser.add_argument("metrics", type=Path, nargs="+", help="metrics.json of each seed's run, two or more")


def run(args: argparse.Namespace) -> None:
    seeds(args.metrics, args.output)


def seeds(metrics: list[Path], output: Path) -> dict[str, Any]:
    """Join the figures of runs that differ by their seed alone.

    Args:
        metrics: evaluate's metrics.json of each run, two or more.
        output: the JSON file to write.

    Returns:
        What the file holds: the runs, and for each held-out part (val, test) that has images its `n` and, for each
        figure, `mean`, `sd` (the sample standard deviation, over N - 1) and the `values` in the order of the runs.

    Raises:
        SeedsError: when there are fewer than two runs, or they were measured on different numbers of images.
    """
    if len(metrics) < 2:
        raise SeedsError(f"{len(metrics)} run where two or more were expected; a spread takes two seeds")
    measured = [read_metrics(path) for path in metrics]
    joined: dict[str, Any] = {"runs": [str(path) for path in metrics]}
    for part in ("val", "test"):
        counts = [each[part]["n"] if each[part] else 0 for each in measured]
        for path, count in zip(metrics, counts, strict=True):
            if count != counts[0]:
                raise SeedsError(
                    f"{path}: measured on {count} {part} images where {metrics[0]} was on {counts[0]}; evaluate both "
                    "on the same databases"
                )
        joined[part] = {"n": counts[0]} if counts[0] else None
        for figure in FIGURES if counts[0] else ():
            values = [each[part][figure] for each in measured]
            joined[part][figure] = {
                "mean": statistics.fmean(values),
                "sd": statistics.stdev(values),
                "values": values,
            }
    with atomic_file(output) as file:
        file.write((json.dumps(joined, indent=2) + "\n").encode())
    for line in describe_seeds(joined):
        log.info("%s", line)
    return joined
