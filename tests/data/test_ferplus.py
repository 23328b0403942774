"""FER+'s majority."""

import bz2
import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.base.errors import SourceError
from pipeline.data.ferplus import (
    CHOICES,
    COLUMNS,
    LABELS,
    NO_MAJORITY,
    TIE,
    Votes,
    find_in_sidecar,
    leading_expression,
    majority,
    pick_from_sidecar,
    plurality,
    read_sidecar,
    write_sidecar,
)
from pipeline.data.labelled_images import LabelledImage


def image(row: int, usage: str = "Training") -> LabelledImage:
    return LabelledImage(row, usage, 0, np.zeros((48, 48), np.uint8))


@pytest.mark.parametrize(
    ("votes", "choice"),
    [
        ({"neutral": 6, "sadness": 4}, "neutral"),
        ({"neutral": 5, "sadness": 5}, NO_MAJORITY),
        ({"neutral": 4, "sadness": 3, "anger": 3}, NO_MAJORITY),
        ({"neutral": 5, "sadness": 3, "anger": 1, "fear": 1}, "neutral"),  # single votes are outliers: 5 of 8
        ({"unknown": 7, "fear": 3}, "unknown"),
        ({"NF": 10}, "NF"),
        (dict.fromkeys(LABELS, 1), NO_MAJORITY),
    ],
)
def test_majority(votes: dict[str, int], choice: str) -> None:
    assert majority(dict.fromkeys(CHOICES, 0) | votes) == choice


@pytest.mark.parametrize(
    ("votes", "most", "leading"),
    [
        ({"neutral": 4, "sadness": 3, "anger": 3}, "neutral", "neutral"),
        ({"sadness": 5, "neutral": 5}, TIE, "neutral"),  # the first in FER+'s order
        ({"unknown": 4, "fear": 3, "anger": 3}, "unknown", "anger"),
        ({"unknown": 5, "fear": 5}, TIE, NO_MAJORITY),
        ({"NF": 6, "fear": 4}, "NF", NO_MAJORITY),
        ({"unknown": 4, "NF": 1, "fear": 5}, "fear", "fear"),  # a single vote is an outlier: 5 of 9
        (dict.fromkeys(LABELS, 1), TIE, NO_MAJORITY),
    ],
)
def test_plurality_and_leading_expression(votes: dict[str, int], most: str, leading: str) -> None:
    votes = dict.fromkeys(CHOICES, 0) | votes
    assert (plurality(votes), leading_expression(votes)) == (most, leading)


def write(path: Path, *rows: str) -> Path:
    path.write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    return path


def test_labels_images_or_says_why_not(tmp_path: Path) -> None:
    path = write(
        tmp_path / "votes.csv",
        "Training,a.png,0,0,0,0,0,0,0,10,0,0",
        "Training,b.png,0,0,0,0,0,0,0,0,9,1",
        "PublicTest,c.png,0,10,0,0,0,0,0,0,0,0",
        "PublicTest,,0,0,0,0,0,0,0,0,0,10",
    )
    votes = Votes(path)
    images = [image(0), image(1), image(2, "PublicTest"), image(3, "PublicTest")]
    labels = [votes.label(each) for each in images]
    assert labels == [LABELS.index("contempt"), "unknown", LABELS.index("happiness"), "NF"]
    assert len(votes) == 4


def test_shares_train_on_what_is_measured_by_the_majority_only(tmp_path: Path) -> None:
    path = write(tmp_path / "votes.csv", "Training,a.png,4,0,0,3,3,0,0,0,0,0", "PublicTest,b.png,4,0,0,3,3,0,0,0,0,0")
    votes = Votes(path, "shares")
    assert [votes.label(image(0)), votes.label(image(1, "PublicTest"))] == [LABELS.index("neutral"), NO_MAJORITY]
    assert votes.of(1) == dict.fromkeys(CHOICES, 0) | {"neutral": 4, "sadness": 3, "anger": 3}


def test_a_sidecar_is_of_the_images_of_its_manifest(tmp_path: Path) -> None:
    counts = [range(10), range(1, 11)]
    write_sidecar(tmp_path / "votes.csv", zip(["a.png", "b.png"], counts, strict=True))
    np.testing.assert_array_equal(read_sidecar(tmp_path / "votes.csv", ["a.png", "b.png"]), counts)
    for images in (["a.png"], ["b.png", "a.png"], ["a.png", "b.png", "c.png"]):
        with pytest.raises(SourceError, match=r"votes on other images than those in manifest\.csv"):
            read_sidecar(tmp_path / "votes.csv", images)
    assert read_sidecar(tmp_path / "none.csv", ["a.png"]) is None
    assert find_in_sidecar(tmp_path / "none.csv", ["a.png"]) is None


def test_votes_are_picked_by_their_places(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    images = ["a.png", 'b,"\n.png', "ä.png"]
    counts = [[*range(first, first + 10)] for first in range(3)]
    write_sidecar(path, zip(images, counts, strict=True))
    path.write_text(path.read_text().replace("\nä", "\n\nä"))
    ends = find_in_sidecar(path, images)
    assert ends is not None
    order = [2, 0, 1, 2]
    pick_from_sidecar(path, ends, order, tmp_path / "picked.csv")
    write_sidecar(tmp_path / "written.csv", [(images[number], counts[number]) for number in order])
    assert (tmp_path / "picked.csv").read_bytes() == (tmp_path / "written.csv").read_bytes()


def test_reads_votes_that_a_spreadsheet_saved(tmp_path: Path) -> None:
    rows = [COLUMNS, ("Training", "a.png", *"0300000610"), ("Training", "b.png", *"0000000x10")]
    text = "\r\n".join(";".join(row) for row in rows).lower().replace("training", "Training")
    for encoding in ("utf-16", "utf-8-sig"):
        head = "sep=;\r\n" + "\r\n".join(text.split("\r\n")[:2])
        (tmp_path / "votes.csv").write_bytes(f"{head}\r\n{';' * 11}\r\n".encode(encoding))
        assert len(Votes(tmp_path / "votes.csv")) == 1
        assert Votes(tmp_path / "votes.csv").label(image(0)) == LABELS.index("contempt")
        (tmp_path / "votes.csv").write_bytes(text.encode(encoding))
        with pytest.raises(SourceError, match=r"votes\.csv:3: a number of votes"):
            Votes(tmp_path / "votes.csv")


def test_reads_votes_that_are_packed(tmp_path: Path) -> None:
    text = f"{','.join(COLUMNS)}\rTraining,a.png,0,3,0,0,0,0,0,6,1,0\r".encode("utf-16-le")
    (tmp_path / "fer2013new.csv.bz2").write_bytes(bz2.compress(text))
    with zipfile.ZipFile(tmp_path / "ferplus.zip", "w") as archive:
        archive.writestr("FERPlus/fer2013new.csv", text)
        archive.writestr("FERPlus/other.csv", "")
    for name in ("fer2013new.csv.bz2", "ferplus.zip"):
        assert Votes(tmp_path / name).label(image(0)) == LABELS.index("contempt")
    (tmp_path / "fer2013new.csv").write_bytes(gzip.compress(text))
    with pytest.raises(SourceError, match=r"fer2013new\.csv: gzip data where a CSV was expected"):
        Votes(tmp_path / "fer2013new.csv")


def test_refuses_images_that_are_not_those_voted_on(tmp_path: Path) -> None:
    votes = Votes(write(tmp_path / "votes.csv", "Training,a.png,0,0,0,0,0,0,0,10,0,0"))
    for other in (image(0, "PublicTest"), image(1)):
        with pytest.raises(SourceError, match=f"votes.csv: no votes for row {other.row}, a {other.usage} image"):
            votes.label(other)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", r"votes\.csv:1: columns Usage,Image name,neutral"),
        (f"{','.join(COLUMNS)}\nTraining,a.png,0,0\n", r"votes\.csv:2: a number of votes for each"),
        (f"{','.join(COLUMNS)}\nTraining,a.png,0,0,0,0,-1,0,0,10,0,0\n", r"votes\.csv:2: a number of votes for each"),
        (f"{','.join(COLUMNS)}\nTraining,a.png,0,0,0,0,0,0,0,0,0,0\n", r"votes\.csv:2: .* one vote at least"),
        (f"{','.join(COLUMNS)}\nTraining,a.png,0,0,0,0,x,0,0,10,0,0\n", r"votes\.csv:2: a number of votes for each"),
    ],
)
def test_refuses_what_is_no_table_of_votes(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "votes.csv").write_text(text)
    with pytest.raises(SourceError, match=message):
        Votes(tmp_path / "votes.csv")
