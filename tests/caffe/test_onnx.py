"""The ONNX form of every layer and net answers as the engine does."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from pipeline.caffe.layers import LAYERS, Layer, LayerError
from pipeline.caffe.layers.pooling import Pooling
from pipeline.caffe.net import Net, build_net
from pipeline.caffe.onnx import to_onnx
from pipeline.caffe.proto.caffe_pb2 import TEST, LayerParameter, NetParameter
from pipeline.caffe.proto.files import parse_text

PROTOTXT = Path(__file__).parents[2] / "prototxt"

# Each case: the inputs' shapes, then the layers. Some have several layers, where joining is the point.
IMAGE = (2, 6, 9, 8)
CASES = {
    "convolution": (IMAGE, 'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 pad: 1 stride: 2 }'),
    "convolution group dilation": (
        IMAGE,
        'type: "Convolution" convolution_param { num_output: 4 kernel_h: 3 '
        "kernel_w: 2 pad_h: 2 pad_w: 0 dilation: 2 group: 2 bias_term: false }",
    ),
    "convolution 1-D": ((2, 6, 9), 'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 }'),
    "convolution 3-D": (
        (2, 3, 5, 6, 7),
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 pad: 1 }',
    ),
    "inner product": (IMAGE, 'type: "InnerProduct" inner_product_param { num_output: 5 }'),
    "inner product transpose": (IMAGE, 'type: "InnerProduct" inner_product_param { num_output: 5 transpose: true }'),
    "inner product axis 2": (
        IMAGE,
        'type: "InnerProduct" inner_product_param { num_output: 5 axis: 2 bias_term: false }',
    ),
    "relu": (IMAGE, 'type: "ReLU"'),
    "relu6": (IMAGE, 'type: "ReLU6"'),
    "depthwise": (IMAGE, 'type: "ConvolutionDepthwise" convolution_param { kernel_size: 3 pad: 1 }'),
    "depthwise group": (IMAGE, 'type: "DepthwiseConvolution" convolution_param { kernel_size: 3 group: 6 }'),
    "permute": (IMAGE, 'type: "Permute" permute_param { order: 0 order: 2 order: 3 order: 1 }'),
    "permute batch": (IMAGE, 'type: "Permute" permute_param { order: 1 }'),
    "upsample": (IMAGE, 'type: "Upsample" upsample_param { scale_h: 3 scale_w: 2 }'),
    "interp zoom": (IMAGE, 'type: "Interp" interp_param { zoom_factor: 3 }'),
    "interp shrink": (IMAGE, 'type: "Interp" interp_param { shrink_factor: 2 pad_beg: -1 pad_end: -2 }'),
    "interp size": (IMAGE, 'type: "Interp" interp_param { height: 5 width: 17 pad_beg: -1 }'),
    "interp row": (IMAGE, 'type: "Interp" interp_param { height: 1 width: 8 }'),
    "normalize": (IMAGE, 'type: "Normalize"'),
    "normalize channels": (
        IMAGE,
        'type: "Normalize" norm_param { across_spatial: false channel_shared: false '
        'scale_filler { type: "uniform" min: 1 max: 20 } }',
    ),
    "leaky relu": (IMAGE, 'type: "ReLU" relu_param { negative_slope: 0.2 }'),
    "prelu": (IMAGE, 'type: "PReLU"'),
    "prelu shared": (IMAGE, 'type: "PReLU" prelu_param { channel_shared: true }'),
    "prelu of vectors": ((2, 6), 'type: "PReLU"'),
    "sigmoid": (IMAGE, 'type: "Sigmoid"'),
    "tanh": (IMAGE, 'type: "TanH"'),
    "dropout": (IMAGE, 'type: "Dropout"'),
    "batch norm": (IMAGE, 'type: "BatchNorm"'),
    "batch norm of vectors": ((3, 6), 'type: "BatchNorm"'),
    "batch norm by the batch": (IMAGE, 'type: "BatchNorm" batch_norm_param { use_global_stats: false }'),
    "scale": (IMAGE, 'type: "Scale" scale_param { bias_term: true }'),
    "scale of images": (IMAGE, 'type: "Scale" scale_param { axis: 1 num_axes: 3 }'),
    "bias": (IMAGE, 'type: "Bias"'),
    "absolute": (IMAGE, 'type: "AbsVal"'),
    "threshold": (IMAGE, 'type: "Threshold" threshold_param { threshold: 0.3 }'),
    "clip": (IMAGE, 'type: "Clip" clip_param { min: -0.4 max: 0.7 }'),
    "power": (IMAGE, 'type: "Power" power_param { power: 3 scale: 0.5 shift: 1.5 }'),
    "power linear": (IMAGE, 'type: "Power" power_param { scale: -2 }'),
    "exp": (IMAGE, 'type: "Exp" exp_param { base: 2 scale: 0.5 shift: 1 }'),
    "log": (IMAGE, 'type: "Log" log_param { base: 10 scale: 0.2 shift: 3 }'),
    "elu": (IMAGE, 'type: "ELU" elu_param { alpha: 0.4 }'),
    "bnll": (IMAGE, 'type: "BNLL"'),
    "swish": (IMAGE, 'type: "Swish" swish_param { beta: 1.5 }'),
    "deconvolution": (
        IMAGE,
        'type: "Deconvolution" convolution_param { num_output: 4 kernel_size: 4 stride: 2 pad: 1 group: 2 }',
    ),
    "deconvolution dilation": (
        IMAGE,
        'type: "Deconvolution" convolution_param { num_output: 4 kernel_h: 3 kernel_w: 2 dilation: 2 '
        "bias_term: false }",
    ),
    "deconvolution 3-D": (
        (2, 3, 3, 4, 2),
        'type: "Deconvolution" convolution_param { num_output: 4 kernel_size: 3 stride: 2 }',
    ),
    "im2col": (IMAGE, 'type: "Im2col" convolution_param { kernel_h: 2 kernel_w: 3 pad: 1 stride: 2 dilation: 2 }'),
    "im2col 1-D": ((2, 6, 9), 'type: "Im2col" convolution_param { kernel_size: 3 }'),
    "spp": (IMAGE, 'type: "SPP" spp_param { pyramid_height: 3 }'),
    "spp ave": (IMAGE, 'type: "SPP" spp_param { pyramid_height: 2 pool: AVE }'),
    "spp one level": (IMAGE, 'type: "SPP" spp_param { pyramid_height: 1 }'),
    "mvn": (IMAGE, 'type: "MVN"'),
    "mvn across": (IMAGE, 'type: "MVN" mvn_param { across_channels: true eps: 0.1 }'),
    "mvn mean": (IMAGE, 'type: "MVN" mvn_param { normalize_variance: false }'),
    "tile": (IMAGE, 'type: "Tile" tile_param { axis: 2 tiles: 3 }'),
    "slice one": (IMAGE, 'type: "Slice"'),
    **{
        f"reduction {operation} {axis}": (
            IMAGE,
            f'type: "Reduction" reduction_param {{ operation: {operation} axis: {axis} coeff: 0.1 }}',
        )
        for operation in ("SUM", "ASUM", "SUMSQ", "MEAN")
        for axis in (0, 1, -1)
    },
    **{
        f"argmax {param}": (IMAGE, f'type: "ArgMax" argmax_param {{ {param} }}')
        for param in ("", "top_k: 3 out_max_val: true", "axis: 1", "axis: -1 top_k: 2", "axis: 2 out_max_val: true")
    },
    "softmax": (IMAGE, 'type: "Softmax"'),
    "softmax axis": (IMAGE, 'type: "Softmax" softmax_param { axis: -1 }'),
    "flatten": (IMAGE, 'type: "Flatten"'),
    "flatten middle": (IMAGE, 'type: "Flatten" flatten_param { axis: 1 end_axis: 2 }'),
    "reshape": (IMAGE, 'type: "Reshape" reshape_param { shape { dim: 0 dim: 3 dim: -1 dim: 8 } }'),
    "reshape middle": (IMAGE, 'type: "Reshape" reshape_param { axis: 1 num_axes: 2 shape { dim: 2 dim: 27 } }'),
    "reshape inserts": (IMAGE, 'type: "Reshape" reshape_param { axis: 2 num_axes: 0 shape { dim: 1 } }'),
    "lrn": (IMAGE, 'type: "LRN" lrn_param { local_size: 3 alpha: 0.5 beta: 0.7 k: 2 }'),
    "lrn within": (IMAGE, 'type: "LRN" lrn_param { local_size: 3 alpha: 0.5 norm_region: WITHIN_CHANNEL }'),
    "global max": (IMAGE, 'type: "Pooling" pooling_param { global_pooling: true }'),
    "global ave": (IMAGE, 'type: "Pooling" pooling_param { global_pooling: true pool: AVE }'),
    **{
        f"{pool} {kernel}/{stride} pad {pad} {mode}": (
            IMAGE,
            f'type: "Pooling" pooling_param {{ pool: {pool} kernel_size: {kernel} stride: {stride} pad: {pad} '
            f"round_mode: {mode} }}",
        )
        for pool in ("MAX", "AVE")
        for mode in ("CEIL", "FLOOR")
        for kernel, stride, pad in (
            (2, 2, 0),
            (3, 2, 0),
            (3, 2, 1),
            (3, 2, 2),
            (3, 3, 1),
            (2, 3, 1),
            (5, 2, 2),
            (4, 3, 0),
        )
    },
    "pooling kernel_h": (
        IMAGE,
        'type: "Pooling" pooling_param { kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 1 pad_h: 1 pad_w: 0 }',
    ),
}
JOINED = {
    "eltwise sum": 'type: "Eltwise" eltwise_param { coeff: 0.5 coeff: -1 }',
    "eltwise product": 'type: "Eltwise" eltwise_param { operation: PROD }',
    "eltwise max": 'type: "Eltwise" eltwise_param { operation: MAX }',
    "concat": 'type: "Concat"',
    "concat axis": 'type: "Concat" concat_param { axis: -1 }',
}

# Bottoms by name, each with its shape and, where it holds whole numbers, below what they stay.
CHOOSING: dict[str, tuple[dict[str, tuple[tuple[int, ...], int]], str]] = {
    "batch reindex": ({"a": ((4, 3, 5), 0), "b": ((6,), 4)}, 'type: "BatchReindex"'),
    "filter": ({"a": ((4, 3, 5), 0), "b": ((4,), 2)}, 'type: "Filter"'),
    "embed": ({"b": ((4, 3), 7)}, 'type: "Embed" embed_param { num_output: 5 input_dim: 7 }'),
    "crop": ({"a": (IMAGE, 0), "b": ((2, 3, 5, 4), 0)}, 'type: "Crop" crop_param { offset: 2 offset: 1 }'),
    "lstm": ({"a": ((5, 3, 4), 0), "b": ((5, 3), 2)}, 'type: "LSTM" recurrent_param { num_output: 6 }'),
    "rnn": ({"a": ((5, 3, 2, 2), 0), "b": ((5, 3), 2)}, 'type: "RNN" recurrent_param { num_output: 6 }'),
    "prior box": (
        {"a": ((2, 4, 5, 4), 0), "b": ((2, 3, 20, 30), 0)},
        'type: "PriorBox" prior_box_param { min_size: 5 max_size: 9 aspect_ratio: 2 clip: true }',
    ),
    "interp to another": ({"a": (IMAGE, 0), "b": ((2, 3, 5, 17), 0)}, 'type: "Interp" interp_param { pad_end: -1 }'),
    "crop channels": ({"a": (IMAGE, 0), "b": ((2, 3, 5, 4), 0)}, 'type: "Crop" crop_param { axis: 1 offset: 2 }'),
}


def input_layer(name: str, shape: tuple[int, ...]) -> str:
    dims = " ".join(f"dim: {size}" for size in shape)
    return f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}\n'


def filled(net: Net) -> Net:
    """Blobs with random values, variances and factors above 0."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for blobs in net.params.values():
            for blob in blobs:
                blob.copy_(
                    torch.rand(blob.shape, generator=generator) + 0.1
                    if blob.numel() < 20
                    else torch.randn(blob.shape, generator=generator) * blob[0].numel() ** -0.5
                )
    return net


def net_of(text: str) -> Net:
    return filled(Net(parse_text(text, NetParameter, "case"), TEST, seed=1))


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def assert_agrees(net: Net, runtime: onnxruntime.InferenceSession, **inputs: np.ndarray) -> None:
    want = net.forward(**inputs)
    for name, got in zip(want, runtime.run(list(want), inputs), strict=True):
        np.testing.assert_allclose(got, want[name].detach().numpy(), rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("name", CASES)
def test_layer_answers_as_the_engine(name: str) -> None:
    dims, layer = CASES[name]
    net = net_of(input_layer("x", dims) + f'layer {{ name: "it" bottom: "x" top: "y" {layer} }}')
    runtime = session(to_onnx(net))
    for batch in (dims[0], 1, 5):  # the batch is symbolic
        assert_agrees(net, runtime, x=np.random.default_rng(batch).standard_normal((batch, *dims[1:])).astype("f"))


@pytest.mark.parametrize("name", JOINED)
def test_joining_layer_answers_as_the_engine(name: str) -> None:
    net = net_of(
        input_layer("a", (2, 6, 9, 8))
        + input_layer("b", (2, 6, 9, 8))
        + f'layer {{ name: "it" bottom: "a" bottom: "b" top: "y" {JOINED[name]} }}'
    )
    a, b = np.random.default_rng(0).standard_normal((2, 3, 6, 9, 8)).astype("f")
    assert_agrees(net, session(to_onnx(net)), a=a, b=b)


@pytest.mark.parametrize("name", CHOOSING)
def test_choosing_layer_answers_as_the_engine(name: str) -> None:
    inputs, layer = CHOOSING[name]
    bottoms = " ".join(f'bottom: "{bottom}"' for bottom in inputs)
    net = net_of(
        "".join(input_layer(bottom, dims) for bottom, (dims, _) in inputs.items())
        + f'layer {{ name: "it" {bottoms} top: "y" {layer} }}'
    )
    random = np.random.default_rng(0)
    drawn = {
        bottom: random.integers(below, size=dims) if below else random.standard_normal(dims)
        for bottom, (dims, below) in inputs.items()
    }
    assert_agrees(net, session(to_onnx(net)), **{bottom: value.astype("f") for bottom, value in drawn.items()})


def test_sequences_of_any_length_are_read() -> None:
    net = net_of(
        input_layer("x", (5, 3, 4))
        + input_layer("cont", (5, 3))
        + input_layer("h", (1, 3, 6))
        + input_layer("c", (1, 3, 6))
        + """
        layer { name: "it" type: "LSTM" bottom: "x" bottom: "cont" bottom: "h" bottom: "c" top: "y" top: "hT" top: "cT"
                recurrent_param { num_output: 6 expose_hidden: true } }"""
    )
    random = np.random.default_rng(0)
    h, c = random.standard_normal((2, 1, 3, 6)).astype("f")
    for steps in (5, 1, 8):
        x, cont = random.standard_normal((steps, 3, 4)).astype("f"), random.integers(2, size=(steps, 3)).astype("f")
        assert_agrees(net, session(to_onnx(net)), x=x, cont=cont, h=h, c=c)


def test_one_step_of_an_lstm() -> None:
    net = net_of(
        input_layer("c", (1, 3, 4))
        + input_layer("x", (1, 3, 16))
        + input_layer("cont", (1, 3))
        + 'layer { name: "it" type: "LSTMUnit" bottom: "c" bottom: "x" bottom: "cont" top: "cT" top: "hT" }'
    )
    random = np.random.default_rng(0)
    c, x = random.standard_normal((1, 3, 4)).astype("f"), random.standard_normal((1, 3, 16)).astype("f")
    assert_agrees(net, session(to_onnx(net)), c=c, x=x, cont=np.array([[0, 1, 1]], "f"))


def test_equal_values_keep_their_order() -> None:
    net = net_of(
        input_layer("x", (2, 3, 5))
        + 'layer { name: "it" type: "ArgMax" bottom: "x" top: "y" argmax_param { top_k: 9 out_max_val: true } }'
    )
    assert_agrees(net, session(to_onnx(net)), x=np.random.default_rng(0).integers(3, size=(4, 3, 5)).astype("f"))


def test_parts_and_learned_blobs_join_the_graph() -> None:
    net = net_of(
        input_layer("x", (3, 6, 4))
        + """
        layer { name: "cut" type: "Slice" bottom: "x" top: "a" top: "b" slice_param { slice_point: 2 } }
        layer { name: "blob" type: "Parameter" top: "p" parameter_param { shape { dim: 3 dim: 4 dim: 4 } } }
        layer { name: "sum" type: "Eltwise" bottom: "b" bottom: "p" top: "sum" }"""
    )
    assert_agrees(net, session(to_onnx(net)), x=np.random.default_rng(0).standard_normal((3, 6, 4)).astype("f"))


def test_no_images_at_all_are_a_batch_too() -> None:
    net = net_of(
        input_layer("x", (1, 3, 8, 8))
        + """
        layer { name: "conv" type: "Convolution" bottom: "x" top: "a"
                convolution_param { num_output: 4 kernel_size: 3 } }
        layer { name: "pool" type: "Pooling" bottom: "a" top: "b" pooling_param { kernel_size: 2 stride: 2 } }
        layer { name: "flat" type: "Flatten" bottom: "b" top: "c" }
        layer { name: "fc1" type: "InnerProduct" bottom: "b" top: "d" inner_product_param { num_output: 5 } }
        layer { name: "fc2" type: "InnerProduct" bottom: "c" top: "e" inner_product_param { num_output: 5 } }"""
    )
    assert_agrees(net, session(to_onnx(net)), x=np.empty((0, 3, 8, 8), np.float32))


def test_scale_by_a_second_bottom() -> None:
    net = net_of(
        input_layer("a", (2, 6, 9, 8))
        + input_layer("b", (2, 6))
        + 'layer { name: "it" type: "Scale" bottom: "a" bottom: "b" top: "y" scale_param { axis: 0 } }'
    )
    generator = np.random.default_rng(0)
    assert_agrees(
        net,
        session(to_onnx(net)),
        a=generator.standard_normal((2, 6, 9, 8)).astype("f"),
        b=generator.standard_normal((2, 6)).astype("f"),
    )


def test_in_place_tops_and_split_blobs_keep_their_order() -> None:
    net = net_of(
        input_layer("x", (2, 4))
        + """
        layer { name: "fc" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 4 } }
        layer { name: "relu" type: "ReLU" bottom: "y" top: "y" }
        layer { name: "tanh" type: "TanH" bottom: "y" top: "z" }
        layer { name: "sum" type: "Eltwise" bottom: "y" bottom: "z" top: "sum" }
        layer { name: "last" type: "Sigmoid" bottom: "sum" top: "sum" }
        layer { name: "unused" type: "Silence" bottom: "x" }"""
    )
    model = to_onnx(net)
    assert [value.name for value in model.graph.output] == ["sum"]
    assert_agrees(net, session(model), x=np.random.default_rng(0).standard_normal((2, 4)).astype("f"))


def test_every_other_layer_type_says_its_name() -> None:
    told = {"Input"} | {name for name, kind in LAYERS.items() if kind.onnx is not Layer.onnx}
    cases = [*(text for _, text in CASES.values()), *JOINED.values(), *(text for _, text in CHOOSING.values())]
    tested = {case.split('type: "')[1].split('"')[0] for case in cases}
    assert told == tested | {"Input", "LSTMUnit", "Parameter", "Split", "Silence"}
    net = net_of(
        input_layer("x", (2, 4))
        + input_layer("t", (2, 4))
        + 'layer { name: "far" type: "EuclideanLoss" bottom: "x" bottom: "t" top: "loss" }'
    )
    with pytest.raises(LayerError, match="layer 'far': EuclideanLoss has no ONNX form"):
        to_onnx(net)


def test_windows_outside_the_image_have_no_average() -> None:
    gaps = net_of(
        input_layer("x", (2, 4, 6, 6)) + 'layer { name: "pool" type: "Pooling" bottom: "x" top: "y" '
        "pooling_param { pool: AVE kernel_size: 1 stride: 4 } }"
    )
    with pytest.raises(LayerError, match="layer 'pool': stride"):
        to_onnx(gaps)


# Layers under which images may have any size, and sizes to try: odd, even, and where the last window is clipped.
ANY_SIZE = {
    **{
        f"{pool} {kernel}/{stride} pad {pad} {mode}": f'type: "Pooling" pooling_param {{ pool: {pool} '
        f"kernel_size: {kernel} stride: {stride} pad: {pad} round_mode: {mode} }}"
        for pool in ("MAX", "AVE")
        for mode in ("CEIL", "FLOOR")
        for kernel, stride, pad in ((2, 2, 0), (3, 2, 0), (3, 2, 1), (3, 2, 2), (3, 1, 1), (2, 2, 1), (2, 3, 1))
    },
    "max, stride beyond kernel": 'type: "Pooling" pooling_param { kernel_size: 1 stride: 4 }',
    "stochastic": 'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 3 stride: 2 }',
    "global ave": 'type: "Pooling" pooling_param { pool: AVE global_pooling: true }',
    "convolution": 'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 pad: 1 stride: 2 }',
    "deconvolution": 'type: "Deconvolution" convolution_param { num_output: 2 kernel_size: 4 stride: 2 pad: 1 }',
    "lrn": 'type: "LRN" lrn_param { local_size: 3 alpha: 0.5 }',
    "lrn within": 'type: "LRN" lrn_param { local_size: 3 alpha: 0.5 norm_region: WITHIN_CHANNEL }',
    "mvn": 'type: "MVN"',
    "flatten": 'type: "Flatten"',
    "reshape": 'type: "Reshape" reshape_param { shape { dim: 0 dim: 2 dim: -1 } }',
    "reduction": 'type: "Reduction" reduction_param { axis: 1 }',
    "batch norm": 'type: "BatchNorm"',
    "scale": 'type: "Scale" scale_param { bias_term: true }',
    "prelu": 'type: "PReLU"',
    "softmax": 'type: "Softmax"',
    "tile": 'type: "Tile" tile_param { axis: 2 tiles: 2 }',
    "im2col": 'type: "Im2col" convolution_param { kernel_size: 3 stride: 2 pad: 1 }',
}


def axes_of(model: onnx.ModelProto) -> list[bool]:
    """Which axes of the first input take any size."""
    return [bool(dimension.dim_param) for dimension in model.graph.input[0].type.tensor_type.shape.dim]


@pytest.mark.parametrize("name", ANY_SIZE)
def test_images_of_any_size_where_the_layer_allows_them(name: str) -> None:
    net = net_of(input_layer("x", (1, 6, 9, 8)) + f'layer {{ name: "it" bottom: "x" top: "y" {ANY_SIZE[name]} }}')
    model = to_onnx(net)
    assert axes_of(model)[2:] == [True, True]
    runtime = session(model)
    for height, width in ((9, 8), (5, 6), (7, 12), (10, 11), (13, 21)):
        shape = (2, 6, height, width)
        assert_agrees(net, runtime, x=np.random.default_rng(0).uniform(size=shape).astype("f"))


def test_pooling_of_any_size_has_as_many_windows_as_of_that_size() -> None:
    numbers = (
        (kernel, stride, pad, mode)
        for kernel in range(1, 6)
        for stride in range(1, 7)
        for pad in range(kernel)
        for mode in ("CEIL", "FLOOR")
    )
    for kernel, stride, pad, mode in numbers:
        param = f"kernel_size: {kernel} stride: {stride} pad: {pad} round_mode: {mode}"
        layer = f'name: "it" type: "Pooling" bottom: "x" top: "y" pooling_param {{ {param} }}'
        pooling = Pooling(parse_text(layer, LayerParameter, "case"), torch.Generator())
        pooling.setup([(1, 1, 5, 5)])
        end, _ = pooling.ends((-1, -1))
        for size in range(max(1, kernel - 2 * pad), 25):
            assert (size + pad + end - kernel) // stride + 1 == pooling.pooled((size, size))[0], (param, size)


def test_crop_follows_the_second_bottom_at_any_size() -> None:
    net = net_of(
        input_layer("x", (1, 2, 12, 12))
        + """
        layer { name: "down" type: "Convolution" bottom: "x" top: "d"
                convolution_param { num_output: 3 kernel_size: 3 stride: 2 pad: 4 } }
        layer { name: "up" type: "Deconvolution" bottom: "d" top: "u"
                convolution_param { num_output: 2 kernel_size: 4 stride: 2 } }
        layer { name: "crop" type: "Crop" bottom: "u" bottom: "x" top: "y" crop_param { offset: 3 } }"""
    )
    runtime = session(to_onnx(net))
    for shape in ((1, 2, 12, 12), (3, 2, 31, 18), (2, 2, 17, 40)):
        assert_agrees(net, runtime, x=np.random.default_rng(0).standard_normal(shape).astype("f"))


@pytest.mark.parametrize(
    ("layer", "axes"),
    [
        ('type: "InnerProduct" inner_product_param { num_output: 3 }', [True, False, False, False]),
        ('type: "SPP" spp_param { pyramid_height: 2 }', [True, False, False, False]),
        ('type: "Scale" scale_param { axis: 3 }', [True, False, True, False]),
        ('type: "Convolution" convolution_param { num_output: 3 kernel_size: 3 }', [True, False, True, True]),
        ('type: "Reshape" reshape_param { shape { dim: 1 dim: 6 dim: 72 } }', [False, False, False, False]),
        ('type: "Slice" slice_param { axis: 3 slice_point: 3 } top: "z"', [True, False, False, False]),
    ],
)
def test_the_net_itself_says_which_sizes_may_change(layer: str, axes: list[bool]) -> None:
    net = net_of(input_layer("x", (1, 6, 9, 8)) + f'layer {{ name: "it" bottom: "x" top: "y" {layer} }}')
    model = to_onnx(net)
    found = axes_of(model)
    assert (found[0], *found[2:]) == (axes[0], *axes[2:])
    shape = tuple(size + 4 if symbolic else size for size, symbolic in zip((1, 6, 9, 8), found, strict=True))
    if not found[1]:
        assert_agrees(net, session(model), x=np.random.default_rng(0).standard_normal(shape).astype("f"))
    assert axes_of(to_onnx(net, flexible=False))[2:] == [False, False]


def test_a_layer_that_fixes_the_size_is_named() -> None:
    net = net_of(
        input_layer("x", (1, 6, 9, 8))
        + 'layer { name: "fc" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 3 } }'
    )
    with pytest.raises(LayerError, match="layer 'fc': InnerProduct has blobs that depend on the size"):
        to_onnx(net, flexible=True)


@pytest.mark.parametrize(
    "deploy",
    [*PROTOTXT.glob("*/deploy.prototxt"), *PROTOTXT.glob("mtcnn/*.prototxt")],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_nets_of_this_repository_answer_as_the_engine(deploy: Path) -> None:
    net = filled(build_net(deploy, TEST, seed=1))
    (name,) = net.inputs
    images = np.random.default_rng(0).uniform(-1, 1, (3, *net.shapes[name][1:])).astype("f")
    assert_agrees(net, session(to_onnx(net)), **{name: images})
