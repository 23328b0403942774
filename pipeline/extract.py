"""extract: turn fer2013.csv, or class folders, into PNGs by Usage and label with a manifest."""

import argparse
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from pipeline import manifest
from pipeline.atomic import atomic_folder
from pipeline.console import log, progress_bar
from pipeline.errors import InputError
from pipeline.fer import ferplus
from pipeline.fer.csv_source import CsvSource
from pipeline.fer.duplicates import count_duplicates
from pipeline.fer.folder_source import FolderSource
from pipeline.fer.images import Batch, LabelledImage, Source
from pipeline.fer.labels import KNOWN_COUNTS, LABELS
from pipeline.manifest import USAGES, ManifestRow
from pipeline.pictures import encode_png
from pipeline.threads import map_ahead


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path,
                        help="fer2013.csv or icml_face_data.csv, plain or .xz, .gz, .zip; or a folder of class "
                             "folders, with splits (train/happy/*.png) or without (happy/*.png)")
    parser.add_argument("output", type=Path, help="folder to write the images, manifest.csv and summary.json to")
    parser.add_argument("--ferplus", type=Path, metavar="CSV",
                        help="FER+'s votes on the same rows (fer2013new.csv); they are kept in votes.csv")
    parser.add_argument("--ferplus-policy", choices=ferplus.POLICIES, default="majority",
                        help="how votes become a label: more than half of them (majority), the most of them, ties "
                             "dropped (plurality), or for training the most among the expressions, so that the vote "
                             "shares can be learned, and the majority for held-out images (shares) (default: majority)")
    parser.add_argument("--labels", choices=("ferplus", "fer2013"), default="ferplus",
                        help="with --ferplus: label by its votes (eight classes), or keep the source's labels and all "
                             "its images, with the votes beside them (fer2013) (default: ferplus)")
    parser.add_argument("--seed", type=int, default=1,
                        help="seed of the split of class folders that come without (default: 1)")


def run(args: argparse.Namespace) -> None:
    extract(args.source, args.output, args.ferplus, args.seed, policy=args.ferplus_policy, labels=args.labels)


def extract(source: Path, output: Path, votes: Path | None = None, seed: int = 1, *, policy: str = "majority",
            labels: str = "ferplus") -> dict[str, Any]:
    """Write every image as USAGE/LABEL/ROW.png under `output`, with manifest.csv, labels.txt and summary.json.

    `votes`, FER+'s CSV, replaces the labels as `policy` says and drops the images on which it names no expression; with
    labels="fer2013" the source's labels stay. Either way votes.csv holds the votes on every image kept. `output` is
    replaced as a whole, and only if this stage made all that is in it. Returns the summary: images per Usage and label,
    duplicates, images dropped. Raises SourceError naming the file and line that is wrong.
    """
    try:
        ballot = ferplus.Votes(votes, policy) if votes else None
        images: Source = FolderSource(source, seed) if source.is_dir() else CsvSource(source)
        labelling = _Labelling(images.labels, ballot, voted=labels == "ferplus")
        own = (*USAGES, manifest.NAME, "labels.txt", "summary.json", ferplus.SIDECAR)
        with atomic_folder(output, own=own) as folder:
            rows = _write_images(images, labelling, folder)
            if ballot and len(rows) + labelling.dropped.total() != len(ballot):
                raise InputError(f"{votes}: votes for {len(ballot)} images where {source} has fewer; votes and images "
                                 "must be of the same rows in the same order")
            summary = {
                "images": len(rows),
                "counts": _counts(rows, labelling.labels),
                "duplicates": count_duplicates(rows),
                "dropped": dict(labelling.dropped),
            }
            manifest.write(folder / manifest.NAME, rows)
            if ballot:
                ferplus.write_sidecar(folder / ferplus.SIDECAR, ((row.path, ballot.of(row.row)) for row in rows))
            manifest.write_labels(folder / "labels.txt", labelling.labels)
            (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    except InputError as error:
        raise type(error)(f"{error}; nothing was written") from None
    _report(summary)
    return summary


class _Labelling:
    """Which class an image is of. labels: the classes, in index order; dropped counts the images of none, by reason."""

    def __init__(self, labels: tuple[str, ...], ballot: ferplus.Votes | None, *, voted: bool) -> None:
        self._ballot, self._voted = ballot, voted and ballot is not None
        self.labels = ferplus.LABELS if self._voted else labels
        self.dropped = ballot.dropped if ballot and voted else Counter[str]()

    def label(self, image: LabelledImage) -> int | None:
        """Index into labels, None for an image that is dropped. Raises SourceError for one that lacks its votes."""
        if self._ballot is None:
            return image.label
        if self._voted:
            return self._ballot.label(image)
        self._ballot.check(image)
        return image.label


def _write_images(source: Source, labelling: _Labelling, folder: Path) -> list[ManifestRow]:
    for usage in USAGES:
        for label in labelling.labels:
            (folder / usage / label).mkdir(parents=True)

    def write(batch: Batch) -> list[ManifestRow]:
        labelled = ((image, labelling.label(image)) for image in batch())
        return [_write_image(image, label, labelling.labels[label], folder)
                for image, label in labelled if label is not None]

    rows: list[ManifestRow] = []
    with progress_bar(None, "images", "extract") as bar:
        for written in map_ahead(write, source.batches()):
            rows += written
            bar.update(len(written))
    return rows


def _write_image(image: LabelledImage, label: int, name: str, folder: Path) -> ManifestRow:
    path = f"{image.usage}/{name}/{image.row:05d}.png"
    with open(f"{folder}/{path}", "wb") as file:
        file.write(encode_png(image.pixels))
    return ManifestRow(image.row, image.usage, label, path, hashlib.sha256(image.pixels.tobytes()).hexdigest())


def _counts(rows: list[ManifestRow], labels: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Images by Usage, then label."""
    counted = Counter((row.usage, row.label) for row in rows)
    return {usage: {label: counted[usage, index] for index, label in enumerate(labels)} for usage in USAGES}


def _report(summary: dict[str, Any]) -> None:
    for usage, counts in summary["counts"].items():
        log.info("%s: %d images (%s)", usage, sum(counts.values()), _listed(counts))
        known = dict(zip(LABELS, KNOWN_COUNTS[usage], strict=True))
        if counts == known:
            log.info("%s: as many of each label as in the published FER2013", usage)
        elif counts.keys() == known.keys():
            log.info("%s: the published FER2013 has %d (%s)", usage, sum(known.values()), _listed(known))
    duplicates = summary["duplicates"]
    log.info("images equal to an earlier one of their Usage to the byte: %s", _listed(duplicates["within"]))
    log.info("images that stand in another Usage too: %s", _listed(duplicates["across"]))
    log.info("images that stand under more than one label: %d (%d copies)",
             duplicates["disagreeing"], duplicates["disagreeing_copies"])
    if summary["dropped"]:
        log.info("images dropped, for their votes: %s", _listed(summary["dropped"]))


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
