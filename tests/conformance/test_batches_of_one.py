"""The cases with batches of one item, and with blobs that lie in memory in any of the orders there are."""

import re
import shutil
import types
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import torch
from caffe_root import CaffeRoot
from harness import CASES, TOLERANCE, assert_agrees, draw_parameters, make_databases, run_net, split_answers, tolerance
from parity import Parity
from test_pycaffe import recorder
from values import Values, all_cases

from pipeline.caffe.layers import LayerError
from pipeline.caffe.layers.layer import Layer
from pipeline.caffe.net import Net, channels_last
from pipeline.caffe.proto.files import read_net

__all__ = ["recorder"]

_SHAPE = re.compile(r"(shape\s*\{\s*dim:\s*)(\d+)")


def of_one_item(text: str) -> str | None:
    """A case's prototxt with inputs of one item; None where its inputs are none, or not all of as many."""
    batches = {int(found[2]) for found in _SHAPE.finditer(text)}
    if len(batches) != 1 or batches == {1} or "Input" not in text:
        return None
    return _SHAPE.sub(r"\g<1>1", text)


def write_cases_of_one(folder: Path) -> list[str]:
    """Write FOLDER/LayerType/case.prototxt of every case that one item suits, and return the cases."""
    written = []
    for case in all_cases(CASES):
        text = of_one_item((CASES / f"{case}.prototxt").read_text())
        if text is None or case.startswith("Filter/"):  # which may leave none of one, and Caffe ends there
            continue
        path = folder / f"{case}.prototxt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        param = read_net(path)
        try:
            Net(param, param.state.phase)
        except LayerError:  # as where an index or a reshape needs more items
            path.unlink()
            continue
        written.append(case)
    return written


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the databases that cases read, in which cases/ are those of one item."""
    folder = tmp_path_factory.mktemp("one")
    make_databases(folder)
    with chdir(folder):
        assert len(write_cases_of_one(Path("cases"))) > 150
    return folder


def test_one_item_gives_stepwise_what_it_gives_at_once(
    cases: Path, recorder: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cases)
    for case in all_cases(cases / "cases"):
        path = cases / "cases" / f"{case}.prototxt"
        assert_agrees(run_net(path, case), recorder.run_net(path, case), tolerance(case), f"{case} of one item")


def test_one_item_agrees_with_live_caffe(
    caffe: CaffeRoot, cases: Path, recorder: types.ModuleType, monkeypatch: pytest.MonkeyPatch, parity: Parity
) -> None:
    shutil.copytree(cases, caffe.folder, dirs_exist_ok=True)
    caffe.record("cases", "cases")
    monkeypatch.chdir(cases)
    for case in all_cases(cases / "cases"):
        path = cases / "cases" / f"{case}.prototxt"
        layer_type, name = case.split("/")
        answer = split_answers(caffe.folder / "cases" / layer_type / "recorded.npz", name)
        for run in (run_net, recorder.run_net):
            off = assert_agrees(run(path, case), answer, tolerance(case), f"{case} of one item")
            parity("Layers", layer_type, "batch of one", off)


def _reshaped(values: torch.Tensor) -> torch.Tensor:
    laid = channels_last(values)
    return laid.reshape(laid.shape)


SPECIAL = {"ArgMax", "HDF5Output", "Python", "Threshold"}  # they write files, run scripts or pass no gradient

# How the same numbers may lie in memory.
ORDERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "rows": torch.Tensor.contiguous,
    "channels last": channels_last,
    "channels last, reshaped": _reshaped,
    "channels last, joined again": lambda values: channels_last(values).flatten(2).unflatten(2, values.shape[2:]),
    "a part of a larger batch": lambda values: channels_last(torch.cat([values, values]))[: len(values)],
    "some of the channels": lambda values: channels_last(torch.cat([values, values], 1))[:, : values.shape[1]],
}


def _answers(
    layer: Layer, bottoms: list[np.ndarray], values: Values, order: str, gradient_order: str
) -> list[torch.Tensor | None]:
    def laid(array: np.ndarray, how: str) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return ORDERS[how](tensor) if tensor.ndim == 4 else tensor

    given = [laid(bottom, order).requires_grad_() for bottom in bottoms]
    tops = layer.forward(given)
    taught = [top for top in tops if top.requires_grad]
    seeds = [
        laid(values.output_gradient(str(index), tuple(top.shape)), gradient_order) for index, top in enumerate(taught)
    ]
    wanted = [tensor for tensor in (*given, *layer.blobs) if tensor.requires_grad]
    gradients = torch.autograd.grad(taught, wanted, seeds, allow_unused=True) if taught else ()
    return [*(top.detach().clone() for top in tops), *gradients]


@pytest.mark.parametrize("batch", [None, 1])
def test_a_layer_answers_the_same_however_blobs_lie_in_memory(
    batch: int | None, cases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cases)
    folder = cases / "cases" if batch else CASES
    compared = set()
    for case in all_cases(folder):
        path = folder / f"{case}.prototxt"
        param = read_net(path)
        net, values = Net(param, param.state.phase), Values(case, path.read_text())
        draw_parameters(net, values)
        for layer in net.layers:
            shapes = [net.shapes[name] for name in layer.param.bottom]
            if all(len(shape) != 4 for shape in shapes) or layer.type in SPECIAL:
                continue
            before = [blob.detach().clone() for blob in layer.blobs]
            bottoms = [values.input(name, shape) for name, shape in zip(layer.param.bottom, shapes, strict=True)]
            expected = None
            for order, gradient_order in [(order, other) for order in ORDERS for other in ORDERS]:
                with torch.no_grad():
                    for blob, value in zip(layer.blobs, before, strict=True):
                        blob.copy_(value)
                answers = _answers(layer, bottoms, values, order, gradient_order)
                expected = expected or answers
                for answer, wanted in zip(answers, expected, strict=True):
                    assert (answer is None) == (wanted is None)
                    if answer is None or wanted is None or not wanted.numel():
                        continue
                    off = float((answer - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))
                    assert off <= 2 * TOLERANCE, f"{case}: {layer.type}, {order}, gradient {gradient_order}: {off:.1e}"
            compared.add(layer.type)
    assert compared > {"BatchNorm", "Convolution", "Pooling", "Scale", "Flatten", "MVN"}
