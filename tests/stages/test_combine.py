"""combine: one manifest of whole images and aligned faces."""

from pathlib import Path

import pytest
from helpers.small_set import noise, write_csv

from pipeline.base.errors import InputError
from pipeline.data import manifest
from pipeline.stages.combine import combine
from pipeline.stages.extract import extract
from pipeline.stages.lmdb import lmdb


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """`images` and, as align would write it, `aligned`, where the face was found in every second image."""
    write_csv(tmp_path / "fer2013.csv", noise(20))
    for name in ("images", "aligned"):
        extract(tmp_path / "fer2013.csv", tmp_path / name)
    path = tmp_path / "aligned/manifest.csv"
    rows = [row._replace(status="found" if row.row % 2 else "fallback") for row in manifest.read(path)]
    manifest.write(path, rows, manifest.COLUMNS)
    return tmp_path


def test_found_training_faces_join_the_whole_images(folders: Path) -> None:
    combine(folders / "images/manifest.csv", folders / "aligned/manifest.csv", folders / "both")
    rows = manifest.read(folders / "both/manifest.csv")
    assert [row.path.split("/")[1] for row in rows[:20]] == ["images"] * 20
    assert all(row.usage == "Training" and row.row % 2 and row.path.startswith("../aligned/") for row in rows[20:])
    assert len(rows) == 20 + sum(row.usage == "Training" and row.row % 2 for row in rows[:20])
    lmdb(folders / "both/manifest.csv", folders / "databases", "kaggle", 1)
    assert len((folders / "databases/train.txt").read_text().splitlines()) == len(
        [row for row in rows if row.usage == "Training"]
    )


def test_two_sets_are_refused(folders: Path) -> None:
    path = folders / "aligned/manifest.csv"
    rows = manifest.read(path)
    manifest.write(path, [rows[0]._replace(sha256="0" * 64), *rows[1:]], manifest.COLUMNS)
    with pytest.raises(InputError, match="row 0 is another image than in"):
        combine(folders / "images/manifest.csv", path, folders / "both")
    manifest.write_labels(folders / "aligned/labels.txt", ("a", "b"))
    with pytest.raises(InputError, match="a, b where angry"):
        combine(folders / "images/manifest.csv", path, folders / "both")
    assert not (folders / "both").exists()
