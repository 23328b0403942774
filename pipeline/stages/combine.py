"""combine: put a set's whole images and its aligned faces into one manifest, so that a net learns to read both."""

import argparse
from collections.abc import Iterator
from itertools import chain, compress
from pathlib import Path

from pipeline.base.atomic import atomic_folder
from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.data import ferplus, manifest
from pipeline.data.manifest import ManifestRow


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
    # A byte for each aligned row: whether its face was found and trains.
    chosen = bytearray(row.usage == "Training" and row.status == "found" for row in _of_one_set(images, aligned))
    columns = manifest.COLUMNS if any(chosen) else manifest.EXTRACT_COLUMNS
    own = (manifest.NAME, "labels.txt", ferplus.SIDECAR)
    with atomic_folder(output, own=own) as folder:
        rows = chain(
            (row._replace(path=f"../{roots[0].name}/{row.path}") for row in manifest.stream(images)),
            (row._replace(path=f"../{roots[1].name}/{row.path}") for row in compress(manifest.stream(aligned), chosen)),
        )
        count = manifest.write(folder / manifest.NAME, rows, columns)
        manifest.write_labels(folder / "labels.txt", labels[0])
        paths = [(row.path for row in manifest.stream(path)) for path in (images, aligned)]
        votes = [
            ferplus.read_sidecar(root / ferplus.SIDECAR, of_root) for root, of_root in zip(roots, paths, strict=True)
        ]
        if votes[0] is not None and votes[1] is not None:
            names = (row.path for row in manifest.stream(folder / manifest.NAME))
            counts = chain(votes[0], compress(votes[1], chosen))
            ferplus.write_sidecar(
                folder / ferplus.SIDECAR, ((name, each.tolist()) for name, each in zip(names, counts, strict=True))
            )
    log.info("%d whole images, and %d aligned faces that train as well", count - sum(chosen), sum(chosen))


def _of_one_set(images: Path, aligned: Path) -> Iterator[ManifestRow]:
    """The rows of `aligned`. Raises InputError unless they are images of `images`, in its order."""
    sources = manifest.stream(images)
    for row in manifest.stream(aligned):
        source = next((each for each in sources if each.row == row.row), None)
        if source is None or source.sha256 != row.sha256:
            raise InputError(
                f"{aligned}: row {row.row} is another image than in {images}; make both again of one source"
            )
        yield row
