"""summary: parameters and multiply-adds are what is counted by hand and what papers give."""

from pathlib import Path

import pytest
from helpers.run_command import run_command

from pipeline.caffe.net import Net
from pipeline.caffe.proto.caffe_pb2 import TEST, NetParameter
from pipeline.caffe.proto.files import parse_text
from pipeline.caffe.tools.summary import layer_sizes

LENET = Path(__file__).parents[2] / "prototxt/classics/lenet/deploy.prototxt"


def sizes(*layers: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, int, int]]:
    """By layer its parameters, statistics and multiply-adds, of a net on inputs of these shapes."""
    inputs = [
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        f"{' '.join(f'dim: {size}' for size in shape)} }} }} }}"
        for name, shape in shapes.items()
    ]
    net = Net(parse_text("\n".join([*inputs, *layers]), NetParameter, "net"), TEST)
    return {size.name: (size.parameters, size.statistics, size.multiply_adds) for size in layer_sizes(net)}


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        # Each of the 2 images has 3 x 6 places of 4 channels; each is a sum over 2 channels and 3 x 2 pixels.
        (
            'type: "Convolution" convolution_param { num_output: 4 kernel_h: 3 kernel_w: 2 group: 2 }',
            (2, 4, 5, 7),
            (4 * 2 * 6 + 4, 0, 2 * 4 * 3 * 6 * 2 * 6),
        ),
        # Each of 3 x 5 x 5 numbers goes, times 4 kernels of 2 x 2, into what it is enlarged to.
        (
            'type: "Deconvolution" convolution_param { num_output: 4 kernel_size: 2 stride: 2 bias_term: false }',
            (1, 3, 5, 5),
            (3 * 4 * 4, 0, 3 * 25 * 4 * 4),
        ),
        ('type: "InnerProduct" inner_product_param { num_output: 7 }', (2, 3, 4), (12 * 7 + 7, 0, 2 * 12 * 7)),
        (
            'type: "InnerProduct" inner_product_param { num_output: 7 axis: 2 transpose: true }',
            (2, 3, 4),
            (4 * 7 + 7, 0, 2 * 3 * 4 * 7),
        ),
        ('type: "BatchNorm"', (2, 3, 4, 4), (0, 3 + 3 + 1, 0)),
        ('type: "Scale" scale_param { bias_term: true }', (2, 3, 4, 4), (6, 0, 0)),
        ('type: "Pooling" pooling_param { kernel_size: 2 }', (2, 3, 4, 4), (0, 0, 0)),
    ],
)
def test_a_layer_is_counted(layer: str, shape: tuple[int, ...], expected: tuple[int, int, int]) -> None:
    found = sizes(f'layer {{ name: "it" bottom: "x" top: "y" {layer} }}', shapes={"x": shape})
    assert found == {"x": (0, 0, 0), "it": expected}


@pytest.mark.parametrize(
    ("kind", "gates", "more_parameters", "more_products"), [("LSTM", 4, 0, 0), ("RNN", 1, 5 * 5 + 5, 5 * 5)]
)
def test_a_recurrent_layer_multiplies_at_every_step(
    kind: str, gates: int, more_parameters: int, more_products: int
) -> None:
    found = sizes(
        f'layer {{ name: "it" type: "{kind}" bottom: "x" bottom: "cont" bottom: "static" top: "y" '
        "recurrent_param { num_output: 5 } }",
        shapes={"x": (6, 2, 3), "cont": (6, 2), "static": (2, 4)},
    )
    from_inputs, from_static, from_hidden = (gates * 5 * size for size in (3, 4, 5))
    assert found["it"] == (
        from_inputs + gates * 5 + from_static + from_hidden + more_parameters,
        0,
        2 * (6 * (from_inputs + from_hidden + more_products) + from_static),
    )


def test_a_weight_that_layers_share_is_counted_once_and_multiplied_twice() -> None:
    layer = (
        'layer {{ name: "{0}" type: "InnerProduct" bottom: "{1}" top: "{0}" param {{ name: "w" }} '
        "inner_product_param {{ num_output: 3 bias_term: false }} }}"
    )
    found = sizes(layer.format("a", "x"), layer.format("b", "a"), shapes={"x": (1, 3)})
    assert found == {"x": (0, 0, 0), "a": (9, 0, 9), "b": (0, 0, 9)}


def test_the_command_prints_a_row_a_layer_and_the_sums() -> None:
    rows = [line.split() for line in run_command("summary", str(LENET), "-minloglevel", "2").output.splitlines()]
    assert rows[0] == ["layer", "type", "tops", "parameters", "statistics", "multiply-adds"]
    assert rows[2] == ["conv1", "Convolution", "64x20x24x24", "520", "0", f"{64 * 20 * 24 * 24 * 25:,}"]
    assert rows[-1] == ["all", "431,080", "0", f"{64 * 2_293_000:,}"]


def test_a_phase_that_is_none_is_refused() -> None:
    ran = run_command("summary", str(LENET), "-phase", "DEPLOY")
    assert ran.status == 1
    assert "phase 'DEPLOY' where TRAIN or TEST was expected" in ran.log
