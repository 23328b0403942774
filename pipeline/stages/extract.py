"""extract: turn fer2013.csv, or class folders, into PNGs by Usage and label with a manifest."""

import argparse
import csv
import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.base.atomic import atomic_folder, naming
from pipeline.base.console import log, progress_bar
from pipeline.base.errors import InputError
from pipeline.base.pictures import encode_png
from pipeline.base.threads import map_ahead
from pipeline.data import ferplus, manifest
from pipeline.data.class_choice import choose_classes
from pipeline.data.class_folders import ClassFolders, FolderSource
from pipeline.data.duplicates import Duplicates
from pipeline.data.fer2013_csv import CsvSource
from pipeline.data.labelled_images import Batch, LabelledImage, Source
from pipeline.data.labels import KNOWN_COUNTS, LABELS
from pipeline.data.manifest import USAGES, ManifestRow
from pipeline.data.shards import SHARD_FILE, Shard, in_order, link_or_copy, read_shard, write_note
from pipeline.data.split import HOLD_OUT, HoldOut
from pipeline.stages.shard_arguments import add_shard_arguments

STAGE = "extract"
DROPPED = "dropped.csv"  # of a shard: row and reason of each image that is dropped
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
    add_shard_arguments(parser, "extract")


def _renaming(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} where OLD=NEW was expected")
    return old, new


def run(args: argparse.Namespace) -> None:
    options = {
        "policy": args.ferplus_policy,
        "labels": args.labels,
        "classes": args.classes,
        "class_names": dict(args.class_names or ()),
        "rule": HoldOut(args.seed, args.held_out, args.groups),
    }
    if args.shard:
        extract_shard(args.source, args.output, args.ferplus, shard=read_shard(args.shard), **options)
    else:
        extract(args.source, args.output, args.ferplus, shards=args.gather, **options)


def extract(
    source: Path, output: Path, votes: Path | None = None, *, shards: Sequence[Path] = (), **options: Any
) -> dict[str, Any]:
    """Write every image as USAGE/LABEL/ROW.png under `output`, with manifest.csv, labels.txt and summary.json.

    options: those of Extraction. Where `votes` are given, votes.csv holds the votes on every image kept. shards: the
    folders of all shards that extract_shard() made with the same arguments, whose images are linked or copied. `output`
    is replaced as a whole, and only if this stage made all that is in it. Returns the summary: images per Usage and
    label, duplicates, images dropped. Raises SourceError naming the file and line, or the class, that is wrong, and
    InputError where a shard is missing, given twice or made with other arguments.
    """
    own = (*USAGES, manifest.NAME, "labels.txt", "summary.json", ferplus.SIDECAR)
    with _nothing_written():
        work = Extraction(source, votes, **options)
        with atomic_folder(output, own=own, inputs=(source, *shards)) as folder:
            tally = _Tally(work.labels)
            found = _gather(shards, work, folder) if shards else _write_images(work.images.batches(), work, folder)
            manifest.write(folder / manifest.NAME, tally.count(found), manifest.EXTRACT_COLUMNS)
            summary = tally.summary()
            ballot = work.ballot
            if ballot and tally.total() != len(ballot):
                raise InputError(
                    f"{votes}: votes for {len(ballot)} images where {source} has fewer; votes and images "
                    "must be of the same rows in the same order"
                )
            for label in work.labels if work.made_by["classes"] else ():
                if not summary["counts"]["Training"][label]:
                    raise InputError(f"{source}: class {label} has no image to train on; leave it out of classes")
            if ballot:
                kept = manifest.stream(folder / manifest.NAME)
                ferplus.write_sidecar(
                    folder / ferplus.SIDECAR, ((row.path, ballot.of(row.row).values()) for row in kept)
                )
            manifest.write_labels(folder / "labels.txt", work.labels)
            (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    _report(summary)
    return summary


def extract_shard(source: Path, output: Path, votes: Path | None = None, *, shard: Shard, **options: Any) -> None:
    """Write the images of every N-th batch of a source, for extract() to put together. Raises as extract() does."""
    with _nothing_written():
        work = Extraction(source, votes, **options)
        own = (*USAGES, manifest.NAME, DROPPED, SHARD_FILE)
        with atomic_folder(output, own=own, inputs=[source]) as folder:
            batches = islice(work.images.batches(), shard.number - 1, None, shard.count)
            with open(folder / DROPPED, "w", encoding="utf-8", newline="") as file:
                rows = _without_dropped(_write_images(batches, work, folder), csv.writer(file))
                count = manifest.write(folder / manifest.NAME, rows, manifest.EXTRACT_COLUMNS)
            write_note(folder, STAGE, shard, work.made_by)
    log.info("shard %s: %d images", shard, count)


@contextmanager
def _nothing_written() -> Iterator[None]:
    """Say in errors about input that there is no output."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{error}; nothing was written") from None


class Extraction:
    """What is extracted and how. labels: the classes, in index order; made_by: the arguments."""

    def __init__(
        self,
        source: Path,
        votes: Path | None,
        *,
        policy: str = "majority",
        labels: str = "ferplus",
        classes: Sequence[str] | None = None,
        class_names: Mapping[str, str] | None = None,
        rule: HoldOut = HOLD_OUT,
    ) -> None:
        """Read the source's names and the votes.

        `votes`, FER+'s CSV, replaces the labels as `policy` says and drops the images on which it names no expression;
        with labels="fer2013" the source's labels stay. choose_classes() tells what class_names and classes do,
        FolderSource what `rule` does.
        """
        if not 0 < rule.share < 0.5:
            raise InputError(f"held_out {rule.share}: a share above 0 and below 0.5 was expected")
        self.made_by = {
            "source": str(source),
            "votes": votes and str(votes),
            "policy": policy,
            "labels": labels,
            "classes": classes and list(classes),
            "class_names": dict(class_names or {}),
            "rule": asdict(rule),
        }
        self.ballot = ferplus.Votes(votes, policy) if votes else None
        found = ClassFolders(source) if source.is_dir() else CsvSource(source)
        voted = self.ballot is not None and labels == "ferplus"
        choice = choose_classes(ferplus.LABELS if voted else found.labels, classes, class_names)
        if isinstance(found, ClassFolders):
            used = range(len(found.labels)) if voted else [i for i, to in enumerate(choice.index_of) if to is not None]
            self.images: Source = FolderSource(found, used, rule)
        else:
            self.images = found
        self.labels = choice.labels
        self._index_of, self._voted = choice.index_of, voted

    def label(self, image: LabelledImage) -> int | str:
        """Index into labels, or why an image is dropped. Raises SourceError for one that lacks its votes."""
        label: int | str = image.label
        if self.ballot and self._voted:
            label = self.ballot.label(image)
        elif self.ballot:
            self.ballot.check(image)
        if isinstance(label, str):
            return label
        index = self._index_of[label]
        return OTHER_CLASS if index is None else index


@dataclass(frozen=True, slots=True)
class _Dropped:
    """An image that is left out: its row in the source, and why."""

    row: int
    reason: str


class _Tally:
    """Counts images by Usage and label, duplicates among them, and what was dropped for what reason."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self._labels = labels
        self._images: Counter[tuple[str, int]] = Counter()
        self._duplicates = Duplicates()
        self._dropped: Counter[str] = Counter()

    def count(self, rows: Iterable[ManifestRow | _Dropped]) -> Iterator[ManifestRow]:
        """Pass the rows on, and keep the reasons for which images have none."""
        for row in rows:
            if isinstance(row, _Dropped):
                self._dropped[row.reason] += 1
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


def _write_images(batches: Iterable[Batch], work: Extraction, folder: Path) -> Iterator[ManifestRow | _Dropped]:
    """Write the images; of each its row, or why it is dropped."""
    _make_folders(work, folder)

    def write(batch: Batch) -> list[ManifestRow | _Dropped]:
        labelled = ((image, work.label(image)) for image in batch())
        return [
            _Dropped(image.row, label)
            if isinstance(label, str)
            else _write_image(image, label, work.labels[label], folder)
            for image, label in labelled
        ]

    with naming(folder), progress_bar(None, "images", "extract") as bar:
        for written in map_ahead(write, batches):
            yield from written
            bar.update(len(written))


def _gather(shards: Sequence[Path], work: Extraction, folder: Path) -> Iterator[ManifestRow | _Dropped]:
    """The rows of all shards in the order of the source, their images linked or copied."""
    folders, _ = in_order(STAGE, shards, work.made_by)
    _make_folders(work, folder)

    def kept(shard: Path) -> Iterator[ManifestRow]:
        for row in manifest.stream(shard / manifest.NAME):
            link_or_copy(shard / row.path, folder / row.path)
            yield row

    def dropped(shard: Path) -> Iterator[_Dropped]:
        with open(shard / DROPPED, encoding="utf-8", newline="") as file:
            for row, reason in csv.reader(file):
                yield _Dropped(int(row), reason)

    streams: list[Iterator[ManifestRow | _Dropped]] = [read(shard) for read in (kept, dropped) for shard in folders]
    yield from heapq.merge(*streams, key=lambda row: row.row)


def _make_folders(work: Extraction, folder: Path) -> None:
    for usage in USAGES:
        for label in work.labels:
            (folder / usage / label).mkdir(parents=True)


def _without_dropped(rows: Iterable[ManifestRow | _Dropped], dropped: Any) -> Iterator[ManifestRow]:
    """Pass the rows on, and write those that are dropped with a csv.writer."""
    for row in rows:
        if isinstance(row, _Dropped):
            dropped.writerow((row.row, row.reason))
        else:
            yield row


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
    log.info("images equal byte for byte to an earlier one of their Usage: %s", _listed(duplicates["within"]))
    log.info("images that are in another Usage too: %s", _listed(duplicates["across"]))
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
