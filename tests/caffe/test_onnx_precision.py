"""Half precision, int8 and pre-processing in the graph: what they round, and what they must not change."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from pipeline.caffe.net import Net
from pipeline.caffe.onnx import to_onnx
from pipeline.caffe.onnx.float16 import to_float16
from pipeline.caffe.onnx.preprocessing import PREFIX, Pixels, PixelsError, with_pixels
from pipeline.caffe.onnx.quantise import quantise
from pipeline.caffe.proto.caffe_pb2 import TEST, NetParameter
from pipeline.caffe.proto.files import parse_text

CLASSIFIER = """
layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 1 dim: 3 dim: 16 dim: 16 }} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "x" top: "a"
        convolution_param {{ num_output: 8 kernel_size: 3 {conv} weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "bn" type: "BatchNorm" bottom: "a" top: "a" }}
layer {{ name: "scale" type: "Scale" bottom: "a" top: "a" scale_param {{ bias_term: true }} }}
layer {{ name: "relu" type: "ReLU" bottom: "a" top: "a" }}
layer {{ name: "pool" type: "Pooling" bottom: "a" top: "b" pooling_param {{ kernel_size: 3 stride: 2 }} }}
layer {{ name: "fc" type: "InnerProduct" bottom: "b" top: "c"
        inner_product_param {{ num_output: 5 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "prob" type: "Softmax" bottom: "c" top: "prob" }}
"""


def net_of(text: str) -> Net:
    net = Net(parse_text(text, NetParameter, "case"), TEST, seed=1)
    with torch.no_grad():
        for layer in net.layers:
            if layer.type == "BatchNorm":
                for blob in layer.blobs:
                    blob.fill_(2)
    return net


def classifier(conv: str = "") -> Net:
    return net_of(CLASSIFIER.format(conv=conv))


def run(model: onnx.ModelProto, **inputs: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, inputs)


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_half_precision_keeps_inputs_and_outputs_and_halves_the_rest() -> None:
    model = to_onnx(classifier())
    half = to_float16(model)
    x = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype("f")
    (want,), (got,) = run(model, x=x), run(half, x=x)
    assert got.dtype == np.float32
    assert 0 < np.abs(got - want).max() < 2e-3
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    assert sum(len(tensor.raw_data) for tensor in half.graph.initializer) < 0.51 * weights
    assert "BatchNormalization" not in kinds(half)  # in the convolution's weights, before they were rounded
    floats = {value.name for node in half.graph.node if node.op_type == "Softmax" for value in half.graph.output}
    assert floats == {"prob"}
    assert half.SerializeToString(deterministic=True) == to_float16(model).SerializeToString(deterministic=True)


def test_places_and_indices_are_exact_in_half_precision() -> None:
    net = net_of("""
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 5001 } } }
        layer { name: "i" type: "Input" top: "i" input_param { shape { dim: 2 } } }
        layer { name: "j" type: "Reshape" bottom: "i" top: "j" reshape_param { shape { dim: 0 dim: 1 } } }
        layer { name: "rows" type: "Embed" bottom: "j" top: "rows"
                embed_param { input_dim: 5001 num_output: 3 weight_filler { type: "uniform" } } }
        layer { name: "best" type: "ArgMax" bottom: "x" top: "best" }""")
    x = np.zeros((2, 5001), "f")
    x[0, 4999] = x[1, 3001] = 1
    i = np.array([4999, 3001], "f")
    half = to_float16(to_onnx(net))
    best, rows = run(half, x=x, i=i)
    np.testing.assert_array_equal(best.ravel(), [4999, 3001])
    np.testing.assert_allclose(rows, net.forward(x=x, i=i)["rows"].detach(), atol=1e-3)


def test_what_overflows_half_precision_stays_float32() -> None:
    net = net_of("""
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 6 dim: 8 dim: 8 } } }
        layer { name: "n" type: "LRN" bottom: "x" top: "n" lrn_param { local_size: 3 alpha: 1 } }
        layer { name: "e" type: "Reduction" bottom: "x" top: "e" reduction_param { operation: SUMSQ axis: 1
                coeff: 1e-6 } }""")
    x = np.full((1, 6, 8, 8), 900, "f")  # whose square is beyond float16
    want = net.forward(x=x)
    for name, got in zip(sorted(want), run(to_float16(to_onnx(net)), x=x), strict=True):
        np.testing.assert_allclose(got, want[name].detach(), rtol=2e-3, err_msg=name)


def test_weights_that_half_precision_cannot_hold_stay_float32() -> None:
    net = classifier()
    with torch.no_grad():
        net.params["fc"][0].mul_(1e-8)
        net.params["fc"][1].fill_(1e-7)
    model = to_onnx(net)
    x = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype("f")
    (want,), (got,) = run(model, x=x), run(to_float16(model), x=x)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_int8_answers_alike_in_a_quarter_of_the_size_and_the_same_each_time() -> None:
    net = classifier()
    random = np.random.default_rng(0)
    model = to_onnx(net)
    batches = [random.standard_normal((8, 3, 16, 16)).astype("f") for _ in range(4)]
    small = quantise(model, batches)
    assert small.SerializeToString(deterministic=True) == quantise(model, batches).SerializeToString(deterministic=True)
    assert {"QuantizeLinear", "DequantizeLinear"} <= set(kinds(small))
    weights = {tensor.data_type for tensor in small.graph.initializer if len(tensor.dims) > 1}
    assert weights == {onnx.TensorProto.INT8}
    # Two products with an activation of 255 must fit 16 bits, in which processors without VNNI add them.
    largest = max(
        np.abs(numpy_helper.to_array(tensor).astype(int)).max()
        for tensor in small.graph.initializer
        if len(tensor.dims) > 1
    )
    assert 2 * 255 * largest <= np.iinfo(np.int16).max
    x = random.standard_normal((32, 3, 16, 16)).astype("f")
    (want,), (got,) = run(model, x=x), run(small, x=x)
    assert (want.argmax(1) == got.argmax(1)).mean() > 0.9
    assert 0 < np.abs(got - want).max() < 0.1
    (alone,) = run(small, x=x[:1])
    np.testing.assert_allclose(alone, got[:1], atol=1e-6)  # an image's answer does not hang on its batch


def test_activations_of_int8_are_unsigned_which_processors_multiply_fastest() -> None:
    small = quantise(to_onnx(classifier()), [np.random.default_rng(0).standard_normal((8, 3, 16, 16)).astype("f")])
    constants = {tensor.name: tensor.data_type for tensor in small.graph.initializer}
    zero_points = {constants[node.input[2]] for node in small.graph.node if node.op_type == "QuantizeLinear"}
    assert zero_points == {onnx.TensorProto.UINT8}


MEAN_IMAGE = np.random.default_rng(3).uniform(80, 160, (3, 16, 16)).astype("f")
MEAN_VALUES = np.array([104, 117, 123], "f")[:, None, None]


@pytest.mark.parametrize(
    ("conv", "pixels", "nodes"),
    [
        ("", Pixels((2, 1, 0), 1, MEAN_VALUES, 0.017), 0),  # all of it is fused into the convolution
        ("pad: 1", Pixels((2, 1, 0), 255, MEAN_VALUES, 0.017), 1),  # not the mean, beside which zeros are padded
        ("pad: 1", Pixels((2, 0, 1), 255, None, 0.5), 0),
        ("", Pixels((), 1, MEAN_IMAGE, 1), 1),
        ("", Pixels((1, 2, 0), 1, np.full((1, 1, 1), 128, "f"), 1 / 128, np.uint8), 1),  # the cast
        ("", Pixels((2, 1, 0), 2, MEAN_IMAGE, 0.25, np.uint8), 2),
    ],
)
@pytest.mark.parametrize("fuse", [True, False])
def test_the_graph_does_to_pixels_what_transformer_does(conv: str, pixels: Pixels, nodes: int, fuse: bool) -> None:
    net = classifier(conv)
    model = with_pixels(to_onnx(net), pixels, fuse=fuse)
    own = [node for node in model.graph.node if node.name.startswith(PREFIX)]
    assert len(own) == nodes or (not fuse and len(own) > nodes)
    raw = np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16)).astype(pixels.dtype)
    if pixels.raw_scale == 255:
        raw = (raw / 255).astype("f")
    # (x[channel_swap] * raw_scale - mean) * input_scale: caffe.io.Transformer.preprocess, without the resizing
    x = raw.astype("f")[:, list(pixels.channel_swap) or [0, 1, 2]] * np.float32(pixels.raw_scale)
    x = (x - (0 if pixels.mean is None else pixels.mean)) * np.float32(pixels.scale)
    np.testing.assert_allclose(pixels(raw), x, rtol=1e-6, atol=1e-6)
    (got,) = run(model, x=raw)
    np.testing.assert_allclose(got, net.forward(x=x)["prob"].detach(), atol=1e-5)


def test_pixels_before_a_net_that_takes_any_channels() -> None:
    net = net_of("""
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
        layer { name: "pool" type: "Pooling" bottom: "x" top: "y" pooling_param { kernel_size: 2 stride: 2 } }""")
    raw = np.random.default_rng(0).uniform(size=(2, 3, 9, 7)).astype("f")
    for pixels in (Pixels((2, 0, 1), 1, MEAN_VALUES), Pixels(scale=2)):
        (got,) = run(with_pixels(to_onnx(net), pixels), x=raw)
        np.testing.assert_allclose(got, net.forward(x=pixels(raw))["y"], atol=1e-4)


def test_raw_pixels_of_a_database_are_the_way_back() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4), dtype=np.uint8)
    pixels = Pixels((2, 0, 1), 255, MEAN_VALUES, 0.5)
    np.testing.assert_allclose(pixels(pixels.raw(images)), (images - MEAN_VALUES) * 0.5, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (Pixels((0, 1)), "channel_swap 0,1 where the 3 channels"),
        (Pixels(mean=np.zeros((3, 8, 8), "f")), r"a mean of shape \(3, 8, 8\) where input 'x' takes images of"),
        (Pixels(scale=0), "raw_scale 1 and scale 0"),
    ],
)
def test_pixels_that_do_not_suit_the_input_are_refused(pixels: Pixels, message: str) -> None:
    with pytest.raises(PixelsError, match=message):
        pixels.check("x", (1, 3, 16, 16))


def test_another_runtime_answers_alike() -> None:
    cv2 = pytest.importorskip("cv2")
    net = classifier("pad: 1")
    x = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype("f")
    want = net.forward(x=x)["prob"].detach().numpy()
    model = to_onnx(net)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1  # which OpenCV wants to know
    other = cv2.dnn.readNetFromONNX(np.frombuffer(model.SerializeToString(), np.uint8))
    other.setInput(x)
    np.testing.assert_allclose(other.forward(), want, atol=1e-5)


@pytest.mark.parametrize("level", ["DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL"])
def test_every_optimisation_level_answers_alike(level: str) -> None:
    net = classifier("pad: 1")
    random = np.random.default_rng(0)
    x = random.standard_normal((4, 3, 16, 16)).astype("f")
    want = net.forward(x=x)["prob"].detach().numpy()
    model = to_onnx(net)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{level}")
    options.log_severity_level = 3
    for made, tolerance in ((model, 1e-5), (to_float16(model), 2e-3), (quantise(model, [x]), 0.1)):
        runtime = onnxruntime.InferenceSession(made.SerializeToString(), options)
        np.testing.assert_allclose(runtime.run(None, {"x": x})[0], want, atol=tolerance)
