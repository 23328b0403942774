"""extract, from the CSV to images that hold the same pixels."""

import csv
import hashlib
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.pictures import read_picture
from helpers.small_set import noise, pixels_text, read_only, write_csv

from pipeline.base.errors import InputError
from pipeline.caffe.database import DatabaseReader
from pipeline.data import ferplus, manifest
from pipeline.data.labels import KNOWN_COUNTS, LABELS
from pipeline.data.shards import Shard
from pipeline.faces.detector import Detections, WholeImage
from pipeline.stages.align import align
from pipeline.stages.extract import extract, extract_shard
from pipeline.stages.lmdb import lmdb


def test_images_hold_the_pixels_of_their_rows(small_csv: Path, tmp_path: Path) -> None:
    summary = extract(small_csv, tmp_path / "images")
    rows = manifest.read(tmp_path / "images/manifest.csv")
    assert [row.row for row in rows] == list(range(40))
    for row, pixels in zip(rows, noise(40), strict=True):
        assert row.path == f"{row.usage}/{LABELS[row.label]}/{row.row:05d}.png"
        np.testing.assert_array_equal(read_picture(tmp_path / "images" / row.path, cv2.IMREAD_UNCHANGED), pixels)
        assert row.sha256 == hashlib.sha256(pixels).hexdigest()
    assert manifest.read_labels(tmp_path / "images/labels.txt") == LABELS
    assert json.loads((tmp_path / "images/summary.json").read_text()) == summary
    assert {usage: sum(counts.values()) for usage, counts in summary["counts"].items()} == {
        "Training": 24,
        "PublicTest": 8,
        "PrivateTest": 8,
    }


@pytest.mark.parametrize("output", [".", ".."])
def test_class_folders_are_not_replaced_by_what_is_made_of_them(
    small_manifest: Path, tmp_path: Path, output: str
) -> None:
    """Though the folders in them have the very names that extract gives its own."""
    faces = tmp_path / "set/Training"
    for usage in ("Training", "PublicTest"):
        shutil.copytree(small_manifest.parent / usage, faces / usage)
    with pytest.raises(InputError, match=r"which is read, is there and would be lost; .*nothing was written"):
        extract(faces, faces / output)
    assert sorted(path.name for path in faces.iterdir()) == ["PublicTest", "Training"]


def test_takes_class_folders_such_as_its_own(small_manifest: Path, tmp_path: Path) -> None:
    extract(small_manifest.parent, tmp_path / "again")
    before, after = manifest.read(small_manifest), manifest.read(tmp_path / "again/manifest.csv")
    assert {(row.label, row.sha256) for row in after} == {(row.label, row.sha256) for row in before}
    assert len(after) == 40


def test_counts_duplicates(tmp_path: Path) -> None:
    a, b, c = noise(3)
    table = [
        (a, "angry", "Training"),
        (a, "fear", "Training"),
        (a, "angry", "PublicTest"),
        (b, "sad", "Training"),
        (b, "sad", "PrivateTest"),
        (b, "sad", "PrivateTest"),
        (c, "sad", "PrivateTest"),
    ]
    lines = [f"{LABELS.index(label)},{pixels_text(image)},{usage}" for image, label, usage in table]
    (tmp_path / "faces.csv").write_text("\n".join(["emotion,pixels,Usage", *lines]))
    assert extract(tmp_path / "faces.csv", tmp_path / "images")["duplicates"] == {
        "within": {"Training": 1, "PublicTest": 0, "PrivateTest": 1},
        "across": {"PublicTest in Training": 1, "PrivateTest in Training": 2, "PrivateTest in PublicTest": 0},
        "disagreeing": 1,
        "disagreeing_copies": 3,
    }


def test_labels_by_votes(small_csv: Path, tmp_path: Path) -> None:
    usages = [row.usage for row in _rows(small_csv, tmp_path)]
    votes = tmp_path / "fer2013new.csv"
    lines = [
        f"{usage},{row}.png," + ("0,10,0,0,0,0,0,0,0,0" if row % 2 else "5,5,0,0,0,0,0,0,0,0")
        for row, usage in enumerate(usages)
    ]
    votes.write_text("\n".join([",".join(ferplus.COLUMNS), *lines]))
    summary = extract(small_csv, tmp_path / "images", votes)
    rows = manifest.read(tmp_path / "images/manifest.csv")
    assert [row.row for row in rows] == list(range(1, 40, 2))
    assert {row.label for row in rows} == {1}
    assert summary["dropped"] == {"no majority": 20}
    assert manifest.read_labels(tmp_path / "images/labels.txt") == ferplus.LABELS
    votes.write_text("\n".join([",".join(ferplus.COLUMNS), *lines, "Training,40.png,0,10,0,0,0,0,0,0,0,0"]))
    with pytest.raises(InputError, match=r"votes for 41 images where .* has fewer"):
        extract(small_csv, tmp_path / "images", votes)


def test_votes_follow_their_images_into_every_stage(small_csv: Path, tmp_path: Path) -> None:
    usages = [row.usage for row in _rows(small_csv, tmp_path)]
    ballots = [[9 - row % 9, row % 9, 0, 0, 0, 0, 0, 0, 1, 0] for row in range(40)]
    votes = tmp_path / "fer2013new.csv"
    lines = [f"{usage},{row}.png,{','.join(map(str, ballots[row]))}" for row, usage in enumerate(usages)]
    votes.write_text("\n".join([",".join(ferplus.COLUMNS), *lines]))
    assert extract(small_csv, tmp_path / "images", votes, labels="fer2013")["dropped"] == {}
    align(tmp_path / "images/manifest.csv", tmp_path / "aligned", WholeImage())
    for folder in (tmp_path / "images", tmp_path / "aligned"):
        rows = manifest.read(folder / "manifest.csv")
        assert [row.label for row in rows] == [row % 7 for row in range(40)]  # the CSV's own
        lmdb(folder / "manifest.csv", tmp_path / "databases", "kaggle", seed=1)
        row_of = {row.path: row.row for row in rows}
        for part, count in (("train", 24), ("val", 8), ("test", 8)):
            with open(tmp_path / f"databases/{part}_votes.csv", newline="") as file:
                _, *lines_of_part = csv.reader(file)
            with DatabaseReader(tmp_path / f"databases/{part}_lmdb") as database:
                keys = [key.decode() for key, _ in database]
            assert keys == [f"{number:08d}_{path}" for number, (path, *_) in enumerate(lines_of_part)]
            assert [list(map(int, found)) for _, *found in lines_of_part] == [
                ballots[row_of[path]] for path, *_ in lines_of_part
            ]
            assert len(keys) == count


def test_dropped_faces_take_their_votes_with_them(small_csv: Path, tmp_path: Path) -> None:
    usages = [row.usage for row in _rows(small_csv, tmp_path)]
    votes = tmp_path / "fer2013new.csv"
    lines = [f"{usage},{row}.png,{row + 1},0,0,0,0,0,0,0,0,0" for row, usage in enumerate(usages)]
    votes.write_text("\n".join([",".join(ferplus.COLUMNS), *lines]))
    extract(small_csv, tmp_path / "images", votes)
    every_third = iter(range(40))

    class InTwoOfThree(WholeImage):
        def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
            found = super().detect(images)
            return [faces if next(every_third) % 3 else Detections.none() for faces in found]

    align(tmp_path / "images/manifest.csv", tmp_path / "aligned", InTwoOfThree(), missing="drop", threads=1)
    rows = manifest.read(tmp_path / "aligned/manifest.csv")
    found = ferplus.read_sidecar(tmp_path / "aligned/votes.csv", [row.path for row in rows])
    assert found is not None
    assert len(rows) == 26
    assert found[:, ferplus.CHOICES.index("neutral")].tolist() == [row.row + 1 for row in rows]


def test_takes_a_part_of_the_classes_under_new_names(small_csv: Path, tmp_path: Path) -> None:
    names = {"happy": "Glad", "sad": "Sad & low"}
    summary = extract(small_csv, tmp_path / "images", classes=["sad & low", "neutral", "glad"], class_names=names)
    rows = manifest.read(tmp_path / "images/manifest.csv")
    assert manifest.read_labels(tmp_path / "images/labels.txt") == ("Sad & low", "neutral", "Glad")
    assert {row.row: row.label for row in rows} == {
        row: {4: 0, 6: 1, 3: 2}[row % 7] for row in range(40) if row % 7 in (3, 4, 6)
    }
    assert summary["dropped"] == {"of other classes": 40 - len(rows)}


def test_classes_are_taken_of_what_the_votes_say(small_csv: Path, tmp_path: Path) -> None:
    usages = [row.usage for row in _rows(small_csv, tmp_path)]
    votes = tmp_path / "fer2013new.csv"
    ballots = ("0,10,0,0,0,0,0,0,0,0", "10,0,0,0,0,0,0,0,0,0", "0,0,0,0,0,0,0,10,0,0", "0,0,0,0,0,0,0,0,0,10")
    lines = [f"{usage},{row}.png,{ballots[row % 4]}" for row, usage in enumerate(usages)]
    votes.write_text("\n".join([",".join(ferplus.COLUMNS), *lines]))
    summary = extract(
        small_csv, tmp_path / "images", votes, classes=["happy", "neutral"], class_names={"happiness": "happy"}
    )
    assert {row.row % 4: row.label for row in manifest.read(tmp_path / "images/manifest.csv")} == {0: 0, 1: 1}
    assert summary["dropped"] == {"of other classes": 10, "NF": 10}


def test_a_class_that_is_asked_for_and_has_no_image_is_an_error(tmp_path: Path) -> None:
    write_csv(tmp_path / "fer2013.csv", noise(5))
    with pytest.raises(InputError, match=r"class surprise has no image to train on; .*nothing was written"):
        extract(tmp_path / "fer2013.csv", tmp_path / "images", classes=["angry", "surprise"])
    assert not (tmp_path / "images").exists()


def _rows(source: Path, folder: Path) -> list[manifest.ManifestRow]:
    extract(source, folder / "rows")
    return manifest.read(folder / "rows/manifest.csv")


def test_a_wrong_line_leaves_nothing_and_the_earlier_output(small_csv: Path, tmp_path: Path) -> None:
    text = small_csv.read_text()
    small_csv.write_text(text.replace(",PrivateTest\n", ",Test\n"))
    with pytest.raises(InputError, match=r"fer2013\.csv:6: Usage 'Test' where .*; nothing was written$"):
        extract(small_csv, tmp_path / "images")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fer2013.csv"]

    small_csv.write_text(text)
    extract(small_csv, tmp_path / "images")
    before = (tmp_path / "images/manifest.csv").read_bytes()
    small_csv.write_text(text[:-2000])
    with pytest.raises(InputError, match="2 fields where 3 were expected"):
        extract(small_csv, tmp_path / "images")
    assert (tmp_path / "images/manifest.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fer2013.csv", "images"]


def test_replaces_its_own_output_only(small_csv: Path, tmp_path: Path) -> None:
    extract(small_csv, tmp_path / "images")
    write_csv(small_csv, noise(10))
    extract(small_csv, tmp_path / "images")
    assert len(list((tmp_path / "images").rglob("*.png"))) == 10
    with pytest.raises(InputError, match="holds other files"):
        extract(small_csv, tmp_path)
    assert small_csv.exists()


def test_the_command_tells_counts_and_a_fault_in_one_line(small_csv: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "extract", str(small_csv), str(tmp_path / "images")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Training: 24 images (angry 4, " in done.stderr
    assert f"Training: the published FER2013 has {sum(KNOWN_COUNTS['Training'])} (angry 3995, " in done.stderr
    small_csv.write_text("emotion,pixels\n")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {small_csv}:1: column Usage is missing")
    assert "Traceback" not in done.stderr


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_shards_together_are_what_one_run_writes(tmp_path: Path) -> None:
    """Rows, votes, and what is dropped in the order in which it first was."""
    write_csv(tmp_path / "fer2013.csv", noise(150))
    usages = [row.usage for row in _rows(tmp_path / "fer2013.csv", tmp_path)]
    votes = tmp_path / "fer2013new.csv"
    ballots = ("5,5,0,0,0,0,0,0,0,0", "0,10,0,0,0,0,0,0,0,0", "10,0,0,0,0,0,0,0,0,0", "0,0,0,0,0,0,0,0,0,10")
    lines = [f"{usage},{row}.png,{ballots[(row // 40 + row % 3) % 4]}" for row, usage in enumerate(usages)]
    votes.write_text("\n".join([",".join(ferplus.COLUMNS), *lines]))
    source, classes = tmp_path / "fer2013.csv", ["neutral", "happiness"]
    folders = [tmp_path / "shards" / str(number) for number in (1, 2, 3)]
    for number, folder in enumerate(folders, 1):
        extract_shard(source, folder, votes, shard=Shard(number, 3), classes=classes)
    summary = extract(source, tmp_path / "gathered", votes, classes=classes, shards=folders[::-1])
    assert summary == extract(source, tmp_path / "whole", votes, classes=classes)
    assert len(summary["dropped"]) == 2
    assert tree(tmp_path / "gathered") == tree(tmp_path / "whole")
    with pytest.raises(InputError, match=r"shard 2/3 is missing .*nothing was written"):
        extract(source, tmp_path / "again", votes, classes=classes, shards=[folders[0], folders[2]])
    with pytest.raises(InputError, match="shard 1/3 again, after"):
        extract(source, tmp_path / "again", votes, classes=classes, shards=[*folders, folders[0]])
    with pytest.raises(InputError, match="make the shards with the same options"):
        extract(source, tmp_path / "again", votes, classes=classes[::-1], shards=folders)
    assert not (tmp_path / "again").exists()


def test_a_full_disk_leaves_the_earlier_output(small_csv: Path, tmp_path: Path) -> None:
    extract(small_csv, tmp_path / "images")
    before = (tmp_path / "images/summary.json").read_bytes()
    command = [sys.executable, "-m", "pipeline", "extract", str(small_csv), str(tmp_path / "images")]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # noqa: E731
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"error: {tmp_path / 'images'}: File too large"
    assert (tmp_path / "images/summary.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fer2013.csv", "images"]


def test_a_read_only_output_is_named(open_folder: Path) -> None:
    write_csv(open_folder / "fer2013.csv", noise(5))
    with read_only(open_folder), pytest.raises(PermissionError, match=str(open_folder)):
        extract(open_folder / "fer2013.csv", open_folder / "images")
    assert [path.name for path in open_folder.iterdir()] == ["fer2013.csv"]
