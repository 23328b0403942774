"""Nets of a few layers, as text."""

from pipeline.caffe.net import Net
from pipeline.caffe.proto.caffe_pb2 import TEST, NetParameter, Phase
from pipeline.caffe.proto.files import parse_text


def inputs(**shapes: tuple[int, ...]) -> str:
    dims = {name: " ".join(f"dim: {size}" for size in shape) for name, shape in shapes.items()}
    return "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {sizes} }} }} }}\n'
        for name, sizes in dims.items()
    )


def layer(kind: str, bottoms: str, tops: str, param: str = "") -> str:
    names = [f'bottom: "{name}"' for name in bottoms.split()] + [f'top: "{name}"' for name in tops.split()]
    return f'layer {{ name: "it" type: "{kind}" {" ".join(names)} {param} }}\n'


def net(text: str, phase: Phase = TEST) -> Net:
    return Net(parse_text(text, NetParameter, "net"), phase, seed=1)
