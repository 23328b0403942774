"""manifest.csv row by row, and by the places of its rows; duplicates among them."""

import hashlib
from array import array
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from pipeline.data import manifest
from pipeline.data.duplicates import Duplicates
from pipeline.data.manifest import ManifestRow

HEADER = "row,usage,label,path,sha256\n"
GOOD = "0,Training,1,a.png,0\n"
ALIGNED = ",".join(manifest.COLUMNS) + "\n"


def rows() -> list[ManifestRow]:
    """Paths that CSV quotes, and one of more bytes than letters."""
    paths = ("a.png", 'a, "b".png', "two\nlines.png", "größer.png", "last.png")
    return [ManifestRow(row, "Training", row, path, "0" * 64) for row, path in enumerate(paths)]


def test_rows_are_read_by_their_places(tmp_path: Path) -> None:
    path, ends = tmp_path / "manifest.csv", array("q")
    assert manifest.write(path, iter(rows()), manifest.EXTRACT_COLUMNS) == 5
    assert list(manifest.stream(path, ends)) == rows()
    order = [3, 0, 4, 2, 1, 3]
    assert list(manifest.read_at(path, ends, order)) == [rows()[number] for number in order]


def test_rows_come_before_the_fault_that_follows_them(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    manifest.write(path, rows(), manifest.EXTRACT_COLUMNS)
    with open(path, "ab") as file:
        file.write(b"5,Training,1,\xff.png,0\n")
    stream = manifest.stream(path)
    assert [next(stream) for _ in range(5)] == rows()
    with pytest.raises(manifest.ManifestError, match=r"manifest\.csv:8: byte 0xff, which is not UTF-8; make it again"):
        next(stream)


def test_numbers_are_exact_where_they_must_be(tmp_path: Path) -> None:
    row = ManifestRow(0, "Training", 1, "a.png", "0" * 64, "found", 1 / 3, 0.1 + 0.2, 5.0)
    for exact in (False, True):
        manifest.write(tmp_path / "manifest.csv", [row], manifest.COLUMNS, exact=exact)
        assert (manifest.read(tmp_path / "manifest.csv") == [row]) == exact


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ManifestRow(0, "Training", 0, ".", "0" * 64), r":2: path '\.' where an image's was expected"),
        (ManifestRow(0, "Training", 0, "a.png", "0" * 64, "maybe"), ":2: status 'maybe' where found, fallback or noth"),
        (ManifestRow(0, "Training", 0, "a.png", "0" * 64, "found", float("nan")), ":2: nan,.* where finite numbers"),
    ],
)
def test_a_row_that_says_nothing_is_named(tmp_path: Path, row: ManifestRow, message: str) -> None:
    path = tmp_path / "manifest.csv"
    manifest.write(path, [row], manifest.COLUMNS)
    with pytest.raises(manifest.ManifestError, match=rf"manifest\.csv{message}.*; make it again"):
        manifest.read(path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", ":1: no columns where row,usage,label,path,sha256 and alignment's were expected; make it again with"),
        ("row,usage,label,path\n", ":1: columns row,usage,label,path where row,usage"),
        (HEADER + "0,Training,1,a.png\n", ":2: 4 fields where 5 were expected; make it again with extract or align$"),
        (HEADER + "0,Training,1,a.png,0,found\n", ":2: 6 fields where 5"),
        (HEADER + GOOD + "1,Test,1,b.png,0\n", ":3: usage 'Test' where one of Training, PublicTest, PrivateTest was"),
        (HEADER + GOOD + GOOD + "2,Training,1,,0\n", ":4: path '' where an image's was expected"),
        (HEADER + "0,Training,1,a\0.png,0\n", ":2: "),
        (HEADER + "first,Training,1,a.png,0\n", ":2: row 'first' where a whole number was expected"),
        (HEADER + "0,Training,happy,a.png,0\n", ":2: label 'happy' where a whole number was"),
        (HEADER + "0,Training,-1,a.png,0\n", ":2: label '-1' where a whole number"),
        (HEADER + "1_0,Training,1,a.png,0\n", ":2: row '1_0' where a whole number"),
        (HEADER + '0,Training,1,"a.png,0\n', ":2: unexpected end of data; make it again"),
        (ALIGNED + "0,Training,1,a.png,0,found,high" + 14 * ",1" + "\n", ":2: .*'high'"),
        (ALIGNED + GOOD, ":2: 5 fields where 21 were expected"),
    ],
)
def test_a_row_that_is_none_is_named_by_its_line(rows: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(rows)
    with pytest.raises(manifest.ManifestError, match=message):
        manifest.read(path)


def test_what_alignment_did_not_find_comes_back_as_nothing(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    rows = [
        ManifestRow(3, "PublicTest", 2, "3.png", "a" * 64, "found", *map(float, range(15))),
        ManifestRow(4, "PrivateTest", 0, "4.png", "b" * 64, "fallback"),
    ]
    manifest.write(path, rows, manifest.COLUMNS)
    assert manifest.read(path) == rows


def test_a_rounded_number_has_three_digits(tmp_path: Path) -> None:
    row = ManifestRow(0, "Training", 1, "a.png", "0" * 64, "found", 1 / 3, 2.0, 12.34567)
    manifest.write(tmp_path / "manifest.csv", [row], manifest.COLUMNS)
    assert (tmp_path / "manifest.csv").read_text().endswith(f",{'0' * 64},found,0.333,2.000,12.346{12 * ','}\n")


def test_labels_come_back_in_their_order(tmp_path: Path) -> None:
    manifest.write_labels(tmp_path / "labels.txt", ["surprise", "angry", "größer"])
    assert (tmp_path / "labels.txt").read_bytes() == "surprise\nangry\ngrößer\n".encode()
    assert manifest.read_labels(tmp_path / "labels.txt") == ("surprise", "angry", "größer")


@pytest.mark.parametrize("text", ["\ufeffhappy\nsad\n", "happy\nsad", "happy\r\nsad\r\n", "happy\r\nsad"])
def test_labels_may_be_written_by_hand(text: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(text.encode())
    assert manifest.read_labels(tmp_path / "labels.txt") == ("happy", "sad")


def test_labels_that_are_not_utf_8_are_named_by_their_line(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes("glücklich\ntraurig\nwütend\n".encode("latin-1"))
    with pytest.raises(manifest.ManifestError, match=r"labels\.txt:1: byte 0xfc, .*; make it again with extract$"):
        manifest.read_labels(tmp_path / "labels.txt")


def test_a_manifest_of_no_images_has_a_header_and_no_rows(tmp_path: Path) -> None:
    assert manifest.write(tmp_path / "manifest.csv", [], manifest.EXTRACT_COLUMNS) == 0
    assert (tmp_path / "manifest.csv").read_bytes() == HEADER.encode()
    assert manifest.read(tmp_path / "manifest.csv") == []


@pytest.mark.parametrize("text", ["", "\n", "happy\n\nsad\n", "happy\nsad\nhappy\n", "happy\nsad\0\n"])
def test_labels_that_are_none_or_repeat_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text(text)
    with pytest.raises(manifest.ManifestError, match=r"labels\.txt: one distinct class name of .* with extract$"):
        manifest.read_labels(tmp_path / "labels.txt")


def test_pixels_are_compared_with_the_hash_of_a_source_and_not_of_an_aligned_image() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    row = ManifestRow(0, "Training", 1, "a.png", hashlib.sha256(image.tobytes()).hexdigest())
    manifest.check_pixels(row, image, "a.png")
    manifest.check_pixels(row._replace(status="found"), image + 1, "a.png")
    with pytest.raises(manifest.ManifestError, match=r"^a\.png: other pixels than those whose sha256 is in "):
        manifest.check_pixels(row, image + 1, "a.png")


def test_no_images_have_no_duplicates() -> None:
    assert set(Duplicates().count()["within"].values()) == {0}


def test_duplicates_are_counted_as_by_comparing_all() -> None:
    table = [(number * number % 23, usage, number % 3) for number, usage in product(range(40), manifest.USAGES[1:])]
    table += [(number, "Training", 0) for number in range(0, 30, 2)]
    counter = Duplicates()
    for image, usage, label in table:
        counter.add(ManifestRow(0, usage, label, "", hashlib.sha256(bytes([image])).hexdigest()))
    copies: dict[int, list[tuple[str, int]]] = {}
    for image, usage, label in table:
        copies.setdefault(image, []).append((usage, label))
    usages = {image: [usage for usage, _ in of_image] for image, of_image in copies.items()}
    mixed = [of_image for of_image in copies.values() if len({label for _, label in of_image}) > 1]
    count = counter.count()
    for usage in manifest.USAGES:
        assert count["within"][usage] == sum(max(each.count(usage) - 1, 0) for each in usages.values())
    assert count["across"]["PublicTest in Training"] == sum(
        each.count("PublicTest") for each in usages.values() if "Training" in each
    )
    assert (count["disagreeing"], count["disagreeing_copies"]) == (len(mixed), sum(map(len, mixed)))
