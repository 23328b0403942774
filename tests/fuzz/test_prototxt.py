"""Altered prototxts: a net or solver that runs, or an error of one line, soon and without much memory.

FUZZ_EXAMPLES=1000 pytest tests/fuzz/test_prototxt.py
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from helpers.altering import Alteration, alterations, altered, fuzzed
from helpers.little import little
from hypothesis import given

from pipeline.base.errors import InputError
from pipeline.caffe import memory_budget
from pipeline.caffe.net import Net, build_net
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN
from pipeline.caffe.proto.files import read_solver
from pipeline.caffe.solver import get_solver, naming_solver

CASES = Path(__file__).parents[1] / "conformance/cases"
# Those that need no file and write none, of layers of all families.
NETS = [
    "BatchNorm",
    "BatchReindex",
    "Concat",
    "Convolution",
    "Crop",
    "Deconvolution",
    "DummyData",
    "Eltwise",
    "Embed",
    "InnerProduct",
    "LRN",
    "LSTM",
    "Pooling",
    "Reshape",
    "SPP",
    "Scale",
    "Slice",
    "SoftmaxWithLoss",
    "Tile",
]
MEMORY = 32 << 20  # of the machine on which altered nets are built
SMALL = 1 << 16  # values that a net may have to be run

TEXT_KINDS = ("word", "word", "word", "drop", "copy", "insert", "set", "cut", "flip")

OLD = b"""name: "old"
input: "data" input_dim: 2 input_dim: 3 input_dim: 5 input_dim: 4
layers { layer { name: "pad" type: "padding" pad: 1 } bottom: "data" top: "pad" }
layers { layer { name: "conv" type: "conv" num_output: 2 kernelsize: 3 stride: 2 biasterm: false
  weight_filler { type: "gaussian" std: 0.1 } } bottom: "pad" top: "conv" }
layers { layer { name: "fc" type: "innerproduct" num_output: 3 blobs_lr: 1 blobs_lr: 2 } bottom: "conv" top: "fc" }
"""
V1 = b"""input: "data" input_shape { dim: 2 dim: 6 }
layers { name: "fc" type: INNER_PRODUCT bottom: "data" top: "fc" blobs_lr: 1 blobs_lr: 2 weight_decay: 1
  param: "w" inner_product_param { num_output: 2 } }
layers { name: "relu" type: RELU bottom: "fc" top: "fc" relu_param { negative_slope: 0.1 } }
layers { name: "drop" type: DROPOUT bottom: "fc" top: "fc" include { phase: TRAIN stage: "a" } }
"""
SOLVER = b"""# a solver
type: "Adam" lr_policy: "multistep" gamma: 0.5 stepvalue: [2, 4] base_lr: 0.01 momentum: 0.9 momentum2: 0.99
weight_decay: 1e-3 regularization_type: "L2" clip_gradients: 3 iter_size: 2 average_loss: 2 max_iter: 9 test_iter: 1
test_interval: 3 snapshot: 0 random_seed: 3 display: 1 train_state { stage: "a" } solver_mode: CPU
net_param {
  layer { name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param {
    shape { dim: 2 dim: 3 } shape { dim: 2 dim: 2 } data_filler { type: "gaussian" } } }
  layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc" inner_product_param { num_output: 2 } }
  layer { name: "loss" type: "EuclideanLoss" bottom: "fc" bottom: "y" top: "loss" }
}
"""


def texts() -> dict[str, bytes]:
    """Prototxts of nets by name."""
    found = {name: sorted((CASES / name.partition("/")[0]).glob("*.prototxt"))[0].read_bytes() for name in NETS}
    return found | {"old": OLD, "V1": V1}


@pytest.fixture(autouse=True)
def little_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "memory_of", lambda device: MEMORY)


def run(net: Net) -> None:
    """Forward and backward, where that is little to do."""
    shapes = [*net.shapes.values(), *(tuple(blob.shape) for layer in net.layers for blob in layer.blobs)]
    if sum(map(math.prod, shapes)) < SMALL and all(0 not in shape for shape in shapes):
        net.forward(**{name: torch.rand(net.shapes[name]) for name in net.inputs})
        net.backward()


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Let InputErrors about the prototxt or a layer pass, and no others."""
    try:
        yield
    except InputError as error:
        said = str(error)
    else:
        return
    assert re.match(rf"{re.escape(str(path))}:( |\d+:)|layer '", said)
    assert "\n" not in said


@pytest.mark.parametrize("name", texts())
@fuzzed
@given(todo=alterations(*TEXT_KINDS))
def test_a_net(name: str, todo: list[Alteration], tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(altered(texts()[name], todo))
    for phase in (TRAIN, TEST):
        with refusing(path), little(3 * MEMORY):
            run(build_net(path, phase, seed=1))


@fuzzed
@given(todo=alterations(*TEXT_KINDS))
def test_a_solver(todo: list[Alteration], tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    path.write_bytes(altered(SOLVER, todo))
    # FileNotFoundError: where it names a net's file.
    with suppress(FileNotFoundError), refusing(path), little(3 * MEMORY), naming_solver(path):
        solver = get_solver(read_solver(path))
        if solver.param.iter_size < 9 and sum(learnable.blob.numel() for learnable in solver.net.learnable) < SMALL:
            solver.step()
