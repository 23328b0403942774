"""What is held out: a share of every class, and whole people."""

from pathlib import PurePath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.base.errors import SourceError
from pipeline.data.split import group_names, hold_out

SHARES = {"PublicTest": 0.1, "PrivateTest": 0.2}


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=5), st.integers(0, 9))
def test_takes_its_share_of_every_class(sizes: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    parts = np.array(hold_out(labels, [None] * len(labels), SHARES, seed))
    for label, size in enumerate(sizes):
        for part, share in SHARES.items():
            assert abs((parts[labels == label] == part).sum() - share * size) <= 0.5


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 12), min_size=20, max_size=60), st.integers(0, 9))
def test_keeps_groups_whole_and_comes_close(sizes: list[int], seed: int) -> None:
    groups = [f"person {index}" for index, size in enumerate(sizes) for _ in range(size)]
    parts = hold_out(np.zeros(len(groups), int), groups, SHARES, seed)
    assert len(set(zip(groups, parts, strict=True))) == len(sizes)
    for part, share in SHARES.items():
        assert abs(parts.count(part) - share * len(groups)) <= 6  # half of the largest group


def test_the_order_is_the_seeds() -> None:
    labels = np.zeros(50, int)
    first = hold_out(labels, [None] * 50, SHARES, 1)
    assert first == hold_out(labels, [None] * 50, SHARES, 1) != hold_out(labels, [None] * 50, SHARES, 2)


@pytest.mark.parametrize(
    ("name", "groups", "group"),
    [
        ("S010_004_00000017.png", "auto", "S010"),
        ("AF01ANS.JPG", "auto", "F01"),
        ("BF01SAHL.JPG", "auto", "F01"),
        ("KA.AN1.39.png", "auto", "KA"),
        ("Training_3908.jpg", "auto", None),
        ("S010_004_00000017.png", "none", None),
        ("ann_03.png", "_", "ann"),
        ("ann_smith_03.png", "_0", "ann_smith"),
    ],
)
def test_people_by_the_names_of_files(name: str, groups: str, group: str | None) -> None:
    assert group_names([PurePath("happy") / name], groups) == [group]


@pytest.mark.parametrize("name", ["ann.png", "_ann.png"])
def test_names_a_file_that_does_not_tell_the_person(name: str) -> None:
    with pytest.raises(SourceError, match=f"happy/{name}: no '_' in the name"):
        group_names([PurePath("happy") / name], "_")
