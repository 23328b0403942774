"""The emoji: the pictures are those of the sources, whole, and told apart without colour."""

from itertools import combinations

import cv2
import numpy as np
import pytest

from pipeline.drawing import emoji
from pipeline.drawing.emoji.render import SIZE, render
from pipeline.drawing.palette import COLOURS, colours, ink, luminance


def decode(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image.astype(int)


@pytest.mark.parametrize("name", emoji.NAMES)
def test_the_picture_is_that_of_the_source(name: str) -> None:
    kept = decode((emoji.FOLDER / f"{name}.png").read_bytes())
    assert kept.shape == (SIZE, SIZE, 4)
    assert abs(kept - decode(render(emoji.FOLDER / f"{name}.svg"))).max() <= 2  # releases of resvg round differently


def test_every_file_is_an_emoji_that_is_known() -> None:
    files = {path.name for path in emoji.FOLDER.iterdir() if path.suffix in (".svg", ".png")}
    assert files == {f"{name}{suffix}" for name in emoji.NAMES for suffix in (".svg", ".png")}


@pytest.mark.parametrize("size", [1, 7, 32, 200, 700])
@pytest.mark.parametrize("name", emoji.NAMES)
def test_a_picture_has_its_size_and_a_disc_of_alpha(name: str, size: int) -> None:
    picture = emoji.picture(name, size)
    assert picture.shape == (size, size, 4)
    assert (picture[..., :3] <= picture[..., 3:]).all()  # multiplied by alpha
    if size >= 32:
        assert picture[size // 2, size // 2, 3] == 255
        assert not picture[[0, 0, -1, -1], [0, -1, 0, -1]].any()
        assert picture[..., 3].mean() / 255 == pytest.approx(np.pi / 4 * (63 / 64) ** 2, abs=0.01)


@pytest.mark.parametrize(("one", "other"), list(combinations(emoji.NAMES, 2)))
def test_emoji_differ_in_shape_at_32_pixels(one: str, other: str) -> None:
    dark = [emoji.picture(name, 32)[..., :3].max(axis=2) < 110 for name in (one, other)]
    assert (dark[0] ^ dark[1]).mean() > 0.05


def test_labels_of_other_models_have_their_emoji() -> None:
    assert [emoji.name_of(label) for label in ("happy", "Happiness", "anger", "contempt", "bored", "")] == [
        "happy",
        "happy",
        "angry",
        "contempt",
        "unknown",
        "unknown",
    ]


@pytest.mark.parametrize("colour", COLOURS.values())
def test_text_stands_out_on_every_colour(colour: str) -> None:
    ground, text = luminance(colour), luminance(ink(colour))
    assert (max(ground, text) + 0.05) / (min(ground, text) + 0.05) >= 4.5  # WCAG 2.2, AA


def test_luminance_spans_black_to_white() -> None:
    assert luminance("#000000") == 0
    assert luminance("#FFFFFF") == pytest.approx(1)
    assert luminance("#808080") == pytest.approx(0.2159, abs=1e-4)


def test_every_label_has_a_colour_of_its_own() -> None:
    given = colours(("happiness", "bored", "sleepy", "sad"))
    assert given["happiness"] == COLOURS["happy"]
    assert given["sad"] == COLOURS["sad"]
    assert len(set(given.values())) == 4
    many = colours(tuple(f"label {i}" for i in range(100))).values()
    assert len(set(many)) == 100
    assert set(COLOURS.values()) <= set(many)
