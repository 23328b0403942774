"""FER2013's CSV: every form Kaggle has published, and every way a file can be wrong."""

import bz2
import gzip
import lzma
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.small_set import noise, pixels_text, write_csv
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.base.errors import SourceError
from pipeline.data.fer2013_csv import CsvSource
from pipeline.data.labelled_images import LabelledImage
from pipeline.data.manifest import USAGES

GREY = " ".join(["7"] * 2304)


def read(path: Path) -> list[LabelledImage]:
    return [image for batch in CsvSource(path).batches() for image in batch()]


def read_text(folder: Path, text: str | bytes) -> list[LabelledImage]:
    path = folder / "faces.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(path)


def test_reads_every_row_in_order(tmp_path: Path) -> None:
    images = noise(70)  # more than two batches
    write_csv(tmp_path / "fer2013.csv", images)
    found = read(tmp_path / "fer2013.csv")
    assert [image.row for image in found] == list(range(70))
    assert [image.label for image in found] == [row % 7 for row in range(70)]
    assert [image.usage for image in found][:6] == [*["Training"] * 3, "PublicTest", "PrivateTest", "Training"]
    np.testing.assert_array_equal([image.pixels for image in found], images)


def test_reads_spaced_headers_quotes_crlf_and_byte_order_mark(tmp_path: Path) -> None:
    (image,) = read_text(tmp_path, f'\ufeffemotion, Usage, pixels\r\n3, PublicTest,"{GREY}"\r\n')
    assert (image.label, image.usage) == (3, "PublicTest")
    assert (image.pixels == 7).all()
    assert image.pixels.shape == (48, 48)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])  # Python writes one for utf-16 and utf-32 by itself
@pytest.mark.parametrize(("delimiter", "end"), [(",", "\n"), (";", "\r\n"), ("\t", "\r")])
def test_reads_what_a_spreadsheet_saved(tmp_path: Path, encoding: str, mark: str, delimiter: str, end: str) -> None:
    rows = [["Emotion", "PIXELS", "usage"], *(["3", f'"{pixels_text(image)}"', "Training"] for image in noise(40))]
    text = end.join(delimiter.join(row) for row in rows) + end
    mark = "" if encoding in ("utf-8-sig", "utf-16", "utf-32") else mark
    images = read_text(tmp_path, (mark + text).encode(encoding))
    np.testing.assert_array_equal([image.pixels for image in images], noise(40))
    with pytest.raises(SourceError, match=r"faces\.csv:41: "):
        read_text(tmp_path, (mark + text[:-40]).encode(encoding))


def test_reads_lines_that_end_in_different_ways(tmp_path: Path) -> None:
    rows = ["emotion,pixels,Usage", *(f"3,{pixels_text(image)},Training" for image in noise(6))]
    text = "".join(row + end for row, end in zip(rows, ["\r", "\n", "\r\n"] * 3, strict=False))
    np.testing.assert_array_equal([image.pixels for image in read_text(tmp_path, text)], noise(6))


def test_names_a_line_that_is_too_long_and_a_field_that_is_broken(tmp_path: Path) -> None:
    head = f"emotion,pixels,Usage\n3,{GREY},Training\n"
    for row, message in (
        (f"3,{GREY * 20},Training", "more than 65536 characters"),
        ('3,"7 7\n7 7",Training', "2 fields where 3 were expected; is a field broken over lines"),
        ("\0" * 100, "1 fields where 3 were expected"),
    ):
        with pytest.raises(SourceError, match=rf"faces\.csv:3: {message}"):
            read_text(tmp_path, f"{head}{row}\n")


def test_reads_what_excel_puts_around_the_rows(tmp_path: Path) -> None:
    text = f"\ufeffsep=;\r\nemotion;pixels;Usage\r\n3;{GREY};Training\r\n;;\r\n;;\r\n"
    (image,) = read_text(tmp_path, text.encode())
    assert (image.label, image.usage) == (3, "Training")
    with pytest.raises(SourceError, match=r"faces\.csv:3: emotion '7'"):
        read_text(tmp_path, text.replace("3;", "7;", 1).encode())


def test_reads_an_archive_made_on_a_mac_under_a_name_in_capitals(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "FACES.ZIP", "w") as archive:
        archive.writestr("faces.csv", f"emotion,pixels,Usage\n3,{GREY},Training\n")
        archive.writestr("__MACOSX/._faces.csv", b"\0\5\x16\7")
    assert len(read(tmp_path / "FACES.ZIP")) == 1


def test_names_what_is_no_csv_by_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "fer2013.csv"
    for data, kind in ((gzip.compress(b"emotion"), "gzip data"), (b"PK\3\4workbook", "a ZIP archive")):
        path.write_bytes(data)
        with pytest.raises(SourceError, match=f"^{path}: {kind}.* where a CSV was expected"):
            read(path)


def test_reads_a_last_line_without_its_end(tmp_path: Path) -> None:
    assert len(read_text(tmp_path, f"emotion,pixels,Usage\n0,{GREY},Training")) == 1


@pytest.mark.parametrize("suffix", [".xz", ".gz", ".bz2", ".zip", ".tar", ".tar.gz", ".tar.xz"])
def test_reads_archives_and_refuses_truncated_ones(tmp_path: Path, suffix: str) -> None:
    write_csv(tmp_path / "fer2013.csv", noise(3))
    data = (tmp_path / "fer2013.csv").read_bytes()
    path = tmp_path / f"fer2013.csv{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("fer2013/train.csv", "another table")
            archive.writestr("fer2013/fer2013.csv", data)
    elif suffix.startswith(".tar"):
        mode: Any = f"w:{suffix[5:]}"
        with tarfile.open(path, mode) as tar:
            tar.add(tmp_path / "fer2013.csv", "fer2013/fer2013.csv")
    else:
        path.write_bytes({".xz": lzma, ".gz": gzip, ".bz2": bz2}[suffix].compress(data))
    np.testing.assert_array_equal([image.pixels for image in read(path)], noise(3))
    whole = path.read_bytes()
    cut = (
        12000 if suffix == ".tar" else 4000 if suffix.startswith(".tar") else 4
    )  # a tar ends with zeros that nobody reads
    for size in (0, 10, len(whole) // 2, len(whole) - cut):
        path.write_bytes(whole[:size])
        with pytest.raises(SourceError, match=r"fer2013\.csv\.[\w.]+: .*fetch it again"):
            read(path)


def test_refuses_a_zip_of_several_tables(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        archive.writestr("train.csv", "")
        archive.writestr("test.csv", "")
    with pytest.raises(SourceError, match=r"faces\.zip: 2 CSV files inside, where one or fer2013\.csv was expected"):
        read(tmp_path / "faces.zip")


def test_says_what_to_do_with_an_archive_of_class_folders(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("train/happy/1.jpg", "")
    with pytest.raises(SourceError, match=r"archive\.zip: folders and no CSV inside; unpack it and give the folder"):
        read(tmp_path / "archive.zip")


def replace(place: int, number: str) -> str:
    return " ".join(number if i == place else "7" for i in range(2304))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty, where the columns emotion,pixels,Usage were expected"),
        ("emotion,pixels,Usage\n", "no rows below the header"),
        ("emotion,pixels\n", ":1: column Usage is missing"),
        ("emotion,pixels,Usage,pixels\n", ":1: column pixels stands there more than once"),
        (f"{GREY}\n", ":1: column emotion is missing"),
        (
            f"emotion,pixels,Usage\n0,{GREY},Training\n0,{GREY[2:]},Training\n",
            ":3: 2303 pixels where 48x48 = 2304 were",
        ),
        (f"emotion,pixels,Usage\n0,{GREY} 7,Training\n", ":2: 2305 pixels where 48x48 = 2304 were expected"),
        (f"emotion,pixels,Usage\n0,{GREY}\n", ":2: 2 fields where 3 were expected; is the file truncated?"),
        (
            f"emotion,pixels,Usage\n0,{GREY},Trai",
            ":2: Usage 'Trai' where Training, PublicTest, PrivateTest was expected",
        ),
        (f"emotion,pixels,Usage\n7,{GREY},Training\n", ":2: emotion '7' where 0 to 6 was expected"),
        (f"emotion,pixels,Usage\n-1,{GREY},Training\n", ":2: emotion '-1' where 0 to 6 was expected"),
        (f"emotion,pixels,Usage\nhappy,{GREY},Training\n", ":2: emotion 'happy' where 0 to 6 was expected"),
        (f"emotion,pixels,Usage\n0,{replace(5, '256')},Training\n", ":2: pixel 5 is '256' where a number 0 to 255 was"),
        (f"emotion,pixels,Usage\n0,{replace(0, '-1')},Training\n", ":2: pixel 0 is '-1' where a number 0 to 255 was"),
        (
            f"emotion,pixels,Usage\n0,{replace(2303, '1.5')},Training\n",
            ":2: pixel 2303 is '1.5' where a number 0 to 255",
        ),
        (f"emotion,pixels,Usage\n0,{replace(9, 'x')},Training\n", ":2: pixel 9 is 'x' where a number 0 to 255 was"),
        (f"emotion,pixels,Usage\n0,{replace(9, '')},Training\n", ":2: pixel 9 is '' where a number 0 to 255 was"),
        (
            f"emotion,pixels,Usage\n0,{replace(9, '1000')},Training\n",
            ":2: pixel 9 is '1000' where a number 0 to 255 was",
        ),
        ("emotion,pixels,Usage\n0,,Training\n", ":2: pixel 0 is '' where a number 0 to 255 was expected"),
        (f"emotion,pixels,Usage\n0,{GREY},Training\n\nemotion,pixels,Usage\n", ":4: a second header"),
        ("emotion,pixels,Usage\n" + "7" * 100_000, ":2: more than 65536 characters where an image was expected"),
    ],
)
def test_refuses_what_is_not_fer2013(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        read_text(tmp_path, text)
    assert f"{tmp_path / 'faces.csv'}" in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_the_line_of_a_fault_beyond_the_first_batch(tmp_path: Path) -> None:
    rows = [f"0,{GREY},Training"] * 100
    rows[90] = f"0,{replace(1, '300')},Training"
    with pytest.raises(SourceError, match=":92: pixel 1 is '300'"):
        read_text(tmp_path, "\n".join(["emotion,pixels,Usage", *rows]))


@settings(max_examples=30, deadline=None)
@given(
    pixels=st.binary(min_size=2304, max_size=2304),
    label=st.integers(0, 6),
    usage=st.sampled_from(USAGES),
    columns=st.permutations(("emotion", "pixels", "Usage")),
    form=st.tuples(st.sampled_from((",", ", ")), st.sampled_from(("\n", "\r\n"))),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    pixels: bytes,
    label: int,
    usage: str,
    columns: list[str],
    form: tuple[str, str],
) -> None:
    comma, end = form
    image = np.frombuffer(pixels, np.uint8).reshape(48, 48)
    values = {"emotion": str(label), "pixels": pixels_text(image), "Usage": usage}
    lines = [comma.join(columns), comma.join(values[column] for column in columns), ""]
    (found,) = read_text(tmp_path_factory.mktemp("csv"), end.join(lines))
    assert (found.row, found.label, found.usage) == (0, label, usage)
    np.testing.assert_array_equal(found.pixels, image)


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, 2303), number=st.text("0123456789.+-e_\u0663", min_size=1, max_size=5))
def test_reads_a_plain_number_up_to_255_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, place: int, number: str
) -> None:
    text = f"emotion,pixels,Usage\n0,{replace(place, number)},Training\n"
    if number.isascii() and number.isdigit() and len(number) <= 3 and int(number) <= 255:
        (image,) = read_text(tmp_path_factory.mktemp("csv"), text)
        assert image.pixels.ravel()[place] == int(number)
    else:
        with pytest.raises(SourceError, match=f":2: pixel {place} is "):
            read_text(tmp_path_factory.mktemp("csv"), text)
