"""lmdb, compared with what real Caffe's convert_imageset wrote for the same lists."""

import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.record_databases import RECORDED
from helpers.small_set import noise, read_only, write_csv

from pipeline.base.errors import InputError
from pipeline.caffe.database import DatabaseReader, datum_to_array
from pipeline.data import ferplus, manifest
from pipeline.data.shards import Shard
from pipeline.faces.detector import build_detector
from pipeline.stages.align import align
from pipeline.stages.extract import extract
from pipeline.stages.lmdb import lmdb, lmdb_shard


@pytest.mark.skipif(os.sysconf("SC_PAGE_SIZE") != 4096, reason="Caffe's answer was recorded with pages of 4096 bytes")
def test_databases_equal_real_caffes_to_the_byte(recorded_set: Path) -> None:
    recorded = json.loads((RECORDED / "databases.json").read_text())
    for name in ("train_lmdb/data.mdb", "val_lmdb/data.mdb", "test_lmdb/data.mdb"):
        assert hashlib.sha256((recorded_set / "kaggle" / name).read_bytes()).hexdigest() == recorded[name], name


def test_databases_and_lists_hold_the_images_of_their_usages(small_manifest: Path, tmp_path: Path) -> None:
    lmdb(small_manifest, tmp_path / "kaggle", "kaggle", seed=1)
    rows = {row.path: row for row in manifest.read(small_manifest)}
    for part, usage in (("train", "Training"), ("val", "PublicTest"), ("test", "PrivateTest")):
        lines = [line.rsplit(" ", 1) for line in (tmp_path / f"kaggle/{part}.txt").read_text().splitlines()]
        assert sorted(path for path, _ in lines) == sorted(row.path for row in rows.values() if row.usage == usage)
        with DatabaseReader(tmp_path / f"kaggle/{part}_lmdb") as database:
            for number, ((path, label), (key, datum)) in enumerate(zip(lines, database, strict=True)):
                assert key == f"{number:08d}_{path}".encode()
                assert datum.label == int(label) == rows[path].label
                np.testing.assert_array_equal(datum_to_array(datum, path)[0], noise(40)[rows[path].row])
    assert (tmp_path / "kaggle/labels.txt").read_bytes() == small_manifest.with_name("labels.txt").read_bytes()


def test_an_image_that_is_another_than_extract_wrote_is_named(small_manifest: Path, tmp_path: Path) -> None:
    """Of the right size and readable, as what a failing disk or a sorted-out folder may hold."""
    row = next(row for row in manifest.read(small_manifest) if row.usage == "PublicTest")
    path = small_manifest.parent / row.path
    cv2.imwrite(str(path), noise(40)[row.row] ^ np.uint8(1))
    said = rf"{row.path}: other pixels than those whose sha256 is in manifest\.csv; make it again with extract"
    with pytest.raises(InputError, match=said):
        lmdb(small_manifest, tmp_path / "kaggle", "kaggle", seed=1)
    with pytest.raises(InputError, match=said):
        align(small_manifest, tmp_path / "aligned", build_detector("none"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fer2013.csv", "images"]


def test_order_is_the_seeds(small_manifest: Path, tmp_path: Path) -> None:
    lists = []
    for seed in (1, 1, 2):
        lmdb(small_manifest, tmp_path / "kaggle", "kaggle", seed)
        lists.append((tmp_path / "kaggle/train.txt").read_text())
    assert lists[0] == lists[1] != lists[2]
    assert sorted(lists[0].splitlines()) == sorted(lists[2].splitlines()) != lists[0].splitlines()


def test_merged_trains_on_public_test_too(small_manifest: Path, tmp_path: Path) -> None:
    lmdb(small_manifest, tmp_path / "merged", "merged", seed=1)
    sizes = {}
    for part in ("train", "val", "test"):
        with DatabaseReader(tmp_path / f"merged/{part}_lmdb") as database:
            sizes[part] = len(database)
    assert sizes == {"train": 32, "val": 0, "test": 8}


@pytest.mark.parametrize(
    ("usages", "protocol", "missing"),
    [
        (("Training", "PublicTest"), "kaggle", None),
        (("Training", "PrivateTest"), "kaggle", "PublicTest"),
        (("PublicTest", "PrivateTest"), "kaggle", "Training"),
        (("Training", "PrivateTest"), "merged", None),
        (("Training", "PublicTest"), "merged", "PrivateTest"),
    ],
)
def test_the_usages_a_protocol_needs(
    tmp_path: Path, usages: tuple[str, ...], protocol: str, missing: str | None
) -> None:
    write_csv(tmp_path / "fer2013.csv", noise(10), usages)
    extract(tmp_path / "fer2013.csv", tmp_path / "images")
    if missing is None:
        lmdb(tmp_path / "images/manifest.csv", tmp_path / "out", protocol, seed=1)
        assert (tmp_path / "out/test_lmdb/data.mdb").exists()
    else:
        with pytest.raises(InputError, match=rf"manifest\.csv: no {missing} images, which protocol {protocol} needs"):
            lmdb(tmp_path / "images/manifest.csv", tmp_path / "out", protocol, seed=1)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda image: image.write_bytes(b""), InputError, "png: not a readable image"),
        (lambda image: image.write_bytes(b"text"), InputError, "png: not a readable image"),
        (lambda image: image.unlink(), FileNotFoundError, "No such file or directory: .*png"),
        (
            lambda image: cv2.imwrite(str(image), np.zeros((48, 40), np.uint8)),
            InputError,
            "png: 48x40 pixels where 48x48 as in the first image were expected",
        ),
    ],
)
def test_names_the_image_that_cannot_be_used(
    small_manifest: Path, tmp_path: Path, change: Callable[[Path], object], error: type[Exception], message: str
) -> None:
    lmdb(small_manifest, tmp_path / "kaggle", "kaggle", seed=1)
    before = (tmp_path / "kaggle/train.txt").read_bytes()
    change(small_manifest.parent / before.splitlines()[20].decode().split(" ")[0])
    with pytest.raises(error, match=message):
        lmdb(small_manifest, tmp_path / "kaggle", "kaggle", seed=2)
    assert (tmp_path / "kaggle/train.txt").read_bytes() == before
    assert not list(tmp_path.glob(".kaggle*"))


def test_refuses_a_label_without_a_class(small_manifest: Path, tmp_path: Path) -> None:
    small_manifest.with_name("labels.txt").write_text("happy\nsad\n")
    with pytest.raises(InputError, match=r"row 2 has label 2 where 0 to 1 as in labels\.txt was expected"):
        lmdb(small_manifest, tmp_path / "kaggle", "kaggle", seed=1)


def test_replaces_its_own_output_only(small_manifest: Path) -> None:
    with pytest.raises(InputError, match="holds other files"):
        lmdb(small_manifest, small_manifest.parent, "kaggle", seed=1)
    assert small_manifest.exists()


def test_a_full_disk_leaves_the_earlier_databases(small_manifest: Path, tmp_path: Path) -> None:
    output = tmp_path / "kaggle"
    lmdb(small_manifest, output, "kaggle", seed=1)
    before = (output / "train_lmdb/data.mdb").read_bytes()
    command = [sys.executable, "-m", "pipeline", "lmdb", str(small_manifest), str(output), "--seed", "2"]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))  # noqa: E731
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path}")
    assert "train_lmdb: mdb_txn_commit: " in done.stderr
    assert done.stderr.endswith("; is the disk full, or the folder read-only?\n")
    assert (output / "train_lmdb/data.mdb").read_bytes() == before
    assert not list(tmp_path.glob(".kaggle*"))


def test_a_read_only_output_is_named(open_folder: Path) -> None:
    write_csv(open_folder / "fer2013.csv", noise(10))
    extract(open_folder / "fer2013.csv", open_folder / "images")
    with read_only(open_folder), pytest.raises(PermissionError, match=str(open_folder)):
        lmdb(open_folder / "images/manifest.csv", open_folder / "kaggle", "kaggle", seed=1)
    assert not (open_folder / "kaggle").exists()


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_shards_together_are_what_one_run_writes(tmp_path: Path) -> None:
    """Over two commits, whose places decide how LMDB lays out its pages; of val and test the first shard is empty."""
    write_csv(tmp_path / "fer2013.csv", noise(2100))
    extract(tmp_path / "fer2013.csv", tmp_path / "images")
    images = tmp_path / "images/manifest.csv"
    rows = manifest.read(images)
    ferplus.write_sidecar(images.with_name("votes.csv"), ((row.path, [row.row % 9, *[1] * 9]) for row in rows))
    shards = [tmp_path / "shards" / number for number in "123"]
    for number, folder in enumerate(shards, 1):
        lmdb_shard(images, folder, "kaggle", 3, shard=Shard(number, 3))
    lmdb(images, tmp_path / "gathered", "kaggle", 3, shards=shards[::-1])
    lmdb(images, tmp_path / "whole", "kaggle", 3)
    assert tree(tmp_path / "gathered") == tree(tmp_path / "whole")
    with pytest.raises(InputError, match="shard 2/3 is missing"):
        lmdb(images, tmp_path / "again", "kaggle", 3, shards=[shards[0], shards[2]])
    with pytest.raises(InputError, match="make the shards with the same options, of the same files"):
        lmdb(images, tmp_path / "again", "kaggle", 4, shards=shards)
    assert not (tmp_path / "again").exists()


def test_shards_of_images_that_differ_in_size_are_refused(small_manifest: Path, tmp_path: Path) -> None:
    rows = manifest.read(small_manifest)
    manifest.write(small_manifest, (row._replace(status="found") for row in rows), manifest.COLUMNS)
    shards = [tmp_path / number for number in "12"]
    lmdb_shard(small_manifest, shards[0], "kaggle", 1, shard=Shard(1, 2))
    for row in rows:
        cv2.imwrite(str(small_manifest.parent / row.path), np.zeros((48, 40), np.uint8))
    lmdb_shard(small_manifest, shards[1], "kaggle", 1, shard=Shard(2, 2))
    with pytest.raises(InputError, match=r"48x40 pixels where 48x48 as in .* were expected; align the images"):
        lmdb(small_manifest, tmp_path / "kaggle", "kaggle", 1, shards=shards)
