"""The stage from images and manifest to aligned faces and manifest."""

import argparse
import hashlib
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.pictures import read_picture
from helpers.small_set import noise, write_csv

from pipeline.base.errors import InputError
from pipeline.data import ferplus, manifest
from pipeline.data.shards import Shard
from pipeline.faces.alignment import TEMPLATE, similarity
from pipeline.faces.detector import Detector, WholeImage, build_detector
from pipeline.readings import LANDMARKS
from pipeline.stages.align import Work, add_arguments, align, align_shard, gather, run
from pipeline.stages.extract import extract

SHEET = Path(__file__).parents[1] / "recorded" / "mtcnn.png"
FACES, WITHOUT = 40, 4


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of forty drawn faces and then four images of noise."""
    folder = tmp_path_factory.mktemp("align")
    sheet = read_picture(SHEET, cv2.IMREAD_GRAYSCALE)
    faces = [face for band in np.vsplit(sheet, 5) for face in np.hsplit(band, 8)]
    write_csv(folder / "fer2013.csv", np.concatenate([faces, noise(WITHOUT)]))
    extract(folder / "fer2013.csv", folder / "images")
    return folder / "images" / "manifest.csv"


@pytest.fixture(scope="module")
def detector() -> Detector:
    return build_detector("mtcnn", threads=1)


@pytest.fixture(scope="module")
def aligned(images: Path, detector: Detector) -> Path:
    align(images, images.parent.parent / "aligned", detector)
    return images.parent.parent / "aligned"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_image_comes_out_with_its_status(images: Path, aligned: Path) -> None:
    sources, rows = manifest.read(images), manifest.read(aligned / "manifest.csv")
    assert [(row.row, row.usage, row.label, row.path, row.sha256) for row in rows] == [
        (row.row, row.usage, row.label, row.path, row.sha256) for row in sources
    ]
    found = [row for row in rows if row.status == "found"]
    assert len(found) >= 0.9 * FACES
    assert {row.status for row in rows[FACES:]} == {"fallback"}
    for row in rows:
        assert read_picture(aligned / row.path, cv2.IMREAD_UNCHANGED).shape == (48, 48)
        places = [row.score, row.left, row.bottom, *(getattr(row, f"{name}_y") for name in LANDMARKS)]
        assert all((place is None) == (row.status == "fallback") for place in places)
    assert (aligned / "labels.txt").read_bytes() == images.with_name("labels.txt").read_bytes()


def test_faces_are_aligned_by_the_landmarks_in_the_manifest(images: Path, aligned: Path) -> None:
    row = next(row for row in manifest.read(aligned / "manifest.csv") if row.status == "found")
    landmarks = np.array([[getattr(row, f"{name}_x"), getattr(row, f"{name}_y")] for name in LANDMARKS])
    matrix = similarity(landmarks)
    assert np.abs(landmarks @ matrix[:, :2].T + matrix[:, 2] - TEMPLATE).max() < 6
    source = read_picture(images.parent / row.path, cv2.IMREAD_GRAYSCALE)
    wanted = cv2.warpAffine(source, matrix, (48, 48), borderMode=cv2.BORDER_REPLICATE)
    face = read_picture(aligned / row.path, cv2.IMREAD_GRAYSCALE)
    assert np.abs(face.astype(int) - wanted).mean() < 1


def test_images_without_a_face_are_kept_whole(images: Path, aligned: Path) -> None:
    for row in manifest.read(aligned / "manifest.csv")[FACES:]:
        kept, source = (read_picture(folder / row.path, cv2.IMREAD_GRAYSCALE) for folder in (aligned, images.parent))
        np.testing.assert_array_equal(kept, source)


def test_images_without_a_face_are_dropped_and_counted(images: Path, detector: Detector, tmp_path: Path) -> None:
    summary = align(images, tmp_path / "dropped", detector, missing="drop")
    rows = manifest.read(tmp_path / "dropped" / "manifest.csv")
    assert {row.status for row in rows} == {"found"}
    assert len(rows) == summary["found"] == summary["images"] - summary["without_a_face"]
    assert len(rows) <= FACES
    assert sum(path.suffix == ".png" for path in (tmp_path / "dropped").glob("*/*/*")) == len(rows)


def test_summary_counts_each_usage(aligned: Path) -> None:
    summary = json.loads((aligned / "summary.json").read_text())
    rows = manifest.read(aligned / "manifest.csv")
    for usage, counts in summary["counts"].items():
        for status, count in counts.items():
            assert count == sum(row.usage == usage and row.status == status for row in rows)
    assert summary["images"] == len(rows) == FACES + WITHOUT


def test_contact_sheet_is_a_picture(aligned: Path) -> None:
    sheet = read_picture(aligned / "contact_sheet.png")
    assert sheet.shape[1] > 1000
    assert sheet.std() > 20


def test_again_gives_the_same_files(images: Path, aligned: Path, detector: Detector, tmp_path: Path) -> None:
    align(images, tmp_path / "again", detector)
    assert tree(tmp_path / "again") == tree(aligned)


def test_batch_and_threads_change_nothing_but_roundings(
    images: Path, aligned: Path, detector: Detector, tmp_path: Path
) -> None:
    align(images, tmp_path / "other", detector, batch=7, threads=3)
    for ours, theirs in zip(
        *(manifest.read(folder / "manifest.csv") for folder in (tmp_path / "other", aligned)), strict=True
    ):
        assert (ours.row, ours.path, ours.status) == (theirs.row, theirs.path, theirs.status)
        if ours.status == "found":
            assert ours.left == pytest.approx(theirs.left, abs=0.002)
            assert ours.nose_x == pytest.approx(theirs.nose_x, abs=0.002)
        faces = [
            read_picture(folder / ours.path, cv2.IMREAD_GRAYSCALE).astype(int)
            for folder in (tmp_path / "other", aligned)
        ]
        assert np.abs(faces[0] - faces[1]).max() <= 1


def test_the_largest_face_is_the_face(detector: Detector, tmp_path: Path) -> None:
    face = read_picture(SHEET, cv2.IMREAD_GRAYSCALE)[:48, :48]
    image = np.full((240, 320), 128, np.uint8)
    image[20:68, 20:68] = face
    image[80:224, 150:294] = cv2.resize(face, (144, 144))
    write_csv(tmp_path / "fer2013.csv", noise(5))
    extract(tmp_path / "fer2013.csv", tmp_path / "images")
    row, *others = manifest.read(tmp_path / "images" / "manifest.csv")
    cv2.imwrite(str(tmp_path / "images" / row.path), image)
    row = row._replace(sha256=hashlib.sha256(image.tobytes()).hexdigest())
    manifest.write(tmp_path / "images" / "manifest.csv", [row, *others], manifest.EXTRACT_COLUMNS)
    align(tmp_path / "images" / "manifest.csv", tmp_path / "aligned", detector)
    found = manifest.read(tmp_path / "aligned" / "manifest.csv")[0]
    assert found.status == "found"
    assert found.left is not None
    assert found.left > 140


def test_without_a_detector_the_image_is_the_face(images: Path, tmp_path: Path) -> None:
    summary = align(images, tmp_path / "whole", build_detector("none"))
    assert summary["found"] == FACES + WITHOUT
    row = manifest.read(tmp_path / "whole" / "manifest.csv")[0]
    assert (row.left, row.right, row.nose_x) == (0, 47, None)
    whole, source = (read_picture(folder / row.path) for folder in (tmp_path / "whole", images.parent))
    np.testing.assert_array_equal(whole, source)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file where an image was expected"),
        (b"\x89PNG\r\n\x1a\n broken", "the beginning of an image that is damaged"),
    ],
)
def test_bad_images_are_named_and_nothing_is_written(
    content: bytes, message: str, small_manifest: Path, detector: Detector, tmp_path: Path
) -> None:
    path = small_manifest.parent / manifest.read(small_manifest)[17].path
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path.name}: {message}"):
        align(small_manifest, tmp_path / "aligned", detector)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["fer2013.csv", "images"]


def test_a_missing_image_is_named(small_manifest: Path, detector: Detector, tmp_path: Path) -> None:
    path = small_manifest.parent / manifest.read(small_manifest)[3].path
    path.unlink()
    with pytest.raises(InputError, match=f"{path.name}: cannot be read"):
        align(small_manifest, tmp_path / "aligned", detector)
    assert not (tmp_path / "aligned").exists()


def test_paths_stay_in_the_folder(small_manifest: Path, detector: Detector, tmp_path: Path) -> None:
    text = small_manifest.read_text()
    path = manifest.read(small_manifest)[0].path
    for elsewhere in ("../secret.png", "/etc/secret.png"):
        small_manifest.write_text(text.replace(path, elsewhere))
        with pytest.raises(InputError, match="leads out of the manifest's folder"):
            align(small_manifest, tmp_path / "aligned", detector)


def test_rows_that_would_overwrite_or_have_no_label_are_refused(
    small_manifest: Path, detector: Detector, tmp_path: Path
) -> None:
    text, (first, second) = small_manifest.read_text(), manifest.read(small_manifest)[:2]
    for wrong, message in (
        (text.replace(second.path, first.path.replace(".png", ".jpg")), "row 1: a second .* would replace the first"),
        (text.replace(f",{second.label},{second.path}", f",7,{second.path}"), "row 1 has label 7 where 0 to 6"),
    ):
        small_manifest.write_text(wrong)
        with pytest.raises(InputError, match=message):
            align(small_manifest, tmp_path / "aligned", detector)


def test_other_peoples_files_are_left_alone(small_manifest: Path, detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("1")
    with pytest.raises(InputError, match=r"chapter\.txt"):
        align(small_manifest, tmp_path / "thesis", detector)
    with pytest.raises(InputError, match="images, which is read, is there and would be lost"):
        align(small_manifest, small_manifest.parent, detector)
    inside = shutil.copytree(small_manifest.parent, tmp_path / "set/Training")
    before = tree(tmp_path / "set")
    with pytest.raises(InputError, match="set/Training, which is read, is there and would be lost"):
        align(inside / "manifest.csv", tmp_path / "set", detector)
    assert tree(tmp_path / "set") == before


def test_the_command_tells_the_totals(small_manifest: Path, tmp_path: Path) -> None:
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pipeline",
        "align",
        small_manifest,
        tmp_path / "aligned",
        "--missing",
        "drop",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "40 images: a face found in" in done.stderr
    assert "without one, dropped" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(("option", "value"), [("--batch", "0"), ("--threads", "-1"), ("--min-face", "0")])
def test_options_that_make_no_sense_are_refused(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["manifest.csv", str(tmp_path), option, value])
    assert f"argument {option}: {value} where at least 1 was expected" in capsys.readouterr().err


def test_faces_smaller_than_the_detectors_window_are_not_looked_for(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(InputError, match="min_face 3 where at least 12"):
        run(parser.parse_args(["manifest.csv", str(tmp_path), "--min-face", "3"]))


@pytest.mark.parametrize("missing", ["keep", "drop"])
def test_shards_together_are_what_one_run_writes(
    images: Path, detector: Detector, tmp_path: Path, missing: str
) -> None:
    """FER+'s votes, the sheet and the order included."""
    rows = manifest.read(images)
    votes = ((row.path, [row.row % 9, *[1] * 9]) for row in rows)
    ferplus.write_sidecar(images.with_name("votes.csv"), votes)
    work = Work(detector, missing, batch=8, threads=1)
    for number in (3, 1, 2):
        align_shard(images, tmp_path / str(number), Shard(number, 3), work, {"detector": "mtcnn"})
    gathered = gather(images, tmp_path / "gathered", [tmp_path / number for number in "231"])
    assert gathered == align(images, tmp_path / "whole", detector, missing=missing, batch=8)
    images.with_name("votes.csv").unlink()
    assert tree(tmp_path / "gathered") == tree(tmp_path / "whole")
    assert "votes.csv" in tree(tmp_path / "gathered")


def test_shards_of_other_images_or_too_few_are_refused(small_manifest: Path, tmp_path: Path) -> None:
    work = Work(WholeImage(), "keep", batch=8, threads=1)
    shards = [tmp_path / "1", tmp_path / "2"]
    for number, folder in enumerate(shards, 1):
        align_shard(small_manifest, folder, Shard(number, 2), work, {})
    with pytest.raises(InputError, match="shard 2/2 is missing"):
        gather(small_manifest, tmp_path / "aligned", shards[:1])
    with pytest.raises(InputError, match="shard 1/2 again, after"):
        gather(small_manifest, tmp_path / "aligned", [*shards, shards[0]])
    first, *others = manifest.read(small_manifest)
    for rows, where in (([*others, first], "row 1"), (others, "row 1"), ([first, *others[:-1]], "the end")):
        manifest.write(small_manifest, rows, manifest.EXTRACT_COLUMNS)
        with pytest.raises(InputError, match=rf"manifest\.csv: {where} where the shards have another image"):
            gather(small_manifest, tmp_path / "aligned", shards)
    assert not (tmp_path / "aligned").exists()


@pytest.mark.parametrize("policy", [None, "perhaps"])
def test_shards_that_do_not_say_what_became_of_misses_are_refused(
    small_manifest: Path, tmp_path: Path, policy: str | None
) -> None:
    work = Work(WholeImage(), "keep", batch=8, threads=1)
    align_shard(small_manifest, tmp_path / "one", Shard(1, 1), work, {})
    note = json.loads((tmp_path / "one/shard.json").read_text()) | {"missing": policy}
    (tmp_path / "one/shard.json").write_text(json.dumps(note))
    with pytest.raises(InputError, match=r"one/shard\.json: missing .* where keep or drop was expected"):
        gather(small_manifest, tmp_path / "aligned", [tmp_path / "one"])


def test_the_command_aligns_shards_and_gathers_them(small_manifest: Path, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for number in "12":
        words = ("--detector", "none", "--shard", f"{number}/2", "--batch", "16")
        run(parser.parse_args([str(small_manifest), str(tmp_path / number), *words]))
    run(
        parser.parse_args([str(small_manifest), str(tmp_path / "both"), "--gather", *(str(tmp_path / n) for n in "12")])
    )
    align(small_manifest, tmp_path / "whole", build_detector("none"), batch=16)
    assert tree(tmp_path / "both") == tree(tmp_path / "whole")


def test_a_full_disk_is_said_of_the_output(small_manifest: Path, tmp_path: Path) -> None:
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pipeline",
        "align",
        small_manifest,
        tmp_path / "aligned",
        "--detector",
        "none",
    ]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # noqa: E731
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"error: {tmp_path / 'aligned'}: File too large"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fer2013.csv", "images"]
