"""Converts the weights in the PyPI package mtcnn 1.0.0 to Caffe's and ONNX's formats. From the repository's root:

    pip download --no-deps mtcnn==1.0.0 && unzip mtcnn-1.0.0-py3-none-any.whl -d mtcnn-1.0.0
    pip install lz4 && python pipeline/weights/mtcnn/convert.py mtcnn-1.0.0/mtcnn/assets/weights

The package keeps each net as a joblib pickle inside LZ4. A pickle is a program that loading would run; this reads its
opcodes, takes the shapes of the arrays from them, and never executes one.
"""

import argparse
import hashlib
import io
import pickletools
from collections.abc import Iterator
from pathlib import Path

import lz4.frame
import numpy as np
import onnx
import torch

from pipeline.caffe.net import Net, build_net
from pipeline.caffe.onnx import to_onnx
from pipeline.caffe.proto import caffe_pb2
from pipeline.caffe.proto.files import write_binary

FOLDER = Path(__file__).parent
PROTOTXTS = Path("prototxt/mtcnn")


def read_arrays(path: Path) -> Iterator[np.ndarray]:
    """The float32 arrays of a joblib pickle in LZ4, in their order.

    An array stands as a pickled NumpyArrayWrapper, whose attributes end with numpy_array_alignment_bytes; after the
    BUILD that fills it come, outside the pickle's opcodes, one byte with the length of the padding, the padding and the
    values in C order (joblib/numpy_pickle.py).
    """
    stream = io.BytesIO(lz4.frame.decompress(path.read_bytes()))
    memo: list[str | None] = []  # a text is spelled out once; later opcodes fetch it by its number
    text, key = None, None
    shape: list[int] = []
    for opcode, argument, position in pickletools.genops(stream):
        if opcode.name == "MEMOIZE":
            memo.append(text)
        text = memo[argument] if opcode.name == "BINGET" else argument if isinstance(argument, str) else None
        if text is not None and text not in EXPECTED_TEXTS:
            raise SystemExit(f"{path}: {text!r} at byte {position} where only arrays were expected")
        if text in WRAPPER_KEYS:
            key = text
            shape = [] if key == "shape" else shape
        elif key == "shape" and opcode.name in ("BININT1", "BININT2", "BININT"):
            shape.append(argument)
        elif key == "numpy_array_alignment_bytes" and opcode.name == "BUILD":
            stream.seek(stream.read(1)[0], io.SEEK_CUR)
            count = int(np.prod(shape))
            yield np.frombuffer(stream.read(4 * count), dtype="<f4").reshape(shape)


WRAPPER_KEYS = {"subclass", "shape", "order", "dtype", "allow_mmap", "numpy_array_alignment_bytes"}
EXPECTED_TEXTS = WRAPPER_KEYS | {"joblib.numpy_pickle", "NumpyArrayWrapper", "numpy", "ndarray", "C", "f4", "<"}


def to_caffe(array: np.ndarray, channels: int | None) -> np.ndarray:
    """Keras's layout to Caffe's.

    Convolution (h, w, in, out) -> (out, in, h, w). InnerProduct (in, out) -> (out, in); where its bottom is an image of
    `channels`, the inputs, which the package numbers by (w, h, c), are reordered to Caffe's (c, h, w). PReLU
    (1, 1, C) -> (C,).
    """
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if array.ndim == 2:
        if channels is None:
            return array.T
        side = round((array.shape[0] / channels) ** 0.5)
        return array.reshape(side, side, channels, -1).transpose(3, 2, 1, 0).reshape(array.shape[1], -1)
    return array.reshape(-1)


def convert(name: str, weights: Path) -> None:
    net = build_net(PROTOTXTS / f"{name}.prototxt", caffe_pb2.TEST)
    arrays = read_arrays(weights / f"{name}.lz4")
    # The package lists its layers as the prototxt does: a layer's blobs follow one another.
    for layer in net.layers:
        bottom = net.shapes[layer.param.bottom[0]] if layer.param.bottom else ()
        for blob in layer.blobs:
            value = to_caffe(next(arrays), bottom[1] if len(bottom) == 4 else None)
            if blob.shape != value.shape:
                raise SystemExit(f"{weights / name}.lz4: {layer.param.name} has {value.shape}, not {tuple(blob.shape)}")
            with torch.no_grad():
                blob.copy_(torch.from_numpy(value.copy()))
    if next(arrays, None) is not None:
        raise SystemExit(f"{weights / name}.lz4: more arrays than {name}.prototxt has blobs")
    write_binary(FOLDER / f"{name}.caffemodel", net.to_proto())
    onnx.save(to_onnx(runtime_pnet(net), flexible=True) if name == "pnet" else to_onnx(net), FOLDER / f"{name}.onnx")


@torch.no_grad()
def runtime_pnet(net: Net) -> Net:
    """pnet_runtime.prototxt with the weights that make it the same function as P-Net."""
    given = {layer.param.name: layer.blobs for layer in net.layers}
    runtime = build_net(FOLDER / "pnet_runtime.prototxt", caffe_pb2.TEST)
    blobs = {layer.param.name: layer.blobs for layer in runtime.layers}
    (slope,) = given["prelu1"]
    count = len(slope)
    turned = torch.nonzero(slope < 0).flatten()
    for own, blob in zip(blobs["conv1"], given["conv1"], strict=True):
        own.copy_(torch.cat([blob, blob[turned] * slope[turned].reshape(-1, *[1] * (blob.ndim - 1))]))
    below, scale = blobs["below1"][0][:, :, 0, 0], blobs["bend1"][0]
    below.zero_()
    below[range(count), range(count)] = -1
    below[turned, range(count, count + len(turned))] = 1
    scale.zero_()
    scale[:count] = torch.where(slope < 0, 1, 1 - slope)
    weights, bias = blobs["conv2"]
    weights.zero_()
    weights[:, :count] = given["conv2"][0]
    bias.copy_(given["conv2"][1])
    for name in ("prelu2", "conv3", "prelu3", "conv4-1"):
        for own, blob in zip(blobs[name], given[name], strict=True):
            own.copy_(blob)
    for own, blob in zip(blobs["conv4-2"], given["conv4-2"], strict=True):
        own.copy_(blob - blob.flip(0))
    return runtime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="the package's folder assets/weights")
    weights = parser.parse_args().weights
    for name in ("pnet", "rnet", "onet"):
        convert(name, weights)
    files = sorted([*FOLDER.glob("*.caffemodel"), *FOLDER.glob("*.onnx")])
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (FOLDER / "SHA256SUMS").write_text("".join(lines))


if __name__ == "__main__":
    main()
