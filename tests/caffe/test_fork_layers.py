"""Layers that forks of Caffe have: each against a reference in float64 that is written here from its definition."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from helpers.layer_text import inputs, layer, net

from pipeline.caffe.forks import EXTENSIONS
from pipeline.caffe.layers import CAFFE_LAYERS, LAYERS, LayerError, detection
from pipeline.caffe.net import Net
from pipeline.caffe.onnx import to_onnx
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter
from pipeline.caffe.proto.files import parse_text, read_binary
from pipeline.caffe.pycaffe.net import layer_type_list

Arrays = list[np.ndarray]
P = "prior_box_param {{ {} }}".format
D = "detection_output_param {{ {} }}".format
Reference = Callable[..., np.ndarray]  # of the bottoms, then the blobs


def test_extensions_are_apart_from_caffes_types() -> None:
    assert set(LAYERS) - set(CAFFE_LAYERS) == set(EXTENSIONS)
    assert len(CAFFE_LAYERS) == 61
    assert layer_type_list() == sorted(CAFFE_LAYERS)
    assert LAYERS["Permute"].fork.startswith("SSD's")
    assert not LAYERS["Convolution"].fork


def test_ssds_fields_have_ssds_numbers() -> None:
    """A layer as SSD's own protobuf writes it: permute_param is 202, prior_box_param 203, norm_param 206."""
    permute = bytes([0xD2, 0x0C, 4, 0x08, 0, 0x08, 2])  # field 202, two `order`
    normalize = bytes([0xF2, 0x0C, 2, 0x08, 0])  # field 206, across_spatial: false
    param = LayerParameter.FromString(permute + normalize)
    assert list(param.permute_param.order) == [0, 2]
    assert not param.norm_param.across_spatial
    numbers = {
        name: LayerParameter.DESCRIPTOR.fields_by_name[name].number
        for name in ("prior_box_param", "detection_output_param")
    }
    assert numbers == {"prior_box_param": 203, "detection_output_param": 204}


def convolved(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | float = 0.0) -> np.ndarray:
    """Each channel with its own kernel, stride 2, padding 1 by 2, dilation 2."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (2, 2)))
    extent = [2 * (size - 1) + 1 for size in weight.shape[2:]]
    height, width = ((side - size) // 2 + 1 for side, size in zip(padded.shape[2:], extent, strict=True))
    top = np.zeros((*x.shape[:2], height, width))
    for channel, i, j in np.ndindex(x.shape[1], height, width):
        window = padded[:, channel, 2 * i : 2 * i + extent[0] : 2, 2 * j : 2 * j + extent[1] : 2]
        top[:, channel, i, j] = (window * weight[channel, 0]).sum((1, 2)) + np.broadcast_to(bias, x.shape[1])[channel]
    return top


def interpolated(x: np.ndarray, height: int, width: int) -> np.ndarray:
    top = np.zeros((*x.shape[:2], height, width))
    for i, j in np.ndindex(height, width):
        y = i * (x.shape[2] - 1) / (height - 1) if height > 1 else 0.0
        z = j * (x.shape[3] - 1) / (width - 1) if width > 1 else 0.0
        top[..., i, j] = sum(
            (1 - abs(y - row)) * (1 - abs(z - column)) * x[..., row, column]
            for row in {math.floor(y), min(math.floor(y) + 1, x.shape[2] - 1)}
            for column in {math.floor(z), min(math.floor(z) + 1, x.shape[3] - 1)}
        )
    return top


def normalised(x: np.ndarray, scale: np.ndarray, axes: tuple[int, ...], eps: float) -> np.ndarray:
    return x / np.sqrt(eps + (x**2).sum(axes, keepdims=True)) * scale.reshape(-1, *[1] * (x.ndim - 2))


WINDOWS = "convolution_param { kernel_h: 3 kernel_w: 2 stride: 2 pad_h: 1 pad_w: 2 dilation: 2 %s }"
IMAGE = (1, 3, 4, 5)
ALIKE: dict[str, tuple[str, str, tuple[int, ...], Reference]] = {
    "depthwise": ("DepthwiseConvolution", WINDOWS % "num_output: 3 group: 3", IMAGE, convolved),
    "depthwise of ShuffleNet": ("ConvolutionDepthwise", WINDOWS % "bias_term: false", IMAGE, convolved),
    "relu6": ("ReLU6", "", IMAGE, lambda x: np.clip(x, 0, 6)),
    "permute": (
        "Permute",
        "permute_param { order: 0 order: 2 order: 3 order: 1 }",
        IMAGE,
        lambda x: np.transpose(x, (0, 2, 3, 1)),
    ),
    "permute the rest": ("Permute", "permute_param { order: 2 }", IMAGE, lambda x: np.transpose(x, (2, 0, 1, 3))),
    "upsample": ("Upsample", "upsample_param { scale: 3 }", IMAGE, lambda x: x.repeat(3, 2).repeat(3, 3)),
    "upsample apart": ("Upsample", "upsample_param { scale_h: 1 scale_w: 2 }", IMAGE, lambda x: x.repeat(2, 3)),
    "interp zoom": ("Interp", "interp_param { zoom_factor: 3 }", IMAGE, lambda x: interpolated(x, 10, 13)),
    "interp shrink": (
        "Interp",
        "interp_param { shrink_factor: 2 pad_beg: -1 pad_end: -1 }",
        IMAGE,
        lambda x: interpolated(x[:, :, 1:-1, 1:-1], 1, 2),
    ),
    "interp size": (
        "Interp",
        "interp_param { height: 1 width: 11 pad_end: -2 }",
        IMAGE,
        lambda x: interpolated(x[:, :, :-2, :-2], 1, 11),
    ),
    "normalize": ("Normalize", "norm_param { eps: 0.5 }", IMAGE, lambda x, s: normalised(x, s, (1, 2, 3), 0.5)),
    "normalize channels": (
        "Normalize",
        "norm_param { across_spatial: false channel_shared: false }",
        IMAGE,
        lambda x, s: normalised(x, s, (1,), 1e-10),
    ),
    "normalize vectors": (
        "Normalize",
        "norm_param { channel_shared: false }",
        (3, 5),
        lambda x, s: normalised(x, s, (1,), 1e-10),
    ),
}


def slope(reference: Reference, values: Arrays, weights: np.ndarray, index: int) -> np.ndarray:
    """The gradient of the weighted sum of a reference's top, by central differences."""
    gradient = np.zeros_like(values[index])
    for place in np.ndindex(gradient.shape):
        sums = []
        for step in (1e-6, -1e-6):
            moved = [value.copy() for value in values]
            moved[index][place] += step
            sums.append((reference(*moved) * weights).sum())
        gradient[place] = (sums[0] - sums[1]) / 2e-6
    return gradient


@pytest.mark.parametrize("name", ALIKE)
def test_tops_and_gradients_are_those_of_the_definition(name: str) -> None:
    kind, param, shape, reference = ALIKE[name]
    random = np.random.default_rng(0)
    made = net(inputs(x=shape) + layer(kind, "x", "y", param), TRAIN)
    blobs = made.params.get("it", [])
    with torch.no_grad():
        for blob in blobs:
            blob.copy_(torch.from_numpy(random.uniform(-2, 2, tuple(blob.shape))))
    x = torch.from_numpy(random.uniform(-8, 8, shape).astype("f")).requires_grad_()
    top = made.forward(x=x)["y"]
    values = [value.detach().double().numpy().copy() for value in (x, *blobs)]
    want = reference(*values)
    assert tuple(top.shape) == want.shape == made.shapes["y"]
    np.testing.assert_allclose(top.detach().numpy(), want, rtol=1e-5, atol=1e-5)
    weights = random.uniform(-1, 1, want.shape)
    top.backward(torch.from_numpy(weights.astype("f")))
    for index, value in enumerate((x, *blobs)):
        assert value.grad is not None
        np.testing.assert_allclose(value.grad.numpy(), slope(reference, values, weights, index), rtol=1e-4, atol=2e-5)


def test_relu6_passes_no_gradient_at_its_bends() -> None:
    x = torch.tensor([[-1.0, 0.0, 3.0, 6.0, 7.0]], requires_grad=True)
    net(inputs(x=(1, 5)) + layer("ReLU6", "x", "y")).forward(x=x)["y"].sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 0, 1, 0, 0]]


@pytest.mark.parametrize(
    ("param", "height"),
    [
        ("scale: 2", 8),
        ("upsample_h: 7 upsample_w: 6 scale: 2", 7),
        ("scale: 2 pad_out_h: true", 7),
    ],
)
def test_upsample_puts_values_back_where_pooling_took_them(param: str, height: int) -> None:
    """The second bottom is Pooling's second top: the values stand where they were, as in SegNet."""
    text = inputs(x=(2, 3, height, 6))
    text += layer("Pooling", "x", "p m", "pooling_param { kernel_size: 2 stride: 2 }")
    text += layer("Upsample", "p m", "y", f"upsample_param {{ {param} }}")
    x = torch.from_numpy(np.random.default_rng(0).permutation(36 * height).reshape(2, 3, height, 6).astype("f"))
    x.requires_grad_()
    top = net(text).forward(x=x)["y"]
    want = np.zeros(x.shape)
    for n, c, i, j in np.ndindex(2, 3, (height + 1) // 2, 3):
        window = x.detach().numpy()[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        row, column = np.unravel_index(window.argmax(), window.shape)
        want[n, c, 2 * i + row, 2 * j + column] = window.max()
    np.testing.assert_array_equal(top.detach().numpy(), want)
    top.backward(torch.full_like(top, 2))
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), 2 * (want != 0))


def test_upsample_refuses_places_beyond_its_top() -> None:
    made = net(inputs(x=(1, 1, 1, 2), m=(1, 1, 1, 2)) + layer("Upsample", "x m", "y", "upsample_param { scale: 2 }"))
    for place in (8, -1, math.nan):
        with pytest.raises(LayerError, match="layer 'it': places in the second bottom where numbers from 0 to 7 were"):
            made.forward(x=np.ones((1, 1, 1, 2)), m=np.array([[[[0, place]]]]))


def test_interp_takes_its_size_from_a_second_bottom() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, IMAGE)
    made = net(inputs(x=IMAGE, z=(1, 2, 9, 3)) + layer("Interp", "x z", "y"))
    top = made.forward(x=x, z=np.zeros((1, 2, 9, 3)))["y"]
    np.testing.assert_allclose(top.numpy(), interpolated(x, 9, 3), rtol=1e-5, atol=1e-6)


Pair = tuple[float, float]


def priors(places: tuple[int, ...], image: Pair, step: Pair, pixels: list[Pair], offset: float = 0.5) -> np.ndarray:
    """Boxes (H W P, 4) of `pixels`, each (width, height), around every place."""
    made = []
    for i, j in np.ndindex(*places):
        y, x = (i + offset) * step[0], (j + offset) * step[1]
        for width, height in pixels:
            corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            made.append([corner / side for corner, side in zip(corners, image[::-1] * 2, strict=True)])
    return np.array(made)


ROOT = math.sqrt(2)
# By parameters: the boxes' sizes in pixels at a place, image, step, variance.
PRIORS: dict[str, tuple[list[Pair], Pair, Pair, list[float]]] = {
    "min_size: 10": ([(10, 10)], (40, 60), (10, 12), [0.1] * 4),
    "min_size: 10 max_size: 40 aspect_ratio: 2 variance: 0.3": (
        [(10, 10), (20, 20), (10 * ROOT, 10 / ROOT), (10 / ROOT, 10 * ROOT)],
        (40, 60),
        (10, 12),
        [0.3] * 4,
    ),
    "min_size: 8 min_size: 18 max_size: 18 max_size: 32 aspect_ratio: 4 aspect_ratio: 1 aspect_ratio: 0.25 step: 7": (
        [(8, 8), (12, 12), (16, 4), (4, 16), (18, 18), (24, 24), (36, 9), (9, 36)],
        (40, 60),
        (7, 7),
        [0.1] * 4,
    ),
    "min_size: 9 aspect_ratio: 4 flip: false img_h: 20 img_w: 30 step_h: 3 step_w: 5 "
    "variance: 0.1 variance: 0.2 variance: 0.3 variance: 0.4": (
        [(9, 9), (18, 4.5)],
        (20, 30),
        (3, 5),
        [0.1, 0.2, 0.3, 0.4],
    ),
    "min_size: 10.9 max_size: 40.5 img_size: 50": ([(10, 10), (20, 20)], (50, 50), (12.5, 10), [0.1] * 4),
}


@pytest.mark.parametrize("param", PRIORS)
@pytest.mark.parametrize("more", ["", "clip: true", "offset: 0"])
def test_prior_boxes_are_those_of_the_definition(param: str, more: str) -> None:
    pixels, image, step, variance = PRIORS[param]
    text = inputs(x=(2, 3, 4, 5), i=(2, 3, 40, 60))
    made = net(text + layer("PriorBox", "x i", "y", f"prior_box_param {{ {param} {more} }}"))
    top = made.forward(x=np.zeros((2, 3, 4, 5)), i=np.zeros((2, 3, 40, 60)))["y"]
    want = priors((4, 5), image, step, pixels, 0 if more == "offset: 0" else 0.5)
    want = want.clip(0, 1) if more == "clip: true" else want
    assert tuple(top.shape) == made.shapes["y"] == (1, 2, 4 * len(want))
    np.testing.assert_allclose(top[0, 0].reshape(-1, 4).numpy(), want, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(top[0, 1].reshape(-1, 4).numpy(), np.tile(variance, (len(want), 1)), rtol=1e-6)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    width, height = (min(a[axis + 2], b[axis + 2]) - max(a[axis], b[axis]) for axis in (0, 1))
    common = max(width, 0) * max(height, 0) if width > 0 and height > 0 else 0.0
    areas = [max(box[2] - box[0], 0) * max(box[3] - box[1], 0) for box in (a, b)]
    return common / (sum(areas) - common) if common else 0.0


def decoded(offset: np.ndarray, prior: np.ndarray, variance: np.ndarray, code: str) -> np.ndarray:
    wide, high = prior[2:] - prior[:2]
    offset = offset * variance
    if code == "CORNER":
        return prior + offset
    if code == "CORNER_SIZE":
        return prior + offset * [wide, high, wide, high]
    x, y = (prior[:2] + prior[2:]) / 2 + offset[:2] * [wide, high]
    half = np.exp(offset[2:]) * [wide, high] / 2
    return np.array([x - half[0], y - half[1], x + half[0], y + half[1]])


def detected(
    offsets: np.ndarray,
    confidences: np.ndarray,
    prior: np.ndarray,
    *,
    code: str = "CORNER",
    background: int = 0,
    least: float = -math.inf,
    top_k: int = -1,
    keep: int = -1,
    most: float = 0.3,
    eta: float = 1.0,
    encoded: bool = False,
    clip: bool = False,
) -> np.ndarray:
    """Rows (K, 7) for offsets (N, P, L, 4), confidences (N, P, C) and prior boxes (2, P, 4)."""
    rows = []
    for item, (offset, confidence) in enumerate(zip(offsets, confidences, strict=True)):
        found = []
        for label in range(confidence.shape[1]):
            if label == background:
                continue
            order = np.argsort(-confidence[:, label], kind="stable").tolist()
            ranked = [p for p in order if confidence[p, label] > least]
            kept: list[tuple[int, np.ndarray]] = []
            bound = most
            for p in ranked if top_k < 0 else ranked[:top_k]:
                variance = np.ones(4) if encoded else prior[1, p]
                box = decoded(offset[p, label if offset.shape[1] > 1 else 0], prior[0, p], variance, code)
                box = box.clip(0, 1) if clip else box
                if all(overlap(box, other) <= bound for _, other in kept):
                    kept.append((p, box))
                    bound *= eta if eta < 1 and bound > 0.5 else 1
            found += [[item, label, confidence[p, label], *box] for p, box in kept]
        if -1 < keep < len(found):
            found = sorted(sorted(found, key=lambda row: -row[2])[:keep], key=lambda row: (row[1], -row[2]))
        rows += found
    return np.array(rows or [[item, *[-1] * 6] for item in range(len(offsets))])


SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("", {}),
    (
        "confidence_threshold: 0.3 nms_param { nms_threshold: 0.45 top_k: 12 } keep_top_k: 7",
        {"least": 0.3, "most": 0.45, "top_k": 12, "keep": 7},
    ),
    (
        "code_type: CENTER_SIZE background_label_id: 2 keep_top_k: 5",
        {"code": "CENTER_SIZE", "background": 2, "keep": 5},
    ),
    (
        "code_type: CORNER_SIZE background_label_id: -1 nms_param { nms_threshold: 0.9 eta: 0.8 }",
        {"code": "CORNER_SIZE", "background": -1, "most": 0.9, "eta": 0.8},
    ),
    (
        "code_type: CENTER_SIZE variance_encoded_in_target: true nms_param { nms_threshold: 0 }",
        {"code": "CENTER_SIZE", "encoded": True, "most": 0},
    ),
    (
        "code_type: CENTER_SIZE clip: 1 nms_param { nms_threshold: 0.45 top_k: 400 } keep_top_k: 200",
        {"code": "CENTER_SIZE", "clip": True, "most": 0.45, "top_k": 400, "keep": 200},
    ),
    ("confidence_threshold: 2", {"least": 2}),
    ("keep_top_k: 0", {"keep": 0}),
    ("nms_param { top_k: 0 }", {"top_k": 0}),
    ('save_output_param { label_map_file: "labelmap_voc.prototxt" } nms_param { nms_threshold: 1 }', {"most": 1}),
]


@pytest.mark.parametrize(("param", "told"), SETTINGS)
@pytest.mark.parametrize("shared", [True, False])
def test_detections_are_those_of_the_definition(param: str, told: dict[str, Any], shared: bool) -> None:
    random = np.random.default_rng(1)
    items, boxes, classes = 2, 30, 3
    locations = 1 if shared else classes
    corner = random.uniform(0, 0.6, (boxes, 2))
    corners = np.hstack((corner, corner + random.uniform(0.1, 0.4, (boxes, 2))))
    prior = np.stack((corners, np.tile([0.1, 0.1, 0.2, 0.2], (boxes, 1))))
    offsets = random.uniform(-1, 1, (items, boxes, locations, 4))
    confidences = random.permutation(items * boxes * classes).reshape(items, boxes, classes) / (items * boxes * classes)
    given = [array.astype("f") for array in (offsets, confidences, prior)]
    shapes = {"l": (items, offsets[0].size), "c": (items, confidences[0].size), "p": (1, 2, 4 * boxes)}
    param = f"detection_output_param {{ num_classes: 3 share_location: {str(shared).lower()} {param} }}"
    made = net(inputs(**shapes) + layer("DetectionOutput", "l c p", "y", param))
    assert made.shapes["y"] == (1, 1, 1, 7)
    named = zip(shapes.items(), given, strict=True)
    top = made.forward(**{name: array.reshape(shape) for (name, shape), array in named})["y"]
    want = detected(*(array.astype(np.float64) for array in given), **told)
    assert tuple(top.shape) == (1, 1, len(want), 7)
    np.testing.assert_allclose(top[0, 0].numpy(), want, rtol=1e-5, atol=1e-6)


SSD = (
    """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 8 kernel_size: 3 stride: 4 weight_filler { type: "xavier" } } }
layer { name: "dw" type: "DepthwiseConvolution" bottom: "conv1" top: "dw"
        convolution_param { num_output: 8 group: 8 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU6" bottom: "dw" top: "dw" }
layer { name: "norm" type: "Normalize" bottom: "dw" top: "norm" norm_param { across_spatial: false
        channel_shared: false scale_filler { type: "constant" value: 2 } } }
layer { name: "conv2" type: "Convolution" bottom: "dw" top: "conv2"
        convolution_param { num_output: 8 kernel_size: 3 stride: 2 weight_filler { type: "xavier" } } }
"""
    + "".join(
        f"""
layer {{ name: "{source}_loc" type: "Convolution" bottom: "{source}" top: "{source}_loc"
        convolution_param {{ num_output: 16 kernel_size: 3 pad: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "{source}_loc_perm" type: "Permute" bottom: "{source}_loc" top: "{source}_loc_perm"
        permute_param {{ order: 0 order: 2 order: 3 order: 1 }} }}
layer {{ name: "{source}_loc_flat" type: "Flatten" bottom: "{source}_loc_perm" top: "{source}_loc_flat" }}
layer {{ name: "{source}_conf" type: "Convolution" bottom: "{source}" top: "{source}_conf"
        convolution_param {{ num_output: 12 kernel_size: 3 pad: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "{source}_conf_perm" type: "Permute" bottom: "{source}_conf" top: "{source}_conf_perm"
        permute_param {{ order: 0 order: 2 order: 3 order: 1 }} }}
layer {{ name: "{source}_conf_flat" type: "Flatten" bottom: "{source}_conf_perm" top: "{source}_conf_flat" }}
layer {{ name: "{source}_prior" type: "PriorBox" bottom: "{source}" bottom: "data" top: "{source}_prior"
        prior_box_param {{ min_size: {size} max_size: {2 * size} aspect_ratio: 2
        variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 }} }}
"""
        for source, size in (("norm", 8), ("conv2", 16))
    )
    + "".join(
        f"""
layer {{ name: "{name}" type: "Concat" bottom: "norm_{part}" bottom: "conv2_{part}" top: "{name}"
        concat_param {{ axis: {axis} }} }}
"""
        for name, part, axis in (("loc", "loc_flat", 1), ("conf", "conf_flat", 1), ("prior", "prior", 2))
    )
    + """
layer { name: "reshape" type: "Reshape" bottom: "conf" top: "reshape"
        reshape_param { shape { dim: 0 dim: -1 dim: 3 } } }
layer { name: "softmax" type: "Softmax" bottom: "reshape" top: "softmax" softmax_param { axis: 2 } }
layer { name: "prob" type: "Flatten" bottom: "softmax" top: "prob" }
"""
)
FOUND = """
layer { name: "found" type: "DetectionOutput" bottom: "loc" bottom: "prob" bottom: "prior" top: "found"
        detection_output_param { num_classes: 3 nms_param { nms_threshold: 0.45 top_k: 40 } code_type: CENTER_SIZE
        keep_top_k: 20 confidence_threshold: 0.3 } }
"""


def test_an_ssd_finds_what_the_definition_finds() -> None:
    """End to end: from the net's own offsets and confidences, and prior boxes made here, to its detections."""
    made = net(inputs(data=(2, 3, 32, 48)) + SSD + FOUND)
    data = np.random.default_rng(3).uniform(-2, 2, (2, 3, 32, 48)).astype("f")
    found = made.forward(data=data)["found"][0, 0].detach().numpy()
    pixels = [
        [(size, size), (size * ROOT, size * ROOT), (size * ROOT, size / ROOT), (size / ROOT, size * ROOT)]
        for size in (8, 16)
    ]
    maps = [made.shapes[name][2:] for name in ("norm", "conv2")]
    boxes = np.concatenate(
        [
            priors(places, (32, 48), (32 / places[0], 48 / places[1]), sizes)
            for places, sizes in zip(maps, pixels, strict=True)
        ]
    )
    prior = np.stack((boxes, np.tile([0.1, 0.1, 0.2, 0.2], (len(boxes), 1))))
    heads = {}  # the two heads' maps, laid out as (N, P, 4) and (N, P, 3) by numpy
    for head, values in (("loc", 4), ("conf", 3)):
        parts = [made.blobs[f"{name}_{head}"].detach().double().numpy() for name in ("norm", "conv2")]
        heads[head] = np.concatenate([part.transpose(0, 2, 3, 1).reshape(2, -1, values) for part in parts], 1)
    powers = np.exp(heads["conf"] - heads["conf"].max(2, keepdims=True))
    probabilities = powers / powers.sum(2, keepdims=True)
    want = detected(
        heads["loc"][:, :, None], probabilities, prior, code="CENTER_SIZE", least=0.3, top_k=40, keep=20, most=0.45
    )
    assert len(want) > 10
    assert len(found) == len(want)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


def test_an_ssd_is_read_from_a_binary_file_too(tmp_path: Path) -> None:
    text = inputs(data=(1, 3, 32, 48)) + SSD + FOUND
    (tmp_path / "net.binaryproto").write_bytes(parse_text(text, NetParameter, "net").SerializeToString())
    binary = read_binary(tmp_path / "net.binaryproto", NetParameter)
    data = np.random.default_rng(3).uniform(-2, 2, (1, 3, 32, 48)).astype("f")
    from_text, from_binary = (made.forward(data=data)["found"] for made in (net(text), Net(binary, TEST, seed=1)))
    assert torch.equal(from_text, from_binary)


def test_an_ssd_goes_to_onnx_up_to_its_detections() -> None:
    made = net(inputs(data=(2, 3, 32, 48)) + SSD)
    runtime = onnxruntime.InferenceSession(to_onnx(made).SerializeToString(), providers=["CPUExecutionProvider"])
    data = np.random.default_rng(3).uniform(-2, 2, (2, 3, 32, 48)).astype("f")
    want = made.forward(data=data)
    for name, got in zip(want, runtime.run(list(want), {"data": data}), strict=True):
        np.testing.assert_allclose(got, want[name].detach().numpy(), rtol=1e-4, atol=1e-4, err_msg=name)
    with pytest.raises(LayerError, match="layer 'found': DetectionOutput has no ONNX form here"):
        to_onnx(net(inputs(data=(2, 3, 32, 48)) + SSD + FOUND))


def test_no_gradient_passes_through_detections() -> None:
    text = inputs(l=(1, 4), c=(1, 2), p=(1, 2, 4))
    text += layer("DetectionOutput", "l c p", "y", "detection_output_param { num_classes: 2 } loss_weight: 1")
    made = net(text, TRAIN)
    made.forward(l=torch.zeros(1, 4, requires_grad=True), c=np.ones((1, 2)), p=np.ones((1, 2, 4)))
    with pytest.raises(LayerError, match="DetectionOutput passes no gradient"):
        made.backward()


def test_numbers_that_are_none_do_not_stop_the_detection() -> None:
    made = net(
        inputs(l=(1, 12), c=(1, 6), p=(1, 2, 12))
        + layer("DetectionOutput", "l c p", "y", "detection_output_param { num_classes: 2 code_type: CENTER_SIZE }")
    )
    prior = np.array([[0.0, 0.0, 1.0, 1.0] * 3, [1.0] * 12])[None]
    offsets = np.array([[0, 0, 0, 0, math.nan, math.inf, 1e30, 1e30, 5, 5, 0, 0]])
    top = made.forward(l=offsets, c=np.array([[0, 0.5, 0, math.nan, 0, 0.4]]), p=prior)["y"]
    assert top[0, 0, :, 2].tolist() == pytest.approx([0.5, 0.4])


def test_too_many_boxes_to_compare_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "MAX_CANDIDATES", 3)
    text = inputs(l=(1, 16), c=(1, 8), p=(1, 2, 16))
    given = {"l": np.zeros((1, 16)), "c": np.arange(8).reshape(1, 8), "p": np.tile([0.0, 0, 1, 1], 8).reshape(1, 2, 16)}
    said = r"layer 'it': 4 boxes of class 1 above .* at most 3 .* give nms_param a top_k"
    for param, few in (("", False), ("nms_param { top_k: 3 }", True), ("confidence_threshold: 2", True)):
        made = net(text + layer("DetectionOutput", "l c p", "y", D(f"num_classes: 2 {param}")))
        with nullcontext() if few else pytest.raises(LayerError, match=said):
            made.forward(**given)


def test_a_prior_box_without_area_is_refused() -> None:
    param = "detection_output_param { num_classes: 1 background_label_id: -1 code_type: CENTER_SIZE }"
    made = net(inputs(l=(1, 4), c=(1, 1), p=(1, 2, 4)) + layer("DetectionOutput", "l c p", "y", param))
    with pytest.raises(LayerError, match="layer 'it': a prior box without width or height, where code_type CENTER"):
        made.forward(l=np.zeros((1, 4)), c=np.zeros((1, 1)), p=np.zeros((1, 2, 4)))


MAP = {"x": (1, 4, 5, 6), "i": (1, 3, 50, 60), "v": (1, 4), "l": (1, 8), "c": (1, 4), "p": (1, 2, 8)}
BROKEN = [
    ("DepthwiseConvolution", "x", "convolution_param { kernel_size: 3 num_output: 8 }", "num_output 8 where .* 4 chan"),
    ("DepthwiseConvolution", "x", "convolution_param { kernel_size: 3 group: 1 }", "group 1 where .* 4 channels"),
    ("ConvolutionDepthwise", "x", "convolution_param { kernel_size: 9 }", r"kernel \(9, 9\) is larger"),
    ("ConvolutionDepthwise", "x", "convolution_param { kernel_size: 3 axis: 7 }", "axis 7"),
    ("Permute", "x", "permute_param { order: 0 order: 4 }", r"order \[0, 4\] where different axes of"),
    ("Permute", "x", "permute_param { order: 1 order: 1 }", r"order \[1, 1\] where different axes of"),
    ("Permute", "v", "permute_param { " + "order: 1 " * 500 + "}", r"order \[1, 1, "),
    ("Upsample", "x", "", "no size where scale, or"),
    ("Upsample", "x", "upsample_param { scale: 0 }", r"scale \(0, 0\) where at least 1"),
    ("Upsample", "x", "upsample_param { scale_h: 2 }", r"scale \(2, 0\) where at least 1"),
    ("Upsample", "x", "upsample_param { scale: 2 scale_h: 2 scale_w: 2 }", "scale beside scale_h and scale_w"),
    ("Upsample", "x", "upsample_param { upsample_h: 9 upsample_w: 9 }", "are for a second bottom"),
    ("Upsample", "x", "upsample_param { scale: 2 pad_out_h: true }", "pad_out_h is for"),
    ("Upsample", "x i", "upsample_param { scale: 2 }", r"\(1, 4, 5, 6\), \(1, 3, 50, 60\) where"),
    ("Upsample", "v", "upsample_param { scale: 2 }", r"\(1, 4\) where \(N, C, H, W\)"),
    ("Upsample", "x", "upsample_param { scale: 4000000000 }", "top 'y' of shape"),
    ("Upsample", "x x", "upsample_param { upsample_h: 9 }", "axis after the first"),
    ("Interp", "x", "", "no size where one of zoom_factor, shrink_factor, height and width, a second bottom"),
    ("Interp", "x", "interp_param { zoom_factor: 2 height: 9 width: 9 }", "zoom_factor beside height and width"),
    ("Interp", "x i", "interp_param { shrink_factor: 2 }", "shrink_factor beside a second bottom"),
    ("Interp", "x", "interp_param { zoom_factor: 0 }", "zoom_factor 0, shrink_factor 1 where at least 1"),
    ("Interp", "x", "interp_param { zoom_factor: 2 pad_beg: 1 }", "pad_beg 1, pad_end 0 where at most 0"),
    ("Interp", "x", "interp_param { zoom_factor: 2 pad_end: -5 }", r"height and width \(0, 1\) become"),
    ("Interp", "x", "interp_param { height: 5 }", r"become \(5, 0\)"),
    ("Interp", "x", "interp_param { zoom_factor: 2000000000 }", "top 'y' of shape"),
    ("Interp", "v", "interp_param { zoom_factor: 2 }", r"\(1, 4\) where \(N, C, H, W\)"),
    ("Normalize", "x", "norm_param { eps: -1 }", "eps -1 where a number from 0 on"),
    ("Normalize", "x", "norm_param { eps: nan }", "eps nan where a number from 0 on"),
    ("PriorBox", "x", P("min_size: 5"), "1 bottom where PriorBox takes 2"),
    ("PriorBox", "x v", P("min_size: 5"), r"\(1, 4, 5, 6\) and \(1, 4\) where"),
    ("PriorBox", "x i", "", "no min_size"),
    *(
        ("PriorBox", "x i", P(f"min_size: {size}"), f"min_size {size}.* where a number from 1")
        for size in ("0", "0.5", "-3", "nan", "inf", "1e\\+09")
    ),
    ("PriorBox", "x i", P("min_size: 9 max_size: 9"), r"max_size \[9.0\] where a larger one for each min_size"),
    ("PriorBox", "x i", P("min_size: 9 max_size: 10 max_size: 11"), "where a larger one for each"),
    ("PriorBox", "x i", P("min_size: 9 aspect_ratio: 0"), "aspect_ratio 0 where a number above 0"),
    ("PriorBox", "x i", P("min_size: 9 " + "aspect_ratio: 2 " * 101), "101 values of aspect_ratio where at most 100"),
    ("PriorBox", "x i", P("min_size: 9 variance: 1 variance: 2"), "2 values of variance where 1 or 4"),
    ("PriorBox", "x i", P("min_size: 9 variance: -1"), "variance -1 where a number above 0"),
    ("PriorBox", "x i", P("min_size: 9 img_h: 9"), "img_h where img_size, or img_h and img_w, was"),
    ("PriorBox", "x i", P("min_size: 9 step: 9 step_h: 9"), "step beside step_h where step, or"),
    ("PriorBox", "x i", P("min_size: 9 img_size: 0"), "img_size 0 where a number"),
    ("PriorBox", "x i", P("min_size: 9 step: nan"), "step nan where a number"),
    ("PriorBox", "x i", P("min_size: 9 offset: inf"), "offset inf where"),
    ("DetectionOutput", "l c", D("num_classes: 2"), "2 bottoms where DetectionOutput takes 3 to 4"),
    ("DetectionOutput", "l c p", "", "num_classes 0 where"),
    ("DetectionOutput", "l c p", D("num_classes: 3"), r"2 prior boxes, 1 location\(s\) of each and 3 classes need"),
    ("DetectionOutput", "l c p", D("num_classes: 2 share_location: false"), r"2 location\(s\) of each"),
    ("DetectionOutput", "l c v", D("num_classes: 2"), r"\(1, 4\) where .* \(1, 2, P 4\)"),
    ("DetectionOutput", "l c p", D("num_classes: 2 background_label_id: 2"), "background_label_id 2 where"),
    ("DetectionOutput", "l c p", D("num_classes: 2 keep_top_k: -2"), "keep_top_k -2 where"),
    ("DetectionOutput", "l c p", D("num_classes: 2 nms_param { top_k: -3 }"), "top_k -3 where"),
    ("DetectionOutput", "l c p", D("num_classes: 2 nms_param { nms_threshold: -1 }"), "nms_threshold -1, eta 1 where"),
    ("DetectionOutput", "l c p", D("num_classes: 2 nms_param { eta: 0 }"), "eta 0 where"),
    ("DetectionOutput", "l c p", D("num_classes: 2 nms_param { nms_threshold: nan }"), "nms_threshold nan"),
    ("DetectionOutput", "l c p", D("num_classes: 2 confidence_threshold: nan"), "confidence_threshold nan where"),
    (
        "DetectionOutput",
        "l c p",
        D('num_classes: 2 save_output_param { output_directory: "out" }'),
        "output_directory is set, but this engine neither writes nor shows",
    ),
    ("DetectionOutput", "l c p", D("num_classes: 2 visualize: true"), "visualize is set"),
]


@pytest.mark.parametrize(("kind", "bottoms", "param", "said"), BROKEN)
def test_what_cannot_be_built_says_why(kind: str, bottoms: str, param: str, said: str) -> None:
    with pytest.raises(LayerError, match=f"layer 'it': .*{said}"):
        net(inputs(**MAP) + layer(kind, bottoms, "y", param.replace("\\", "")))


def test_cases_name_every_extension() -> None:
    assert {kind for kind, *_ in (*ALIKE.values(), *BROKEN)} == set(EXTENSIONS)
