"""Every layer type that Caffe has against real Caffe: tops, bottom gradients, parameter gradients."""

import shutil
from pathlib import Path

import pytest
from caffe_root import CaffeRoot
from harness import CASES, Arrays, assert_agrees, recorded, run_case, split_answers, tolerance
from parity import Parity
from values import all_cases

from pipeline.caffe.layers import CAFFE_LAYERS


@pytest.mark.parametrize("layer_type", sorted(CAFFE_LAYERS))
def test_type_has_cases(layer_type: str) -> None:
    assert any((CASES / layer_type).glob("*.prototxt")), f"add cases/{layer_type}/*.prototxt and record them"


@pytest.mark.parametrize("case", all_cases(CASES))
def test_agrees_with_caffe(case: str, databases: Path, monkeypatch: pytest.MonkeyPatch, parity: Parity) -> None:
    monkeypatch.chdir(databases)
    enter(parity, case, recorded(case))


def enter(parity: Parity, case: str, answer: Arrays) -> None:
    """Compare a case with real Caffe's answer, and enter how far it is from that."""
    layer_type = case.partition("/")[0]
    parity("Layers", layer_type, "tops and gradients", assert_agrees(run_case(case), answer, tolerance(case), case))


def test_agrees_with_live_caffe(
    caffe: CaffeRoot, databases: Path, monkeypatch: pytest.MonkeyPatch, parity: Parity
) -> None:
    shutil.copytree(databases, caffe.folder, dirs_exist_ok=True)
    shutil.copytree(CASES, caffe.folder / "cases", ignore=shutil.ignore_patterns("recorded.npz"))
    caffe.record("cases", "cases")
    monkeypatch.chdir(databases)
    for case in all_cases(CASES):
        layer_type, name = case.split("/")
        answer = split_answers(caffe.folder / "cases" / layer_type / "recorded.npz", name)
        enter(parity, case, answer)
