"""align: find the largest face in every image and align it to 48x48 grey by its five landmarks."""

import argparse
import json
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from pipeline.base.atomic import atomic_file, atomic_folder, naming
from pipeline.base.console import log, progress_bar
from pipeline.base.errors import InputError
from pipeline.base.image_files import read_image
from pipeline.base.pictures import encode_png
from pipeline.base.threads import map_ahead
from pipeline.data import ferplus, manifest
from pipeline.data.manifest import USAGES, ManifestRow
from pipeline.data.shards import SHARD_FILE, Shard, in_order, link_or_copy, read_shard, write_note
from pipeline.faces.alignment import align_face, whole_image
from pipeline.faces.contact_sheet import Tile, draw_sheet
from pipeline.faces.detector import Detections, Detector, WholeImage, build_detector
from pipeline.faces.landmarks import Landmarker
from pipeline.readings import LANDMARKS
from pipeline.stages.arguments import add_detector_arguments, positive
from pipeline.stages.shard_arguments import add_shard_arguments

STAGE = "align"
FOUND, FALLBACK = "found", "fallback"
MISSING = ("keep", "drop")
EXACT_ROWS = "exact.csv"  # a manifest of every image, also one that is dropped, whose numbers are not rounded
SHEET_NAME, SHEET_FACES, SHEET_MISSES = "contact_sheet.png", 36, 12
OWN = (*USAGES, manifest.NAME, "labels.txt", "summary.json", SHEET_NAME, ferplus.SIDECAR)


@dataclass(frozen=True, eq=False)
class Work:
    """How images are aligned: align()'s arguments."""

    detector: Detector
    missing: str
    batch: int
    threads: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, help="manifest.csv of extract")
    parser.add_argument("output", type=Path, help="folder to write the aligned faces, manifest.csv and the sheet to")
    add_detector_arguments(parser)
    parser.add_argument(
        "--missing",
        choices=MISSING,
        default="keep",
        help="images without a face: keep them whole, scaled to 48x48, or drop them (default: keep)",
    )
    parser.add_argument(
        "--min-face", type=positive, default=20, help="side of the smallest face, in pixels (default: 20)"
    )
    parser.add_argument(
        "--batch", type=positive, default=64, help="images that go through the nets at once (default: 64)"
    )
    parser.add_argument("--threads", type=positive, default=2, help="processor cores to use (default: 2)")
    add_shard_arguments(parser, "align")


def run(args: argparse.Namespace) -> None:
    if args.gather:
        gather(args.manifest, args.output, args.gather)
        return
    # Each of align's threads takes a batch of its own: that keeps the cores busier than sharing each product does.
    detector = build_detector(args.detector, model=args.detector_model, min_face=args.min_face, threads=1)
    work = Work(detector, args.missing, args.batch, args.threads)
    if args.shard:
        made_by = {name: str(getattr(args, name)) for name in ("detector", "detector_model", "min_face")}
        align_shard(args.manifest, args.output, read_shard(args.shard), work, made_by)
    else:
        align(args.manifest, args.output, detector, missing=args.missing, batch=args.batch, threads=args.threads)


def align(
    manifest_path: Path, output: Path, detector: Detector, *, missing: str = "keep", batch: int = 64, threads: int = 2
) -> dict[str, Any]:
    """Write every image of a manifest, its largest face aligned, under `output` at the same path.

    Beside them stand manifest.csv with box, score, landmarks and status, labels.txt, summary.json, contact_sheet.png
    and, where extract was given FER+'s votes, votes.csv. `output` is replaced as a whole, and only if it was made by
    this stage. Returns the summary: how many faces were found in each Usage. Raises InputError naming an image that
    cannot be read, or is not 8-bit grey or RGB.
    """
    source = _Source(manifest_path)
    with atomic_folder(output, own=OWN, inputs=[source.root]) as folder:
        _align_rows(source, range(source.count), Work(detector, missing, batch, threads), folder)
        summary = _finish(source, [folder / EXACT_ROWS], folder, missing)
        (folder / EXACT_ROWS).unlink()
    _report(summary)
    return summary


def align_shard(manifest_path: Path, output: Path, shard: Shard, work: Work, made_by: Mapping[str, str]) -> None:
    """Align one shard of a manifest's images: what gather() puts together is what align() writes, byte for byte.

    made_by: what tells the detector from others. Raises InputError as align() does.
    """
    source = _Source(manifest_path)
    with atomic_folder(output, own=(*USAGES, EXACT_ROWS, SHARD_FILE), inputs=[source.root]) as folder:
        _align_rows(source, shard.rows(source.count, work.batch), work, folder)
        write_note(folder, STAGE, shard, {**made_by, "missing": work.missing, "batch": work.batch})
        summary = _summary(manifest.stream(folder / EXACT_ROWS), work.missing)
    log.info("shard %s: %s", shard, _title(summary))


def gather(manifest_path: Path, output: Path, shards: Sequence[Path]) -> dict[str, Any]:
    """Put the folders of all shards together to what align() writes, the images by hard links where there are such.

    Raises InputError where a shard is missing, given twice, made with other settings than another, or of other images.
    """
    source = _Source(manifest_path)
    folders, made_by = in_order(STAGE, shards)
    missing = made_by.get("missing")
    if missing not in MISSING:
        raise InputError(
            f"{shards[0] / SHARD_FILE}: missing {missing!r} where {' or '.join(MISSING)} was expected; make all shards "
            "again"
        )
    exact = [folder / EXACT_ROWS for folder in folders]
    for row, found in zip_longest(manifest.stream(manifest_path), chain.from_iterable(map(manifest.stream, exact))):
        if row is None or found is None or (row.row, row.sha256) != (found.row, found.sha256):
            where = "the end" if row is None else f"row {row.row}"
            raise InputError(f"{manifest_path}: {where} where the shards have another image; make all shards again")
    with atomic_folder(output, own=OWN, inputs=[source.root, *shards]) as folder:
        source.make_folders(folder)
        for shard, path in zip(folders, exact, strict=True):
            for row in manifest.stream(path):
                if _is_kept(row, missing):
                    link_or_copy(shard / row.path, folder / row.path)
        summary = _finish(source, exact, folder, missing)
    _report(summary)
    return summary


class _Source:
    """The images to align: those of a manifest, with labels, votes where there are some, and their number."""

    def __init__(self, path: Path) -> None:
        """Raises InputError where the manifest cannot be used."""
        self.path, self.root = path, path.parent
        self.labels = manifest.read_labels(self.root / "labels.txt")
        self._folders, self.count = _check(path, self.labels)
        paths = (row.path for row in manifest.stream(path))
        self.votes = ferplus.read_sidecar(self.root / ferplus.SIDECAR, paths)

    def make_folders(self, folder: Path) -> None:
        """Make those that the aligned images stand in."""
        for parent in self._folders:
            (folder / parent).mkdir(parents=True, exist_ok=True)


def _align_rows(source: _Source, numbers: range, work: Work, folder: Path) -> None:
    """Write the images of some rows, aligned, and EXACT_ROWS."""
    # Boxes without landmarks get them, so that any detector's faces are aligned; whole images stay as they are.
    landmarker = None if isinstance(work.detector, WholeImage) else Landmarker()
    source.make_folders(folder)

    def align_batch(part: list[ManifestRow]) -> list[ManifestRow]:
        images = [_read(row, source.root / row.path) for row in part]
        found = work.detector.detect(images)
        if landmarker:
            found = landmarker.complete(images, found)
        return [
            _write(row, image, faces, folder, work.missing)
            for row, image, faces in zip(part, images, found, strict=True)
        ]

    def aligned() -> Iterator[ManifestRow]:
        rows = islice(manifest.stream(source.path), numbers.start, numbers.stop)
        parts = iter(lambda: list(islice(rows, work.batch)), [])
        with naming(folder), progress_bar(len(numbers), "images", "align") as bar:
            for done in map_ahead(align_batch, parts, work.threads):
                yield from done
                bar.update(len(done))

    manifest.write(folder / EXACT_ROWS, aligned(), manifest.COLUMNS, exact=True)


def _finish(source: _Source, exact: Sequence[Path], folder: Path, missing: str) -> dict[str, Any]:
    """Write what stands beside the aligned images of a folder; returns the summary. exact: the EXACT_ROWS of all."""

    def aligned() -> Iterator[ManifestRow]:
        return chain.from_iterable(map(manifest.stream, exact))

    manifest.write(folder / manifest.NAME, (row for row in aligned() if _is_kept(row, missing)), manifest.COLUMNS)
    manifest.write_labels(folder / "labels.txt", source.labels)
    if source.votes is not None:
        pairs = zip(aligned(), source.votes, strict=True)
        kept = ((row.path, votes.tolist()) for row, votes in pairs if _is_kept(row, missing))
        ferplus.write_sidecar(folder / ferplus.SIDECAR, kept)
    summary = _summary(aligned(), missing)
    with atomic_file(folder / "summary.json", "w", encoding="utf-8") as file:
        json.dump(summary, file, indent=1)
    pairs_of_tiles = zip(manifest.stream(source.path), aligned(), strict=True)
    draw_sheet(folder / SHEET_NAME, _tiles(source, pairs_of_tiles, folder, summary), _title(summary))
    return summary


def _is_kept(row: ManifestRow, missing: str) -> bool:
    return missing == "keep" or row.status == FOUND


def _report(summary: dict[str, Any]) -> None:
    log.info("%s", _title(summary))
    for usage, counts in summary["counts"].items():
        log.info("%s: %s", usage, ", ".join(f"{count} {status}" for status, count in counts.items()))


def _check(manifest_path: Path, labels: tuple[str, ...]) -> tuple[set[PurePosixPath], int]:
    """The folders of the images, relative to the manifest's, and the number of rows.

    Raises InputError unless every row has a label that there is and a place of its own inside a folder.
    """
    folders: set[PurePosixPath] = set()
    hashes = array("q")  # of the places: in 8 bytes a row they tell where two may be the same
    for row in manifest.stream(manifest_path):
        place = _output_path(row.path)
        if not 0 <= row.label < len(labels):
            raise InputError(
                f"{manifest_path}: row {row.row} has label {row.label} where 0 to {len(labels) - 1} as in "
                "labels.txt was expected; make both again with extract"
            )
        if place.is_absolute() or ".." in place.parts:
            raise InputError(f"{manifest_path}: row {row.row}: path {row.path} leads out of the manifest's folder")
        folders.add(place.parent)
        hashes.append(hash(str(place)))
    values, counts = np.unique(np.asarray(hashes), return_counts=True)
    suspects, places = set(values[counts > 1].tolist()), set()
    for row in manifest.stream(manifest_path) if suspects else ():
        place = _output_path(row.path)
        if place in places:
            raise InputError(f"{manifest_path}: row {row.row}: a second {place} would replace the first; rename it")
        if hash(str(place)) in suspects:
            places.add(place)
    return folders, len(hashes)


def _read(row: ManifestRow, path: Path) -> np.ndarray:
    """An image (H, W, 3). Raises InputError when it cannot be read, or is not the one that extract wrote."""
    image = read_image(path)
    manifest.check_pixels(row, image[..., 0], path)
    return image


def _output_path(path: str) -> PurePosixPath:
    return PurePosixPath(path).with_suffix(".png")


def _write(row: ManifestRow, image: np.ndarray, faces: Detections, folder: Path, missing: str) -> ManifestRow:
    row = row._replace(path=str(_output_path(row.path)), status=FALLBACK)
    face = whole_image(image)
    if len(faces):
        largest = faces.by_size()[0]
        box, landmarks = faces.boxes[largest], faces.landmarks[largest]
        face = align_face(image, box, landmarks)
        places = dict(zip(("left", "top", "right", "bottom"), box.tolist(), strict=True))
        if not np.isnan(landmarks).any():
            for name, (x, y) in zip(LANDMARKS, landmarks.tolist(), strict=True):
                places |= {f"{name}_x": x, f"{name}_y": y}
        row = row._replace(status=FOUND, score=float(faces.scores[largest]), **places)
    if _is_kept(row, missing):
        (folder / row.path).write_bytes(encode_png(face))
    return row


def _summary(rows: Iterable[ManifestRow], missing: str) -> dict[str, Any]:
    counted = Counter((row.usage, row.status) for row in rows)
    counts = {usage: {status: counted[usage, status] for status in (FOUND, FALLBACK)} for usage in USAGES}
    found = sum(count[FOUND] for count in counts.values())
    return {
        "images": counted.total(),
        "found": found,
        "without_a_face": counted.total() - found,
        "missing": missing,
        "counts": counts,
    }


def _title(summary: dict[str, Any]) -> str:
    policy = "kept whole" if summary["missing"] == "keep" else "dropped"
    share = summary["found"] / max(summary["images"], 1)
    return (
        f"{summary['images']:,} images: a face found in {summary['found']:,} ({share:.1%}); "
        f"{summary['without_a_face']:,} without one, {policy}"
    )


def _tiles(
    source: _Source, rows: Iterable[tuple[ManifestRow, ManifestRow]], folder: Path, summary: dict[str, Any]
) -> list[Tile]:
    """Faces from all over the set, and images without one. rows: each before and after it was aligned in `folder`."""
    places = {
        FOUND: _spread(summary["found"], SHEET_FACES),
        FALLBACK: _spread(summary["without_a_face"], SHEET_MISSES),
    }
    tiles: dict[str, list[Tile]] = {FOUND: [], FALLBACK: []}
    seen: Counter[str | None] = Counter()
    for before, row in rows:
        if row.status is not None and seen[row.status] in places[row.status]:
            tiles[row.status].append(_tile(row, source.root / before.path, folder / row.path, source.labels))
        seen[row.status] += 1
    return tiles[FOUND] + tiles[FALLBACK]


def _tile(row: ManifestRow, source: Path, aligned: Path, labels: tuple[str, ...]) -> Tile:
    face = cv2.imread(str(aligned), cv2.IMREAD_GRAYSCALE) if aligned.exists() else None
    caption = f"{row.usage} {row.row}, {labels[row.label]}: "
    if row.status == FALLBACK:
        return Tile(read_image(source), face, None, None, caption + "no face")
    box = np.array([row.left, row.top, row.right, row.bottom])
    points = [(getattr(row, f"{name}_x"), getattr(row, f"{name}_y")) for name in LANDMARKS]
    landmarks = None if points[0][0] is None else np.array(points)
    return Tile(read_image(source), face, box, landmarks, caption + f"{row.score:.3f}")


def _spread(total: int, count: int) -> Collection[int]:
    """`count` of so many places at even distances, or all when there are no more."""
    return range(total) if total <= count else {int(at) for at in np.linspace(0, total - 1, count)}
