"""Write a net and its weights as ONNX: export_onnx [FLAGS] DEPLOY WEIGHTS OUTPUT."""

from argparse import Namespace
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.atomic import atomic_file
from pipeline.caffe.blobs import read_mean
from pipeline.caffe.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter, Phase
from pipeline.caffe.graph import filter_layers
from pipeline.caffe.proto import read_net
from pipeline.caffe.tools.flags import FlagParser
from pipeline.caffe.transformer import Transformer
from pipeline.console import log
from pipeline.errors import InputError

if TYPE_CHECKING:
    import onnx

    from pipeline.caffe.net import Net
    from pipeline.caffe.onnx.images import Images
    from pipeline.caffe.onnx.pixels import Pixels

TOLERANCE = 1e-4  # between ONNX Runtime's outputs and the engine's, relative to the largest
DRAWN_VALUES = 1 << 22  # at most, in the inputs that are drawn to compare them


class ExportError(InputError):
    """A net that cannot be exported with these flags, or whose ONNX form does not answer as it does."""


def add_arguments(parser: FlagParser) -> None:
    parser.add_argument("deploy", metavar="DEPLOY", type=Path, help="the net's prototxt, with Input layers")
    parser.add_argument("weights", metavar="WEIGHTS", type=Path, help="its .caffemodel or .caffemodel.h5")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="the .onnx file to write")
    parser.add_flag("precision", "float32", "of weights and activations: float32, float16 or int8")
    parser.add_flag("fixed_size", False, "keep height and width as in DEPLOY where the net would take any")
    parser.add_flag("mean", "", "subtract in the graph: a mean file, or a value for each channel, commas between them")
    parser.add_flag("scale", 1.0, "multiply in the graph what is left, as Transformer's input_scale does")
    parser.add_flag("raw_scale", 1.0, "multiply pixels in the graph before the mean is subtracted")
    parser.add_flag("channel_swap", "", "put channels in the net's order in the graph: 2,1,0 makes BGR of RGB")
    parser.add_flag("input", "float32", "type of the pixels that the graph takes: float32 or uint8")
    parser.add_flag("train_val", "", "prototxt whose Data layer says how a database's images become the net's input")
    parser.add_flag("calibration", "", "database whose images set int8's ranges (default: of -train_val's TRAIN phase)")
    parser.add_flag("batches", 10, "how many batches of it to take, from its beginning")
    parser.add_flag("batch_size", 32, "images in a batch, where the net takes any number")
    parser.add_flag("test", "", "database to measure the converted net on, beside float32")
    parser.add_flag("classes", "", "the output that has a value for each class, where there are several outputs")
    parser.add_flag("backend", "lmdb", "form of both databases: lmdb or leveldb")


def run(args: Namespace) -> None:
    import onnx

    from pipeline.caffe.net import naming_lines
    from pipeline.caffe.onnx import to_onnx
    from pipeline.caffe.onnx.half import to_half
    from pipeline.caffe.onnx.pixels import with_pixels
    from pipeline.caffe.onnx.quantise import quantise

    _check_flags(args)
    net = _read_net(args.deploy, args.weights)
    pixels = _pixels(args, net)
    # A mean image has a size, and so then has what it is subtracted from.
    fixed = args.fixed_size or (pixels is not None and pixels.mean is not None and pixels.mean[0].size > 1)
    with naming_lines(args.deploy):
        plain = to_onnx(net, flexible=False if fixed else None)
    model = with_pixels(plain, pixels, melt=args.precision != "float16") if pixels else plain
    _check(net, model, pixels)
    exact = model
    if args.precision == "float16":
        model = to_half(model)
    elif args.precision == "int8":
        calibration = _calibration(args, net, pixels)
        model = quantise(model, _some_batches(calibration, net, plain, args))
    if args.precision != "float32" or args.test:
        _measure(args, net, pixels, exact, model)
    with atomic_file(args.output) as file:
        file.write(model.SerializeToString(deterministic=True))
    for kind, values in (("takes", model.graph.input), ("gives", model.graph.output)):
        for value in values:
            shape = "x".join(dim.dim_param or str(dim.dim_value) for dim in value.type.tensor_type.shape.dim)
            number = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
            log.info("%s %s: %s %s", kind, value.name, number, shape or "one number")
    log.info("%s: %s, opset %d, %.2f MB", args.output, args.precision, model.opset_import[0].version,
             args.output.stat().st_size / 1e6)


def _check_flags(args: Namespace) -> None:
    for flag, allowed in (("precision", ("float32", "float16", "int8")), ("input", ("float32", "uint8"))):
        if getattr(args, flag) not in allowed:
            raise ExportError(f"-{flag} {getattr(args, flag)} where {', '.join(allowed)} were expected")
    for flag in ("batches", "batch_size"):
        if getattr(args, flag) < 1:
            raise ExportError(f"-{flag} {getattr(args, flag)} where at least 1 was expected")
    if args.precision != "int8" and args.calibration:
        raise ExportError(f"-calibration is for -precision int8, and this is {args.precision}; leave it out")
    if args.calibration and args.test and Path(args.calibration).resolve() == Path(args.test).resolve():
        raise ExportError(f"{args.test}: calibrated and tested on the same images, which tells nothing about others; "
                          "give training images as -calibration")


def _read_net(deploy: Path, weights: Path) -> "Net":
    """The TEST net with all its weights. Raises ExportError where some are missing, or there are no inputs."""
    from pipeline.caffe.hdf5 import HDF5Reader, is_hdf5
    from pipeline.caffe.net import Net, build_read_net
    from pipeline.caffe.proto import read_weights

    param = read_net(deploy)
    if not any(layer.type == "Input" for layer in filter_layers(param, TEST, 0, ()).layer):
        raise ExportError(f"{deploy}: no Input layer, so nothing that a user of the net could give; is it a train_val? "
                          "give the deploy prototxt")
    net = build_read_net(deploy, param, TEST, Net)
    net.copy_from(weights)
    if is_hdf5(weights):
        with HDF5Reader(weights) as file:
            there = set(file.names("data"))
    else:
        there = {layer.name for layer in read_weights(weights).layer if layer.blobs}
    owners = {learnable.layer for learnable in net.learnable}
    missing = [name for name in net.params if name in owners and name not in there]
    if missing:
        raise ExportError(f"{weights}: no weights of layer '{missing[0]}' of {deploy}; are these the weights of "
                          "another net?")
    return net


def _pixels(args: Namespace, net: "Net") -> "Pixels | None":
    """What the flags put before the net. Raises PixelsError, ExportError where that does not suit its input."""
    from pipeline.caffe.onnx.images import centre
    from pipeline.caffe.onnx.pixels import Pixels

    given = args.mean or args.channel_swap or args.scale != 1 or args.raw_scale != 1
    if not given and args.input == "float32":
        return None
    if args.train_val:
        raise ExportError("-train_val tells what is done to images outside the graph, -mean, -scale, -raw_scale, "
                          "-channel_swap and -input uint8 what the graph does; give the one or the other")
    name = _only_input(net, "mean, scales, channel_swap and input")
    shape = net.shapes[name]
    mean = None
    if Path(args.mean).is_file():
        mean = read_mean(Path(args.mean))
        cut = centre(mean, *shape[2:]) if len(shape) == 4 else mean
        if cut.shape != mean.shape:
            log.info("%s: of its %dx%d the centre %dx%d, as a Data layer's crop in TEST takes it", args.mean,
                     *mean.shape[1:], *cut.shape[1:])
        mean = cut
    elif args.mean:
        mean = np.array(_numbers(args.mean, "mean", "a file, or numbers"), np.float32)[:, None, None]
    swap = tuple(int(number) for number in _numbers(args.channel_swap, "channel_swap", "whole numbers"))
    pixels = Pixels(swap, args.raw_scale, mean, args.scale, np.uint8 if args.input == "uint8" else np.float32)
    pixels.check(name, shape)
    if args.input == "uint8" and args.raw_scale != 1:
        log.warning("-raw_scale %g with -input uint8: 255 becomes %g", args.raw_scale, 255 * args.raw_scale)
    return pixels


def _numbers(text: str, flag: str, expected: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise ExportError(f"-{flag} {text}: neither found nor numbers, where {expected} with commas between them were "
                          "expected") from None


def _only_input(net: "Net", what: str) -> str:
    if len(net.inputs) != 1:
        raise ExportError(f"net '{net.name}' has the inputs {', '.join(net.inputs)}, and {what} are for nets of one")
    return net.inputs[0]


def _check(net: "Net", model: "onnx.ModelProto", pixels: "Pixels | None") -> None:
    """Compare the float32 model with the engine on drawn inputs. Raises ExportError when they differ."""
    import torch

    from pipeline.caffe.onnx.images import session

    random = np.random.default_rng(0)
    runtime = session(model)
    inputs, taken = {}, {}
    for value in runtime.get_inputs():
        shape = net.shapes[value.name]
        if isinstance(value.shape[0], str) and all(isinstance(each.shape[0], str) for each in runtime.get_inputs()):
            shape = (max(1, min(shape[0], DRAWN_VALUES // int(np.prod(shape[1:])))), *shape[1:])
        inputs[value.name] = random.uniform(size=shape).astype(np.float32)  # indices among them are 0
        if pixels:
            raw = random.integers(0, 256, shape).astype(pixels.dtype)
            inputs[value.name] = pixels(raw)
            taken[value.name] = raw
    with torch.inference_mode():
        want = {name: blob.numpy() for name, blob in net.forward(**inputs).items() if name not in inputs}
    got = dict(zip(want, runtime.run(list(want), taken or inputs), strict=True))
    for name, blob in want.items():
        largest = float(np.abs(blob).max(initial=0)) or 1.0
        difference = float(np.abs(got[name] - blob).max(initial=0)) / largest
        log.info("float32 against the engine, on drawn inputs: output %s deviates by %.1e", name, difference)
        if not difference <= TOLERANCE:  # NaN too
            raise ExportError(f"net '{net.name}': output '{name}' of the ONNX form deviates from the engine's by "
                              f"{difference:.1e} where at most {TOLERANCE:g} was expected; nothing was written")


def _data_layer(path: Path, phase: Phase) -> LayerParameter | None:
    """The Data layer of a net's phase, of TRAIN where TEST has none."""
    param: NetParameter = read_net(path)
    for each in (phase, TRAIN):
        for layer in filter_layers(param, each, 0, ()).layer:
            if layer.type == "Data":
                return layer
    return None


def _images(args: Namespace, path: str, net: "Net", pixels: "Pixels | None") -> "Images":
    """A database's images, made what the graph takes as -train_val's transform_param says or by the flags."""
    from pipeline.caffe.onnx.images import Images, centre

    shape = net.shapes[_only_input(net, "databases")]
    transformer = None
    if args.train_val:
        layer = _data_layer(Path(args.train_val), TEST)
        if layer is None:
            raise ExportError(f"{args.train_val}: no Data layer whose transform_param could tell what the net takes")
        transformer = Transformer(layer.transform_param, TEST)

    def prepare(images: np.ndarray) -> np.ndarray:
        made = transformer(images) if transformer else images
        made = centre(made, *shape[2:]) if len(shape) == 4 else made
        if made.shape[1:] != shape[1:]:
            raise ExportError(f"{path}: images of shape {made.shape[1:]} where net '{net.name}' takes {shape[1:]}; "
                              "make the database from images of that size")
        if pixels is None:
            return made.astype(np.float32)
        raw = pixels.raw(made)
        if pixels.dtype == np.uint8 and raw.dtype != np.uint8:
            raise ExportError(f"{path}: images of floats where the graph takes uint8; leave -input and -raw_scale out")
        return raw.astype(pixels.dtype)

    return Images(Path(path), args.backend, prepare)


def _calibration(args: Namespace, net: "Net", pixels: "Pixels | None") -> "Images":
    path = args.calibration
    if not path and args.train_val:
        layer = _data_layer(Path(args.train_val), TRAIN)
        path = layer.data_param.source if layer else ""
    if not path:
        raise ExportError("-precision int8 needs images that show how large activations become: give -calibration, a "
                          "database of training images, or a -train_val that names one")
    if args.test and Path(path).resolve() == Path(args.test).resolve():
        raise ExportError(f"{path}: calibrated and tested on the same images, which tells nothing about others; give "
                          "training images as -calibration")
    return _images(args, path, net, pixels)


def _batches(images: "Images", net: "Net", model: "onnx.ModelProto", size: int) -> Iterator[
        tuple[np.ndarray, np.ndarray]]:
    """The batches of a database, of `size` images where the model takes any number."""
    if model.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        return images.batches(size, whole=False)
    return images.batches(net.shapes[net.inputs[0]][0], whole=True)


def _some_batches(images: "Images", net: "Net", model: "onnx.ModelProto", args: Namespace) -> Iterator[np.ndarray]:
    """The first batches of a database, and in the end how many images they were."""
    count = 0
    for batch, _ in islice(_batches(images, net, model, args.batch_size), args.batches):
        count += len(batch)
        yield batch
    log.info("int8's ranges are those of the first %d images of %s", count, images.path)


def _measure(args: Namespace, net: "Net", pixels: "Pixels | None", exact: "onnx.ModelProto", model: "onnx.ModelProto"
             ) -> None:
    """Tell what the conversion changes, on the test images, or where none are given on drawn inputs."""
    from pipeline.caffe.onnx.images import class_output, compare

    classes = class_output(exact, args.classes)
    if args.test:
        images = _images(args, args.test, net, pixels)
        labelled = images.labelled()
        found = compare(exact, model, _batches(images, net, exact, args.batch_size), classes, labelled=labelled)
        what = f"{found.images} images of {args.test}"
    elif len(net.inputs) == 1:
        shape = net.shapes[net.inputs[0]]
        drawn = np.random.default_rng(1).uniform(size=shape) * (255 if pixels else 1)
        batch = drawn.astype(pixels.dtype if pixels else np.float32)
        found = compare(exact, model, iter([(batch, np.zeros(0))]), classes, labelled=False)
        what = f"{found.images} drawn inputs (give -test for images)"
    else:
        log.info("%s: not measured, which it is for nets of one input", args.precision)
        return
    log.info("%s against float32 on %s: outputs deviate by at most %.2e of the largest", args.precision, what,
             found.deviation)
    if not np.isfinite(found.deviation):
        raise ExportError(f"net '{net.name}': not all that {args.precision} makes of {what} are numbers; export it in "
                          "float32")
    if found.agreed is not None:
        log.info("the same class of %d of them (%.2f%%)", found.agreed, 100 * found.agreed / found.images)
    if found.right is not None:
        before, after = found.right
        log.info("accuracy: float32 %.4f, %s %.4f", before / found.images, args.precision, after / found.images)


