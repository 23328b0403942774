"""Layer types: what cannot be built says why; and what real Caffe cannot be asked, as what is drawn at random."""

import numpy as np
import pytest
import torch
from helpers.layer_text import inputs, layer, net

from pipeline.caffe.forks import FOREIGN_FIELDS, FOREIGN_TYPES
from pipeline.caffe.layers import LAYERS, LayerError
from pipeline.caffe.layers.data import MemoryData
from pipeline.caffe.net import Net
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, NetParameter, Phase
from pipeline.caffe.proto.files import PrototxtError, parse_text

IMAGE = (2, 6, 9, 8)
BROKEN = [
    ("Exp", "a", "y", "exp_param { base: 0 }", "base 0 "),
    ("Log", "a", "y", "log_param { base: -2 }", "base -2 "),
    ("Log", "a", "y", "log_param { base: 1 }", "base 1,"),
    ("Slice", "a", "x y z w", "", r"4 tops do not divide the 6 of axis 1 .*\(2, 6, 9, 8\)"),
    ("Slice", "a", "x y", "slice_param { slice_point: 6 }", r"slice_point \[6\] where 1 rising numbers"),
    ("Slice", "a", "x y z", "slice_param { slice_point: 3 slice_point: 2 }", r"slice_point \[3, 2\]"),
    ("Slice", "a", "x y", "slice_param { axis: 1 slice_dim: 1 }", "both axis and slice_dim"),
    ("Crop", "a b", "y", "crop_param { offset: 3 }", r"7 from offset 3 .* axis 2 .*\(2, 6, 9, 8\)"),
    ("Crop", "a b", "y", "crop_param { offset: 1 offset: 1 offset: 1 }", "3 offsets .* 0, 1 or 2"),
    ("Crop", "a v", "y", "", r"\(2, 6, 9, 8\) and \(2, 6\) where"),
    ("Tile", "a", "y", "tile_param { tiles: 0 }", "tiles 0"),
    ("Reduction", "a", "y", "reduction_param { axis: 4 }", r"axis 4 where the bottom has shape \(2, 6, 9, 8\)"),
    ("ArgMax", "a", "y", "argmax_param { axis: 1 top_k: 7 }", "top_k 7 where there are 6"),
    ("ArgMax", "v", "y", "argmax_param { top_k: 0 }", "top_k 0 where there are 6"),
    ("BatchReindex", "a v", "y", "", r"\(2, 6, 9, 8\) and \(2, 6\) where"),
    ("Filter", "a v", "y", "", r"\(2, 6, 9, 8\), \(2, 6\) where"),
    ("Filter", "a b s", "y", "", "1 tops where one for each bottom but the last"),
    ("Embed", "s", "y", "embed_param { num_output: 3 }", "input_dim 0"),
    ("Im2col", "a", "y", "convolution_param { kernel_size: 10 }", r"kernel \(10, 10\) is larger"),
    ("Im2col", "a", "y", "convolution_param { kernel_size: 3 axis: 3 }", "no spatial axes after axis 3"),
    ("Deconvolution", "a", "y", "convolution_param { num_output: 4 kernel_size: 3 group: 4 }", "group 4 does not"),
    ("Deconvolution", "a", "y", "convolution_param { num_output: 4 kernel_size: 1 pad: 5 }", r"pad \(5, 5\) cuts off"),
    ("SPP", "v", "y", "spp_param { pyramid_height: 2 }", r"shape \(2, 6\) .* where \(N, C, H, W\)"),
    ("SPP", "a", "y", "", "pyramid_height 0"),
    ("MVN", "f", "y", "", "at most four axes"),
    ("Convolution", "a", "y", "convolution_param { num_output: 2 kernel_size: 10 stride: 2 }", r"kernel \(10, 10\) is"),
    ("Flatten", "a", "y", "flatten_param { axis: 2 end_axis: 0 }", "end_axis 0 lies before axis 2"),
    ("Pooling", "a", "y m", "pooling_param { pool: AVE kernel_size: 2 }", "second top"),
    ("Pooling", "a", "y", "pooling_param { pool: STOCHASTIC kernel_size: 3 pad: 1 }", "takes no pad"),
    ("Pooling", "a", "y", "pooling_param { kernel_size: 3 pad_h: 1 }", "both pad_h and pad_w"),
    ("Pooling", "a", "y", "pooling_param { global_pooling: true pad: 1 }", "global_pooling takes no pad"),
    ("Pooling", "a", "y", "pooling_param { global_pooling: true stride: 2 }", "no stride but 1"),
    ("Concat", "a a", "y", "concat_param { axis: 1 concat_dim: 1 }", "both axis and concat_dim"),
    ("HingeLoss", "v a", "y", "", "864 labels"),
    ("MultinomialLogisticLoss", "v v", "y", "", "12 labels"),
    ("SigmoidCrossEntropyLoss", "v s", "y", "", "as many targets as scores"),
    ("InfogainLoss", "v s", "y", "", "neither a third bottom nor a source"),
    ("InfogainLoss", "v s v", "y", "", r"matrix of shape \(2, 6\) where 6x6"),
    ("ContrastiveLoss", "a a s", "y", "", r"where \(N, C\) twice"),
    ("ContrastiveLoss", "v v v", "y", "", "12 labels where 2 pairs"),
    ("LSTMUnit", "a v s", "c h", "", r"where \(1, N, H\), \(1, N, 4 H\), \(1, N\)"),
    ("LSTM", "a v", "y", "", "num_output 0"),
    ("LSTM", "a v", "y h c", "recurrent_param { num_output: 3 expose_hidden: true }", "2 bottoms and 3 tops"),
    ("RNN", "a s", "y", "recurrent_param { num_output: 3 }", r"\(T, N, ...\), \(T, N\)"),
    ("DummyData", "", "x y z", "dummy_data_param { shape { dim: 1 } shape { dim: 2 } }", "2 shape where 1 or 3"),
    ("DummyData", "", "x", "dummy_data_param { num: 2 shape { dim: 1 } }", "both shape and num"),
    ("DummyData", "", "x", 'dummy_data_param { shape { dim: 1 } data_filler { type: "odd" } }', "filler 'odd'"),
    ("MemoryData", "", "x y", "memory_data_param { batch_size: 2 channels: 3 height: 4 }", r"\(2, 3, 4, 0\)"),
]


@pytest.mark.parametrize(("kind", "bottoms", "tops", "param", "said"), BROKEN)
def test_a_layer_that_cannot_be_built_says_why(kind: str, bottoms: str, tops: str, param: str, said: str) -> None:
    given = inputs(a=IMAGE, b=(2, 6, 7, 5), f=(2, 6, 1, 7, 5), t=(2, 6, 5), v=(2, 6), s=(2,))
    with pytest.raises(LayerError, match=f"layer 'it': .*{said}"):
        net(given + layer(kind, bottoms, tops, param))


@pytest.mark.parametrize(
    ("kind", "param"),
    [("Embed", "embed_param { num_output: 3 input_dim: 5 }"), ("BatchReindex", "")],
)
def test_an_index_beyond_its_table_is_named(kind: str, param: str) -> None:
    bottoms = {"Embed": "s", "BatchReindex": "v s"}[kind]
    built = net(inputs(v=(5, 4), s=(3,)) + layer(kind, bottoms, "y", param))
    given = {"v": np.zeros((5, 4), "f"), "s": np.array([0, 5, 1], "f")}
    with pytest.raises(LayerError, match="layer 'it': index 5 where 0 to 4 were expected"):
        built.forward(**given)


@pytest.mark.parametrize(
    ("kind", "tops", "param"),
    [("Threshold", "y", ""), ("ArgMax", "y", ""), ("SoftmaxWithLoss", "loss y", "loss_weight: 1 loss_weight: 0")],
)
def test_a_loss_behind_a_layer_without_gradient_is_an_error(kind: str, tops: str, param: str) -> None:
    built = net(
        inputs(v=(2, 6), s=(2,))
        + 'layer { name: "fc" type: "InnerProduct" bottom: "v" top: "x" inner_product_param { num_output: 4 } }\n'
        + layer(kind, "x s" if tops != "y" else "x", tops, param)
        + 'layer { name: "sum" type: "Reduction" bottom: "y" top: "sum" loss_weight: 1 }'
    )
    built.forward(v=np.ones((2, 6), "f"), s=np.zeros(2, "f"))
    with pytest.raises(LayerError, match=f"layer 'it': .*{kind} passes no gradient"):
        built.loss.backward()


def test_a_loss_without_a_top_counts_and_is_saved_without_one() -> None:
    built = net(
        inputs(v=(2, 6), s=(2,))
        + layer("SoftmaxWithLoss", "v s", "", "loss_weight: 3")
        + layer("EuclideanLoss", "v v", "").replace("it", "other")
    )
    assert built.forward(v=np.zeros((2, 6), "f"), s=np.zeros(2, "f")) == {}
    assert built.loss.item() == pytest.approx(3 * np.log(6))
    assert not any(layer.top for layer in built.to_proto().layer if layer.name in ("it", "other"))


def test_the_softmax_beside_its_loss_is_the_softmax() -> None:
    built = net(inputs(v=(2, 6), s=(2,)) + layer("SoftmaxWithLoss", "v s", "loss y", "loss_weight: 1 loss_weight: 0"))
    scores = np.random.default_rng(0).standard_normal((2, 6)).astype("f")
    tops = built.forward(v=scores, s=np.array([1, 4], "f"))
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(tops["y"].numpy(), probabilities, rtol=1e-5)
    assert tops["loss"].item() == pytest.approx(-np.log(probabilities[[0, 1], [1, 4]]).mean(), rel=1e-5)


def test_stochastic_pooling_draws_in_proportion_and_averages_in_test() -> None:
    text = inputs(x=(20_000, 1, 2, 3)) + layer(
        "Pooling", "x", "y", "pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }"
    )
    image = np.array([[1, 0, 5], [3, 4, 0]], "f")
    x = torch.from_numpy(np.broadcast_to(image, (20_000, 1, 2, 3)).copy()).requires_grad_()
    tested = net(text).forward(x=x[:1])["y"].detach().flatten()
    np.testing.assert_allclose(tested, [(1 + 9 + 16) / 8, 5], rtol=1e-6)  # the second window is clipped
    trained = net(text, TRAIN).forward(x=x)["y"]
    drawn, counts = trained[:, 0, 0, 0].unique(return_counts=True)
    assert drawn.tolist() == [1, 3, 4]
    np.testing.assert_allclose(counts / 20_000, [1 / 8, 3 / 8, 4 / 8], atol=0.02)
    trained.sum().backward()
    assert x.grad is not None
    assert x.grad[:, 0, :, :2].sum().item() == 20_000
    assert bool((x.grad[:, 0, 0, 1] == 0).all())


def stochastic_pooling(
    x: np.ndarray, kernel: tuple[int, int], stride: tuple[int, int], draws: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """In double precision: tops of (N, C, H, W), and where in each image they were drawn; means without draws."""
    size = [-(-(whole - window) // step) + 1 for whole, window, step in zip(x.shape[2:], kernel, stride, strict=True)]
    tops, places = np.zeros((*x.shape[:2], *size)), np.full((*x.shape[:2], *size), -1)
    for n, c, i, j in np.ndindex(tops.shape):
        top, left = i * stride[0], j * stride[1]
        window = x[n, c, top : top + kernel[0], left : left + kernel[1]].astype(np.float64)
        total = window.sum()
        if draws is None:
            tops[n, c, i, j] = (window**2).sum() / total if total else 0
        if draws is None or not window.size:  # beyond the image
            continue
        row, column = divmod(int((window.cumsum() < draws[n, c, i, j] * total).sum()), window.shape[1])
        tops[n, c, i, j] = window[row, column]
        places[n, c, i, j] = (top + row) * x.shape[3] + left + column
    return tops, places


@pytest.mark.parametrize(
    ("param", "kernel", "stride"),
    [
        ("kernel_size: 3 stride: 2", (3, 3), (2, 2)),
        ("kernel_size: 2 stride: 3", (2, 2), (3, 3)),
        ("kernel_h: 4 kernel_w: 3 stride_h: 1 stride_w: 2", (4, 3), (1, 2)),
        ("global_pooling: true", (7, 9), (1, 1)),
    ],
)
def test_stochastic_pooling_agrees_with_double_precision(param: str, kernel: tuple, stride: tuple) -> None:
    # Real Caffe has it on GPUs alone.
    text = inputs(x=(3, 2, 7, 9)) + layer("Pooling", "x", "y", f"pooling_param {{ pool: STOCHASTIC {param} }}")
    values = np.maximum(np.random.default_rng(0).uniform(-1, 2, (3, 2, 7, 9)), 0).astype("f")
    values[0, 0, :5, :5] = 0  # whole windows of nothing
    means, _ = stochastic_pooling(values, kernel, stride, None)
    np.testing.assert_allclose(net(text).forward(x=values)["y"].numpy(), means, rtol=1e-5)
    built = net(text, TRAIN)
    generator = torch.Generator()
    generator.set_state(built.generator.get_state())
    draws = torch.rand(means.shape, generator=generator).numpy()
    drawn, places = stochastic_pooling(values, kernel, stride, draws)
    x = torch.from_numpy(values.copy()).requires_grad_()
    top = built.forward(x=x)["y"]
    np.testing.assert_array_equal(top.detach().numpy(), drawn.astype("f"))
    weights = np.random.default_rng(1).uniform(-1, 1, means.shape)
    (top * torch.from_numpy(weights.astype("f"))).sum().backward()
    gradient = np.zeros((3, 2, 63))
    for n, c, i, j in np.ndindex(means.shape):
        if places[n, c, i, j] >= 0:
            gradient[n, c, places[n, c, i, j]] += weights[n, c, i, j]
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.reshape(3, 2, 63).numpy(), gradient, rtol=1e-5, atol=1e-6)


def test_a_pyramid_of_stochastic_pooling_agrees_with_double_precision() -> None:
    text = inputs(x=(2, 3, 4, 8)) + layer("SPP", "x", "y", "spp_param { pyramid_height: 2 pool: STOCHASTIC }")
    values = np.random.default_rng(0).uniform(0, 1, (2, 3, 4, 8)).astype("f")
    levels = [stochastic_pooling(values, size, size, None)[0].reshape(2, -1) for size in ((4, 8), (2, 4))]
    np.testing.assert_allclose(net(text).forward(x=values)["y"].numpy(), np.concatenate(levels, 1), rtol=1e-5)


def test_dummy_data_is_drawn_anew_and_goes_on_where_a_run_was_stopped() -> None:
    text = layer("DummyData", "", "x", 'dummy_data_param { shape { dim: 2 dim: 3 } data_filler { type: "gaussian" } }')
    first = net(text)
    before = first.forward()["x"].clone()
    state = first.state()
    after = first.forward()["x"].clone()
    assert not torch.equal(before, after)
    other = Net(parse_text(text, NetParameter, "net"), TEST, seed=2)
    other.restore(state)
    assert torch.equal(other.forward()["x"], after)


def test_what_an_lstm_remembers_goes_on_where_a_run_was_stopped() -> None:
    text = inputs(x=(3, 2, 4), cont=(3, 2)) + layer(
        "LSTM", "x cont", "y", 'recurrent_param { num_output: 5 weight_filler { type: "xavier" } }'
    )
    first, other = net(text), net(text)
    x = np.random.default_rng(0).standard_normal((3, 2, 4)).astype("f")
    cont = np.ones((3, 2), "f")
    first.forward(x=x, cont=cont)
    state = first.state()
    after = first.forward(x=x, cont=cont)["y"]
    assert not torch.equal(other.forward(x=x, cont=cont)["y"], after)
    other.restore(state)
    assert torch.equal(other.forward(x=x, cont=cont)["y"], after)


def test_memory_data_refuses_what_is_no_whole_batches() -> None:
    built = net(layer("MemoryData", "", "x y", "memory_data_param { batch_size: 2 channels: 3 height: 4 width: 5 }"))
    memory = built.layers[0]
    assert isinstance(memory, MemoryData)
    with pytest.raises(LayerError, match="no arrays were given"):
        built.forward()
    for shape, labels in (((3, 3, 4, 5), 3), ((4, 3, 4, 6), 4), ((4, 3, 4, 5), 3), ((0, 3, 4, 5), 0)):
        with pytest.raises(LayerError, match="n a multiple of 2"):
            memory.set_arrays(np.zeros(shape, "f"), np.zeros(labels, "f"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            layer("TanH", "x", "a") + layer("TanH", "a", "b") + layer("ReLU", "a", "a"),
            "which layer 'it' takes as it was",
        ),
        (
            layer("TanH", "x", "a") + layer("ReLU", "a", "a") + layer("TanH", "a", "b") + layer("ReLU", "a", "a"),
            "takes as it",
        ),
        (layer("TanH", "x", "a", "loss_weight: 1") + layer("ReLU", "a", "a"), "is a loss"),
        (layer("Eltwise", "x x", "x"), "is taken twice"),
    ],
)
def test_a_blob_that_others_take_is_not_changed_in_place(text: str, said: str) -> None:
    with pytest.raises(LayerError, match=f"it changes '[ax]' in place, .*{said}"):
        net(inputs(x=(2, 3)) + text)


def test_batch_norm_adds_many_equal_values_up_without_drifting() -> None:
    """As behind a rectifier, where half of a channel is 0: one sum of it all would round to the same side each time."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, 48, 48, generator=generator).mul_(0.3).relu_()
    made = net(inputs(x=tuple(x.shape)) + layer("BatchNorm", "x", "y"), TRAIN)
    made.forward(x=x)
    variance, mean = torch.var_mean(x.double(), (0, 2, 3))
    torch.testing.assert_close(made.params["it"][0].double(), mean, rtol=2e-5, atol=0)
    torch.testing.assert_close(made.params["it"][1].double(), variance, rtol=2e-5, atol=0)


def test_batch_norm_of_bfloat16_has_statistics_of_float32() -> None:
    x = torch.randn(64, 4, 12, 12, generator=torch.Generator().manual_seed(0)) * 3 + 1
    text = inputs(x=tuple(x.shape)) + layer("BatchNorm", "x", "y")
    made = Net(parse_text(text, NetParameter, "net"), TRAIN, precision="bfloat16", seed=1)
    seen = x.bfloat16()
    norm = made.layers[-1]
    norm.forward([seen])
    variance, mean = torch.var_mean(seen.double(), (0, 2, 3))
    torch.testing.assert_close(norm.blobs[0].double(), mean, rtol=1e-4, atol=0)
    torch.testing.assert_close(norm.blobs[1].double(), variance, rtol=1e-4, atol=0)


@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_batch_norm_and_a_scale_behind_it_in_place_are_what_they_are_one_by_one(phase: Phase) -> None:
    """Where the Scale layer has a top of its own, the blob between stays, so that each layer makes a pass."""
    generator = torch.Generator().manual_seed(0)
    x, wanted = (torch.randn(8, 3, 6, 5, generator=generator) for _ in range(2))
    noise = "{ type: 'gaussian' std: 1 }"
    found = {}
    for top in ("a", "b"):
        made = net(
            inputs(x=tuple(x.shape), wanted=tuple(x.shape))
            + layer("Bias", "x", "a", f"bias_param {{ filler {noise} }}").replace('"it"', '"shift"')
            + layer("BatchNorm", "a", "a").replace('"it"', '"norm"')
            + layer("Scale", "a", top, f"scale_param {{ bias_term: true filler {noise} bias_filler {noise} }}")
            + layer("EuclideanLoss", f"{top} wanted", "loss").replace('"it"', '"loss"'),
            phase,
        )
        made.params["norm"][2].fill_(1)
        made.params["norm"][1].fill_(4)
        made.forward(x=x, wanted=wanted)
        made.backward()
        gradients = [each.blob.grad for each in made.learnable if each.blob.requires_grad]
        found[top] = [made.blobs[top], *made.params["norm"], *gradients]
    assert len(found["a"]) == 7
    # BatchNorm makes the gradient of a constant before it 0, of which rounding leaves some millionths.
    torch.testing.assert_close(found["a"], found["b"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FOREIGN_TYPES)
def test_a_layer_of_a_fork_is_told_as_that(name: str) -> None:
    assert name not in LAYERS
    with pytest.raises(LayerError, match=f"type '{name}' is none of Caffe 1.0's but the fork"):
        net(inputs(x=(2, 3)) + layer(name, "x", "y"))


@pytest.mark.parametrize("name", FOREIGN_FIELDS)
def test_a_field_of_a_fork_is_told_as_that(name: str) -> None:
    with pytest.raises(PrototxtError, match=f"^net:1:[0-9]+: '{name}' is none of Caffe 1.0's but the fork"):
        net(layer("Split", "x", "y", f"{name} {{ scale: 2 }}"))


@pytest.mark.parametrize("kind", ["AbsVal", "Flatten", "Reshape", "Split"])
def test_a_layer_that_does_not_work_in_place_says_so(kind: str) -> None:
    with pytest.raises(LayerError, match=f"{kind} does not work in place; give its top another name than 'x'"):
        net(inputs(x=(2, 3)) + layer(kind, "x", "x"))
