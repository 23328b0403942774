"""Class folders, with splits and without."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.fer.folder_source import FolderSource
from pipeline.fer.images import LabelledImage, SourceError

# A picture of 200,000 x 200,000 pixels, by its header, in 65 bytes.
HUGE_PNG = bytes.fromhex("89504e470d0a1a0a 0000000d 49484452 00030d40 00030d40 0800000000 dc50d7d6"
                         "0000000849444154789c030000000001480689d2 00000000 49454e44 ae426082")


def read(path: Path, seed: int = 1) -> list[LabelledImage]:
    return [image for batch in FolderSource(path, seed).batches() for image in batch()]


def write_image(path: Path, image: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((48, 48), 9, np.uint8) if image is None else image)


def test_reads_splits_and_classes(tmp_path: Path) -> None:
    for number, folder in enumerate(["train/sad", "train/Happy", "validation/happy", "test/sad"]):
        write_image(tmp_path / folder / "0.png", np.full((48, 48), number, np.uint8))
    source = FolderSource(tmp_path, seed=1)
    assert source.labels == ("happy", "sad")  # FER2013's order
    images = read(tmp_path)
    found = {int(image.pixels[0, 0]): (image.usage, source.labels[image.label]) for image in images}
    assert found == {
        0: ("Training", "sad"), 1: ("Training", "happy"), 2: ("PublicTest", "happy"), 3: ("PrivateTest", "sad"),
    }  # fmt: skip
    assert [image.row for image in images] == [0, 1, 2, 3]


def test_splits_flat_classes_by_seed(tmp_path: Path) -> None:
    for label, count in (("happy", 40), ("zebra", 20)):
        for number in range(count):
            write_image(tmp_path / label / f"{number:02d}.jpg")
    images = read(tmp_path)
    assert Counter((image.label, image.usage) for image in images) == {
        (0, "Training"): 32, (0, "PublicTest"): 4, (0, "PrivateTest"): 4,
        (1, "Training"): 16, (1, "PublicTest"): 2, (1, "PrivateTest"): 2,
    }  # fmt: skip
    usages = [image.usage for image in images]
    assert usages == [image.usage for image in read(tmp_path)]
    assert usages != [image.usage for image in read(tmp_path, seed=2)]


def test_turns_colour_alpha_and_16_bits_into_8_bit_grey(tmp_path: Path) -> None:
    write_image(tmp_path / "train/sad/alpha.png", np.full((48, 48, 4), (90, 90, 90, 0), np.uint8))
    write_image(tmp_path / "train/sad/colour.png", np.full((48, 48, 3), (0, 0, 255), np.uint8))
    write_image(tmp_path / "train/sad/deep.png", np.full((48, 48), 90 * 257, np.uint16))
    alpha, colour, deep = (image.pixels for image in read(tmp_path))
    for pixels, value in ((alpha, 90), (colour, 76), (deep, 90)):  # 76: 0.299 of red 255
        assert pixels.dtype == np.uint8
        assert pixels.shape == (48, 48)
        assert (pixels == value).all()


@pytest.mark.parametrize(("name", "content", "message"), [
    ("broken.png", b"\x89PNG\r\n\x1a\nnothing more", "broken.png: no readable image (20 bytes)"),
    ("bomb.png", HUGE_PNG, "bomb.png: no readable image (65 bytes)"),
    ("empty.jpg", b"", "empty.jpg: no readable image (0 bytes)"),
    ("notes.txt", b"text", "notes.txt: .png or .jpg or .jpeg was expected"),
])  # fmt: skip
def test_names_a_file_that_is_no_image(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / "train/sad").mkdir(parents=True)
    (tmp_path / "train/sad" / name).write_bytes(content)
    with pytest.raises(SourceError) as caught:
        read(tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize(("folders", "message"), [
    ([], "no class folders"),
    (["train/sad"], "no .png or .jpg or .jpeg files in its class folders"),
    (["train/sad", "happy"], "happy: no split beside train"),
])  # fmt: skip
def test_refuses_folders_of_another_form(tmp_path: Path, folders: list[str], message: str) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(SourceError, match=message):
        read(tmp_path)
