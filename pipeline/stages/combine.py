"""combine: put a set's whole images and its aligned faces into one manifest, so that a net learns to read both."""

import argparse
from dataclasses import replace
from pathlib import Path

from pipeline.base.atomic import atomic_folder
from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.data import ferplus, manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", type=Path, help="manifest.csv of extract: its images train and are held out")
    parser.add_argument("aligned", type=Path, help="manifest.csv of align: its Training faces train as well")
    parser.add_argument("output", type=Path, help="folder beside the other two to write manifest.csv and labels.txt to")


def run(args: argparse.Namespace) -> None:
    combine(args.images, args.aligned, args.output)


def combine(images: Path, aligned: Path, output: Path) -> None:
    """Write manifest.csv, labels.txt and, where both have one, votes.csv under `output`.

    The rows are those of `images`, then the Training rows of `aligned` whose face was found; an image without a face is
    the same in both. Paths lead to the files where they are, relative to `output`. Raises InputError when the two are
    not of one set.
    """
    roots = images.parent, aligned.parent
    labels = [manifest.read_labels(root / "labels.txt") for root in roots]
    if labels[0] != labels[1]:
        raise InputError(
            f"{roots[1] / 'labels.txt'}: {', '.join(labels[1])} where {', '.join(labels[0])}, the labels "
            f"of {roots[0]}, were expected; make both again of one source"
        )
    first, second = manifest.read(images), manifest.read(aligned)
    sources = {row.row: row.sha256 for row in first}
    strange = next((row for row in second if sources.get(row.row) != row.sha256), None)
    if strange is not None:
        raise InputError(
            f"{aligned}: row {strange.row} is another image than in {images}; make both again of one source"
        )
    found = [row for row in second if row.usage == "Training" and row.status == "found"]
    own = (manifest.NAME, "labels.txt", ferplus.SIDECAR)
    rows = []
    with atomic_folder(output, own=own) as folder:
        for root, of_root in zip(roots, (first, found), strict=True):
            prefix = Path("..") / root.name
            rows += [replace(row, path=f"{prefix.as_posix()}/{row.path}") for row in of_root]
        manifest.write(folder / manifest.NAME, rows)
        manifest.write_labels(folder / "labels.txt", labels[0])
        votes = [
            ferplus.read_sidecar(root / ferplus.SIDECAR, (row.path for row in of_root))
            for root, of_root in zip(roots, (first, second), strict=True)
        ]
        if votes[0] and votes[1]:
            counts = [votes[0][row.path] for row in first] + [votes[1][row.path] for row in found]
            ferplus.write_sidecar(folder / ferplus.SIDECAR, zip((row.path for row in rows), counts, strict=True))
    log.info("%d whole images, and %d aligned faces that train as well", len(first), len(found))
