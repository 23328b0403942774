"""Class folders, with splits and without."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.base.errors import SourceError
from pipeline.data.class_folders import ClassFolders, FolderSource
from pipeline.data.labelled_images import LabelledImage
from pipeline.data.split import HOLD_OUT, HoldOut

# A picture of 200,000 x 200,000 pixels, by its header, in 65 bytes.
HUGE_PNG = bytes.fromhex(
    "89504e470d0a1a0a 0000000d 49484452 00030d40 00030d40 0800000000 dc50d7d6"
    "0000000849444154789c030000000001480689d2 00000000 49454e44 ae426082"
)


def source_of(path: Path, rule: HoldOut = HOLD_OUT, kept: tuple[str, ...] | None = None) -> FolderSource:
    folders = ClassFolders(path)
    return FolderSource(folders, [folders.labels.index(name) for name in kept or folders.labels], rule)


def read(path: Path, rule: HoldOut = HOLD_OUT) -> list[LabelledImage]:
    return [image for batch in source_of(path, rule).batches() for image in batch()]


def write_image(path: Path, image: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((48, 48), 9, np.uint8) if image is None else image)


def test_reads_splits_and_classes(tmp_path: Path) -> None:
    for number, folder in enumerate(["train/sad", "train/Happy", "validation/happy", "test/sad"]):
        write_image(tmp_path / folder / "0.png", np.full((48, 48), number, np.uint8))
    source = source_of(tmp_path)
    assert source.labels == ("happy", "sad")  # FER2013's order
    images = read(tmp_path)
    found = {int(image.pixels[0, 0]): (image.usage, source.labels[image.label]) for image in images}
    assert found == {
        0: ("Training", "sad"),
        1: ("Training", "happy"),
        2: ("PublicTest", "happy"),
        3: ("PrivateTest", "sad"),
    }
    assert [image.row for image in images] == [0, 1, 2, 3]


def test_splits_flat_classes_by_seed(tmp_path: Path) -> None:
    for label, count in (("happy", 40), ("zebra", 20)):
        for number in range(count):
            write_image(tmp_path / label / f"{number:02d}.jpg")
    images = read(tmp_path)
    assert Counter((image.label, image.usage) for image in images) == {
        (0, "Training"): 32,
        (0, "PublicTest"): 4,
        (0, "PrivateTest"): 4,
        (1, "Training"): 16,
        (1, "PublicTest"): 2,
        (1, "PrivateTest"): 2,
    }
    usages = [image.usage for image in images]
    assert usages == [image.usage for image in read(tmp_path)]
    assert usages != [image.usage for image in read(tmp_path, HoldOut(seed=2))]


def test_turns_colour_alpha_and_16_bits_into_8_bit_grey(tmp_path: Path) -> None:
    write_image(tmp_path / "train/sad/alpha.png", np.full((48, 48, 4), (90, 90, 90, 0), np.uint8))
    write_image(tmp_path / "train/sad/colour.png", np.full((48, 48, 3), (0, 0, 255), np.uint8))
    write_image(tmp_path / "train/sad/deep.png", np.full((48, 48), 90 * 257, np.uint16))
    write_image(tmp_path / "train/sad/dim.png", np.full((48, 48), 90 * 16, np.uint16))  # 12 bits in 16
    write_image(tmp_path / "validation/sad/alpha.png")
    alpha, colour, deep, dim, _ = (image.pixels for image in read(tmp_path))
    for pixels, value in ((alpha, 255), (colour, 76), (deep, 90), (dim, 90)):  # 76: 0.299 of red 255
        assert pixels.dtype == np.uint8
        assert pixels.shape == (48, 48)
        assert (pixels == value).all()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("broken.png", b"\x89PNG\r\n\x1a\nnothing more", "broken.png: the beginning of an image that is damaged"),
        ("bomb.png", HUGE_PNG, "bomb.png: "),
        ("empty.jpg", b"", "empty.jpg: an empty file"),
        ("notes.txt", b"text", "notes.txt: .png or .jpg or .jpeg was expected"),
    ],
)
def test_names_a_file_that_is_no_image(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    write_image(tmp_path / "validation/sad/whole.png")
    (tmp_path / "train/sad").mkdir(parents=True)
    (tmp_path / "train/sad" / name).write_bytes(content)
    with pytest.raises(SourceError) as caught:
        read(tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ([], "no class folders"),
        (["train/sad"], "class sad has no .png or .jpg or .jpeg file to train on"),
        (["images/train/sad"], r"images: holds folders \(train\) where pictures of one class .* give .*images$"),
        (["train/sad", "happy"], "happy: no split beside train"),
    ],
)
def test_refuses_folders_of_another_form(tmp_path: Path, folders: list[str], message: str) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(SourceError, match=message):
        read(tmp_path)


def fill(path: Path, **counts: int) -> None:
    for label, count in counts.items():
        for number in range(count):
            write_image(path / label / f"{number:03d}.png")


def test_holds_validation_out_of_train_where_there_is_only_test_beside_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path / "train", happy=40, sad=20)
    fill(tmp_path / "test", happy=5, sad=5)
    caplog.set_level("INFO")
    images = read(tmp_path, HoldOut(share=0.2))
    assert Counter((image.label, image.usage) for image in images) == {
        (0, "Training"): 32,
        (0, "PublicTest"): 8,
        (0, "PrivateTest"): 5,
        (1, "Training"): 16,
        (1, "PublicTest"): 4,
        (1, "PrivateTest"): 5,
    }
    assert "no folder of a validation split, so 12 of the 60 training images are held out as PublicTest" in caplog.text


def test_people_stay_in_one_part(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for person in range(30):
        for label in ("anger", "happy"):
            for frame in (7, 8, 9):
                write_image(tmp_path / label / f"S{person:03d}_001_{frame:08d}.png")
    source = source_of(tmp_path)
    parts: dict[str, set[str]] = {}
    for usage, _, file in source.files:
        parts.setdefault(file.name[:4], set()).add(usage)
    assert all(len(part) == 1 for part in parts.values())
    assert Counter(usage for part in parts.values() for usage in part) == {
        "Training": 24,
        "PublicTest": 3,
        "PrivateTest": 3,
    }
    assert "each of 30 people" in caplog.text
    parts = {}
    for usage, _, file in source_of(tmp_path, HoldOut(groups="none")).files:
        parts.setdefault(file.name[:4], set()).add(usage)
    assert any(len(part) > 1 for part in parts.values())


def test_a_class_too_small_to_be_held_out_is_named(tmp_path: Path) -> None:
    fill(tmp_path, happy=40, rare=4)
    with pytest.raises(SourceError, match=r"class rare has 4 images, too few .* PublicTest would have none"):
        source_of(tmp_path)
    fill(tmp_path, sad=40)
    assert len(source_of(tmp_path, kept=("happy", "sad")).files) == 80  # classes left out are not looked at


def test_a_class_of_too_few_people_is_named(tmp_path: Path) -> None:
    fill(tmp_path, happy=40, sad=40)
    for file in tmp_path.glob("*/*"):
        file.rename(file.with_name(f"img_{file.name}"))
    with pytest.raises(SourceError, match=r"class happy has 40 images of 1 people, too few .* set groups to none"):
        source_of(tmp_path, HoldOut(groups="_"))


def test_a_class_without_an_image_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "train", happy=40, sad=40)
    fill(tmp_path / "test", happy=5, bored=5)
    with pytest.raises(SourceError, match=r"class bored has no .* file to train on"):
        source_of(tmp_path)


def test_what_file_managers_leave_is_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, happy=10, sad=10)
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "._000.png"):
        (tmp_path / "happy" / name).write_bytes(b"")
    (tmp_path / "__MACOSX").mkdir()  # where an archive from a Mac was unpacked
    (tmp_path / "__MACOSX/._happy").write_bytes(b"")
    assert len(source_of(tmp_path).files) == 20


def test_names_of_any_script_and_normalisation(tmp_path: Path) -> None:
    fill(tmp_path / "train", **{"Ne\u0301utre": 10, "喜び": 10, "1": 10})
    fill(tmp_path / "validation", **{"n\u00e9utre": 2, "喜び": 2, "1": 2})
    assert source_of(tmp_path).labels == ("1", "n\u00e9utre", "喜び")
