"""Every layer computes where its net is. GPUs are pretended, and an error tells of tensors that mix devices."""

import types
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import CASES, assert_agrees, recorded, run_case, tolerance
from helpers.layer_text import inputs, layer
from helpers.pretended_gpu import OnGpu, pretended_gpus
from test_pycaffe import recorder
from values import all_cases

from pipeline.caffe.common import mode
from pipeline.caffe.forks import EXTENSIONS
from pipeline.caffe.layers import CAFFE_LAYERS
from pipeline.caffe.net import Net
from pipeline.caffe.proto.caffe_pb2 import TRAIN, NetParameter
from pipeline.caffe.proto.files import parse_text

__all__ = ["recorder"]
IMAGE, PLACES = (2, 3, 4, 6), (1, 2, 16)
FORKS = {
    "ConvolutionDepthwise": ({"x": IMAGE}, "convolution_param { kernel_size: 3 weight_filler { type: 'xavier' } }"),
    "DepthwiseConvolution": ({"x": IMAGE}, "convolution_param { kernel_size: 3 weight_filler { type: 'xavier' } }"),
    "DetectionOutput": ({"l": (2, 16), "c": (2, 8), "p": PLACES}, "detection_output_param { num_classes: 2 }"),
    "Interp": ({"x": IMAGE}, "interp_param { zoom_factor: 2 }"),
    "Normalize": ({"x": IMAGE}, "norm_param { channel_shared: false }"),
    "Permute": ({"x": IMAGE}, "permute_param { order: 0 order: 2 }"),
    "PriorBox": ({"x": IMAGE, "i": (2, 3, 40, 60)}, "prior_box_param { min_size: 8 }"),
    "ReLU6": ({"x": IMAGE}, ""),
    "Upsample": ({"x": IMAGE, "m": IMAGE}, "upsample_param { scale: 2 }"),
}


@pytest.mark.parametrize("layer_type", sorted(CAFFE_LAYERS))
def test_a_layer_on_a_gpu_agrees_with_caffe(layer_type: str, databases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(databases)
    cases = [case for case in all_cases(CASES) if case.startswith(f"{layer_type}/")]
    makes_data = CAFFE_LAYERS[layer_type].bottoms == (0, 0)  # on the CPU, however it is asked to
    assert cases
    for case in cases[:1] if makes_data else cases:
        with pretended_gpus() as gpu:
            answer = run_case(case, gpu)
        assert_agrees(answer, recorded(case), tolerance(case), f"{case} on a GPU")


@pytest.mark.parametrize("layer_type", sorted(CAFFE_LAYERS))
def test_a_layer_of_the_python_interface_does(
    layer_type: str, databases: Path, recorder: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(databases)
    monkeypatch.setattr(mode, "on_gpu", True)
    case = next(case for case in all_cases(CASES) if case.startswith(f"{layer_type}/"))
    with pretended_gpus() as gpu:
        monkeypatch.setattr(mode, "gpu", torch.device(gpu).index)
        answer = recorder.run_net(CASES / f"{case}.prototxt", case)
    assert_agrees(answer, recorded(case), tolerance(case), f"{case} on a GPU")


def run_fork(layer_type: str, device: str) -> list[np.ndarray]:
    """The top of a net of one such layer, and the gradients."""
    shapes, param = FORKS[layer_type]
    text = inputs(**shapes) + layer(layer_type, " ".join(shapes), "y", param)
    net = Net(parse_text(text, NetParameter, "net"), TRAIN, device=device, seed=1)
    random = torch.Generator().manual_seed(1)
    bottoms = {name: torch.rand(shape, generator=random).to(device) for name, shape in shapes.items()}
    first, *_ = bottoms.values()
    first.requires_grad_()
    top = net.forward(**bottoms)["y"]
    assert top.device == torch.device(device)
    learned = [first, *net.params.get("it", [])]
    if layer_type not in ("DetectionOutput", "PriorBox"):  # no gradient passes
        top.square().sum().backward()
    return [value.detach().cpu().numpy() for value in (top, *(blob.grad for blob in learned if blob.grad is not None))]


@pytest.mark.parametrize("layer_type", EXTENSIONS)
def test_a_layer_of_a_fork_on_a_gpu_agrees_with_the_cpu(layer_type: str) -> None:
    with pretended_gpus() as gpu:
        there = run_fork(layer_type, gpu)
    for ours, wanted in zip(there, run_fork(layer_type, "cpu"), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-6)


def test_tensors_that_mix_devices_are_told() -> None:
    with pretended_gpus() as gpu:
        there = torch.ones(3).to(gpu)
        assert isinstance(there, OnGpu)
        for mixed in (torch.ones(3), torch.ones(3, device="cuda:0"), torch.ones(3, device="cuda")):
            with pytest.raises(RuntimeError, match="all tensors should be on the same device"):
                there + mixed
        with pytest.raises(RuntimeError, match="all tensors should be on the same device"):
            torch.zeros(()).add_(there.sum())
        with pytest.raises(RuntimeError, match="a generator on cuda:1 was expected"):
            torch.rand(3, device=gpu, generator=torch.Generator())
        with pytest.raises(TypeError, match="can't convert cuda:1 device type tensor to numpy"):
            there.numpy()
        assert (there + torch.tensor(1.0)).tolist() == [2, 2, 2]  # a GPU takes one number from the CPU
