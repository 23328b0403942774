"""extract: turn fer2013.csv, or class folders, into PNGs by Usage and label with a manifest."""

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.base.atomic import atomic_folder
from pipeline.base.console import log, progress_bar
from pipeline.base.errors import InputError
from pipeline.base.pictures import encode_png
from pipeline.base.threads import map_ahead
from pipeline.data import ferplus, manifest
from pipeline.data.class_choice import ClassChoice, choose_classes
from pipeline.data.class_folders import ClassFolders, FolderSource
from pipeline.data.duplicates import Duplicates
from pipeline.data.fer2013_csv import CsvSource
from pipeline.data.labelled_images import Batch, LabelledImage, Source
from pipeline.data.labels import KNOWN_COUNTS, LABELS
from pipeline.data.manifest import USAGES, ManifestRow
from pipeline.data.split import HOLD_OUT, HoldOut

OTHER_CLASS = "of other classes"  # why an image is dropped that choose_classes() leaves out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        type=Path,
        help="fer2013.csv or icml_face_data.csv, plain or .xz, .gz, .zip; or a folder of class "
        "folders, with splits (train/happy/*.png) or without (happy/*.png)",
    )
    parser.add_argument("output", type=Path, help="folder to write the images, manifest.csv and summary.json to")
    parser.add_argument(
        "--ferplus",
        type=Path,
        metavar="CSV",
        help="FER+'s votes on the same rows (fer2013new.csv); they are kept in votes.csv",
    )
    parser.add_argument(
        "--ferplus-policy",
        choices=ferplus.POLICIES,
        default="majority",
        help="how votes become a label: more than half of them (majority), the most of them, ties "
        "dropped (plurality), or for training the most among the expressions, so that the vote "
        "shares can be learned, and the majority for held-out images (shares) (default: majority)",
    )
    parser.add_argument(
        "--labels",
        choices=("ferplus", "fer2013"),
        default="ferplus",
        help="with --ferplus: label by its votes (eight classes), or keep the source's labels and all "
        "its images, with the votes beside them (fer2013) (default: ferplus)",
    )
    parser.add_argument(
        "--class-names",
        type=_renaming,
        nargs="+",
        metavar="OLD=NEW",
        help="what classes are called instead, such as 1=surprise 2=fear",
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="the classes to use, in this order, by their new names (default: all)",
    )
    parser.add_argument(
        "--held-out",
        type=float,
        default=HoldOut.share,
        metavar="SHARE",
        help="share of each class held out for validation where no folder names that split, and for "
        f"testing where none names any (default: {HoldOut.share})",
    )
    parser.add_argument(
        "--groups",
        default=HoldOut.groups,
        metavar="TEXT",
        help="what stays in one part then. auto: the pictures of a person, where the files are called "
        "as in CK+, KDEF or JAFFE; none: nothing; any other text ends the person in a file's "
        "name: with _ ann_03.png is ann's (default: auto)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of the split of class folders that come without (default: 1)"
    )


def _renaming(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} where OLD=NEW was expected")
    return old, new


def run(args: argparse.Namespace) -> None:
    extract(
        args.source,
        args.output,
        args.ferplus,
        policy=args.ferplus_policy,
        labels=args.labels,
        classes=args.classes,
        class_names=dict(args.class_names or ()),
        rule=HoldOut(args.seed, args.held_out, args.groups),
    )


def extract(
    source: Path,
    output: Path,
    votes: Path | None = None,
    *,
    policy: str = "majority",
    labels: str = "ferplus",
    classes: Sequence[str] | None = None,
    class_names: Mapping[str, str] | None = None,
    rule: HoldOut = HOLD_OUT,
) -> dict[str, Any]:
    """Write every image as USAGE/LABEL/ROW.png under `output`, with manifest.csv, labels.txt and summary.json.

    `votes`, FER+'s CSV, replaces the labels as `policy` says and drops the images on which it names no expression; with
    labels="fer2013" the source's labels stay. Either way votes.csv holds the votes on every image kept.
    choose_classes() tells what class_names and classes do, FolderSource what `rule` does. `output` is replaced as a
    whole, and only if this stage made all that is in it. Returns the summary: images per Usage and label, duplicates,
    images dropped. Raises SourceError naming the file and line, or the class, that is wrong.
    """
    if not 0 < rule.share < 0.5:
        raise InputError(f"held_out {rule.share}: a share above 0 and below 0.5 was expected; nothing was written")
    try:
        ballot = ferplus.Votes(votes, policy) if votes else None
        found = ClassFolders(source) if source.is_dir() else CsvSource(source)
        voted = ballot is not None and labels == "ferplus"
        choice = choose_classes(ferplus.LABELS if voted else found.labels, classes, class_names)
        if isinstance(found, ClassFolders):
            used = range(len(found.labels)) if voted else [i for i, to in enumerate(choice.index_of) if to is not None]
            images: Source = FolderSource(found, used, rule)
        else:
            images = found
        labelling = _Labelling(choice, ballot, voted=voted)
        own = (*USAGES, manifest.NAME, "labels.txt", "summary.json", ferplus.SIDECAR)
        with atomic_folder(output, own=own) as folder:
            tally = _Tally(labelling.labels)
            rows = tally.count(_write_images(images, labelling, folder))
            manifest.write(folder / manifest.NAME, rows, manifest.EXTRACT_COLUMNS)
            summary = tally.summary()
            if ballot and tally.total() != len(ballot):
                raise InputError(
                    f"{votes}: votes for {len(ballot)} images where {source} has fewer; votes and images "
                    "must be of the same rows in the same order"
                )
            for label in choice.labels if classes else ():
                if not summary["counts"]["Training"][label]:
                    raise InputError(f"{source}: class {label} has no image to train on; leave it out of classes")
            if ballot:
                kept = manifest.stream(folder / manifest.NAME)
                ferplus.write_sidecar(
                    folder / ferplus.SIDECAR, ((row.path, ballot.of(row.row).values()) for row in kept)
                )
            manifest.write_labels(folder / "labels.txt", labelling.labels)
            (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    except InputError as error:
        raise type(error)(f"{error}; nothing was written") from None
    _report(summary)
    return summary


class _Labelling:
    """Which class an image is of. labels: the classes, in index order."""

    def __init__(self, choice: ClassChoice, ballot: ferplus.Votes | None, *, voted: bool) -> None:
        self.labels = choice.labels
        self._index_of, self._ballot, self._voted = choice.index_of, ballot, voted

    def label(self, image: LabelledImage) -> int | str:
        """Index into labels, or why an image is dropped. Raises SourceError for one that lacks its votes."""
        label: int | str = image.label
        if self._ballot and self._voted:
            label = self._ballot.label(image)
        elif self._ballot:
            self._ballot.check(image)
        if isinstance(label, str):
            return label
        index = self._index_of[label]
        return OTHER_CLASS if index is None else index


class _Tally:
    """Counts images by Usage and label, duplicates among them, and what was dropped for what reason."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self._labels = labels
        self._images: Counter[tuple[str, int]] = Counter()
        self._duplicates = Duplicates()
        self._dropped: Counter[str] = Counter()

    def count(self, rows: Iterator[ManifestRow | str]) -> Iterator[ManifestRow]:
        """Pass the rows on, and keep the reasons for which images have none."""
        for row in rows:
            if isinstance(row, str):
                self._dropped[row] += 1
            else:
                self._images[row.usage, row.label] += 1
                self._duplicates.add(row)
                yield row

    def total(self) -> int:
        """Of images, those dropped included."""
        return self._images.total() + self._dropped.total()

    def summary(self) -> dict[str, Any]:
        return {
            "images": self._images.total(),
            "counts": {
                usage: {label: self._images[usage, index] for index, label in enumerate(self._labels)}
                for usage in USAGES
            },
            "duplicates": self._duplicates.count(),
            "dropped": dict(self._dropped),
        }


def _write_images(source: Source, labelling: _Labelling, folder: Path) -> Iterator[ManifestRow | str]:
    """Write the images; of each its row, or why it is dropped."""
    for usage in USAGES:
        for label in labelling.labels:
            (folder / usage / label).mkdir(parents=True)

    def write(batch: Batch) -> list[ManifestRow | str]:
        labelled = ((image, labelling.label(image)) for image in batch())
        return [
            label if isinstance(label, str) else _write_image(image, label, labelling.labels[label], folder)
            for image, label in labelled
        ]

    with progress_bar(None, "images", "extract") as bar:
        for written in map_ahead(write, source.batches()):
            yield from written
            bar.update(len(written))


def _write_image(image: LabelledImage, label: int, name: str, folder: Path) -> ManifestRow:
    path = f"{image.usage}/{name}/{image.row:05d}.png"
    with open(f"{folder}/{path}", "wb") as file:
        file.write(encode_png(image.pixels))
    return ManifestRow(image.row, image.usage, label, path, hashlib.sha256(image.pixels.tobytes()).hexdigest())


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
    log.info(
        "images that stand under more than one label: %d (%d copies)",
        duplicates["disagreeing"],
        duplicates["disagreeing_copies"],
    )
    if summary["dropped"]:
        log.info("images dropped, by votes or class: %s", _listed(summary["dropped"]))
    training = summary["counts"]["Training"]
    missing = [label for label, count in training.items() if not count]
    if missing and sum(training.values()):
        log.warning(
            "no image to train on shows %s: a net cannot learn that; leave it out with classes", ", ".join(missing)
        )


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
