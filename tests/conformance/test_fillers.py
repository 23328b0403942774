"""Every filler against real Caffe: the same values where they are not drawn, the same distribution where they are."""

import shutil

import numpy as np
import pytest
from caffe_root import CaffeRoot
from filling import FIXED, NET, RECORDED, fill, filler_types, largest_step, packed
from harness import Arrays, deviation
from parity import Parity

from pipeline.caffe.fillers import FILLERS

TYPES = filler_types()
# Of 210,000 values each: chance alone makes it larger than 0.006 once in a thousand times.
DISTANCE = 0.01


@pytest.fixture(scope="module")
def ours() -> dict[str, np.ndarray]:
    return fill()


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(RECORDED, allow_pickle=False) as arrays:
        return dict(arrays)


def test_every_filler_has_a_case() -> None:
    assert set(TYPES.values()) == set(FILLERS)


def compare(case: str, ours: Arrays, caffe: Arrays, parity: Parity) -> None:
    if TYPES[case] in FIXED:
        off = deviation(ours[case], caffe[case])
        assert off <= 1e-6
        parity("Fillers", TYPES[case], "values", off)
    else:
        distance = largest_step(ours[case], caffe[case])
        assert distance <= DISTANCE
        parity("Fillers", TYPES[case], "distribution", distance)


@pytest.mark.parametrize("case", TYPES)
def test_fills_as_caffe(case: str, ours: Arrays, recorded: Arrays, parity: Parity) -> None:
    compare(case, ours, recorded, parity)


def test_fills_as_live_caffe(ours: Arrays, caffe: CaffeRoot, parity: Parity) -> None:
    shutil.copy(NET, caffe.folder)
    answer = packed(caffe.outputs(NET.name, "fillers"))
    for case in TYPES:
        compare(case, ours, answer, parity)


def test_rows_of_a_positive_unitball_sum_to_one(ours: Arrays) -> None:
    np.testing.assert_allclose(ours["positive_unitball"].sum(axis=1), 1, rtol=1e-5)
