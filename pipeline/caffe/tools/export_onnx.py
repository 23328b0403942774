"""Write a net and its weights as ONNX: export_onnx [FLAGS] DEPLOY WEIGHTS OUTPUT."""

import hashlib
import logging
import math
from argparse import Namespace
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pipeline.base.atomic import atomic_file
from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.caffe.data_transformer import Transformer
from pipeline.caffe.insert_splits import filter_layers
from pipeline.caffe.proto.blob_proto import read_mean
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter, Phase
from pipeline.caffe.proto.files import read_net
from pipeline.caffe.tools.flags import FlagParser

if TYPE_CHECKING:
    import onnx

    from pipeline.caffe.layers import Shape
    from pipeline.caffe.net import Net
    from pipeline.caffe.onnx.evaluation import Images
    from pipeline.caffe.onnx.preprocessing import Pixels

Number = TypeVar("Number", int, float)
Batches = Iterator[tuple[np.ndarray, np.ndarray]]  # a model's inputs, and labels

TOLERANCE = 1e-4  # between ONNX Runtime's outputs and the engine's, relative to the largest
DRAWN_VALUES = 1 << 18  # in an input that is drawn to compare models, where the net takes any number of images


class OnnxExportError(InputError):
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
    from pipeline.caffe.onnx.float16 import to_float16
    from pipeline.caffe.onnx.preprocessing import with_pixels
    from pipeline.caffe.onnx.quantise import quantise

    _check_flags(args)
    log.setLevel(max(log.level, logging.INFO))  # not how the net is built, layer by layer
    net = _read_net(args.deploy, args.weights)
    pixels = _pixels(args, net)
    # A mean image has a size, and so then has what it is subtracted from.
    fixed = args.fixed_size or (pixels is not None and pixels.mean is not None and pixels.mean[0].size > 1)
    with naming_lines(args.deploy):
        plain = to_onnx(net, flexible=False if fixed else None)
    model = with_pixels(plain, pixels, fuse=args.precision != "float16") if pixels else plain
    _check(net, model, pixels)
    exact = model
    databases = Databases(args, net, pixels)
    if args.precision == "float16":
        model = to_float16(model)
    elif args.precision == "int8":
        model = quantise(model, databases.calibration(model))
    if args.precision != "float32" or args.test:
        databases.measure(exact, model)
    with atomic_file(args.output) as file:
        file.write(model.SerializeToString(deterministic=True))
    for kind, values in (("takes", model.graph.input), ("gives", model.graph.output)):
        for value in values:
            shape = ", ".join(dim.dim_param or str(dim.dim_value) for dim in value.type.tensor_type.shape.dim)
            number = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
            log.info("%s %s: %s (%s)", kind, value.name, number, shape)
    size, before = args.output.stat().st_size, exact.ByteSize()
    log.info(
        "%s: %s, opset %d, %.2f MB%s",
        args.output,
        args.precision,
        model.opset_import[0].version,
        size / 1e6,
        f", {size / before:.0%} of float32's {before / 1e6:.2f} MB" if args.precision != "float32" else "",
    )


def _check_flags(args: Namespace) -> None:
    for flag, allowed in (("precision", ("float32", "float16", "int8")), ("input", ("float32", "uint8"))):
        if getattr(args, flag) not in allowed:
            raise OnnxExportError(f"-{flag} {getattr(args, flag)} where {', '.join(allowed)} were expected")
    for flag in ("batches", "batch_size"):
        if getattr(args, flag) < 1:
            raise OnnxExportError(f"-{flag} {getattr(args, flag)} where at least 1 was expected")
    if args.precision != "int8" and args.calibration:
        raise OnnxExportError(f"-calibration is for -precision int8, and this is {args.precision}; leave it out")


def _read_net(deploy: Path, weights: Path) -> "Net":
    """The TEST net with all its weights. Raises OnnxExportError where some are missing, or there are no inputs."""
    import torch

    from pipeline.caffe.net import Net, build_read_net, naming_lines
    from pipeline.caffe.onnx.graph import refuse_without_form

    param = read_net(deploy)
    layers = filter_layers(param, TEST, 0, ()).layer
    if not any(layer.type == "Input" for layer in layers):
        raise OnnxExportError(
            f"{deploy}: no Input layer, so nothing that a user of the net could give; is it a train_val? "
            "give the deploy prototxt"
        )
    with naming_lines(deploy):
        refuse_without_form(layers)
    net = build_read_net(deploy, param, TEST, Net)
    with torch.no_grad():
        for learnable in net.learnable:
            learnable.blob.fill_(torch.nan)
    net.copy_from(weights)
    missing = [learnable.layer for learnable in net.learnable if learnable.blob.isnan().all()]
    if missing:
        raise OnnxExportError(
            f"{weights}: no weights of layer '{missing[0]}' of {deploy}; are these the weights of another net?"
        )
    return net


def _pixels(args: Namespace, net: "Net") -> "Pixels | None":
    """What the flags put before the net. Raises PixelsError, OnnxExportError where that does not suit its input."""
    from pipeline.caffe.onnx.evaluation import centre
    from pipeline.caffe.onnx.preprocessing import Pixels

    given = args.mean or args.channel_swap or args.scale != 1 or args.raw_scale != 1
    if not given and args.input == "float32":
        return None
    if args.train_val:
        raise OnnxExportError(
            "-train_val tells what is done to images outside the graph, -mean, -scale, -raw_scale, "
            "-channel_swap and -input uint8 what the graph does; give the one or the other"
        )
    name = _only_input(net, "mean, scales, channel_swap and input")
    shape = net.shapes[name]
    mean = None
    if Path(args.mean).is_file():
        mean = read_mean(Path(args.mean))
        cut = centre(mean, *shape[2:]) if len(shape) == 4 else mean
        if cut.shape != mean.shape:
            log.info(
                "%s: of its %dx%d the centre %dx%d, as a Data layer's crop in TEST takes it",
                args.mean,
                *mean.shape[1:],
                *cut.shape[1:],
            )
        mean = cut
    elif args.mean:
        values = _numbers(args.mean, float, f"-mean {args.mean}: no such file, and no numbers with commas between them")
        mean = np.array(values, np.float32)[:, None, None]
    swap = tuple(
        _numbers(
            args.channel_swap, int, f"-channel_swap {args.channel_swap}: no whole numbers with commas between them"
        )
    )
    pixels = Pixels(swap, args.raw_scale, mean, args.scale, np.uint8 if args.input == "uint8" else np.float32)
    pixels.check(name, shape)
    if args.input == "uint8" and args.raw_scale != 1:
        log.warning("-raw_scale %g with -input uint8: 255 becomes %g", args.raw_scale, 255 * args.raw_scale)
    return pixels


def _numbers(text: str, kind: Callable[[str], Number], error: str) -> list[Number]:
    try:
        return [kind(part) for part in text.split(",")] if text else []
    except ValueError:
        raise OnnxExportError(error) from None


def _only_input(net: "Net", what: str) -> str:
    if len(net.inputs) != 1:
        raise OnnxExportError(
            f"net '{net.name}' has the inputs {', '.join(net.inputs)}, and {what} are for nets of one"
        )
    return net.inputs[0]


def _check(net: "Net", model: "onnx.ModelProto", pixels: "Pixels | None") -> None:
    """Compare the float32 model with the engine on drawn inputs. Raises OnnxExportError when they differ."""
    import torch

    from pipeline.caffe.onnx.evaluation import session

    random = np.random.default_rng(0)
    runtime = session(model)
    inputs, taken = {}, {}
    for value in runtime.get_inputs():
        shape = net.shapes[value.name]
        if len(net.inputs) == 1:
            shape = _drawn_shape(shape, model)
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
            raise OnnxExportError(
                f"net '{net.name}': output '{name}' of the ONNX form deviates from the engine's by "
                f"{difference:.1e} where at most {TOLERANCE:g} was expected; nothing was written"
            )


def _drawn_shape(shape: "Shape", model: "onnx.ModelProto") -> "Shape":
    """Of the shape that the prototxt gives the only input, no more images than DRAWN_VALUES."""
    if not model.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        return shape
    return (max(1, min(shape[0], DRAWN_VALUES // math.prod(shape[1:]))), *shape[1:])


def _data_layer(path: Path, phase: Phase) -> LayerParameter | None:
    """The Data layer of a net's phase, of TRAIN where TEST has none."""
    param: NetParameter = read_net(path)
    for each in (phase, TRAIN):
        for layer in filter_layers(param, each, 0, ()).layer:
            if layer.type == "Data":
                return layer
    return None


class Databases:
    """The images that int8's ranges are of, and those that a conversion is measured on, made what the graph takes."""

    def __init__(self, args: Namespace, net: "Net", pixels: "Pixels | None") -> None:
        self.args, self.net, self.pixels = args, net, pixels
        self.transformer: Transformer | None = None
        self.ranges: set[bytes] = set()  # hashes of the images that int8's ranges are of
        if args.train_val:
            layer = _data_layer(Path(args.train_val), TEST)
            if layer is None:
                raise OnnxExportError(f"{args.train_val}: no Data layer whose transform_param tells what the net takes")
            self.transformer = Transformer(layer.transform_param, TEST)

    def calibration(self, model: "onnx.ModelProto") -> Iterator[np.ndarray]:
        """The calibration database's first batches. Raises OnnxExportError where none is given, or the tested one."""
        path = self.args.calibration
        if not path and self.args.train_val:
            layer = _data_layer(Path(self.args.train_val), TRAIN)
            path = layer.data_param.source if layer else ""
        if not path:
            raise OnnxExportError(
                "-precision int8 needs images that show how large activations become: give -calibration, "
                "a database of training images, or a -train_val that names one"
            )
        if self.args.test and Path(path).resolve() == Path(self.args.test).resolve():
            raise OnnxExportError(
                f"{path}: calibrated and tested on the same images, which tells nothing about others; "
                "give training images as -calibration"
            )
        return self._some(self._batches(self._images(path), model), path)

    def _some(self, batches: Batches, path: str) -> Iterator[np.ndarray]:
        count = 0
        for batch, _ in islice(batches, self.args.batches):
            count += len(batch)
            self.ranges.update(map(_hash, batch))
            yield batch
        log.info("int8's ranges are those of the first %d images of %s", count, path)

    def measure(self, exact: "onnx.ModelProto", model: "onnx.ModelProto") -> None:
        """Tell what the conversion changes, on the test images, or where none are given on drawn inputs."""
        from pipeline.caffe.onnx.evaluation import class_output, compare

        precision, classes = self.args.precision, class_output(exact, self.args.classes)
        labelled = False
        if self.args.test:
            images = self._images(self.args.test)
            labelled, batches = images.labelled(), self._batches(images, exact)
            what = f"images of {images.path}"
        elif len(self.net.inputs) == 1:
            what, batches = "drawn inputs (give -test for images)", self._drawn(exact)
        else:
            log.info("%s: not measured, which it is for nets of one input", precision)
            return
        again = 0

        def counted() -> Batches:
            nonlocal again
            for batch, labels in batches:
                again += sum(_hash(image) in self.ranges for image in batch) if self.ranges else 0
                yield batch, labels

        found = compare(exact, model, counted(), classes, labelled=labelled)
        if again:
            log.warning("%d %s are among those that int8's ranges are of", again, what)
        if precision != "float32":
            log.info(
                "%s against float32 on %d %s: outputs deviate by at most %.2e of the largest",
                precision,
                found.images,
                what,
                found.deviation,
            )
            if found.agreed is not None:
                log.info("the same class of %d of them (%.2f%%)", found.agreed, 100 * found.agreed / found.images)
        if not np.isfinite(found.deviation):
            raise OnnxExportError(
                f"net '{self.net.name}': not all that {precision} makes of {what} are numbers; export it in float32"
            )
        if found.right is not None:
            before, after = (right / found.images for right in found.right)
            log.info(
                "accuracy on %d %s: float32 %.4f%s",
                found.images,
                what,
                before,
                f", {precision} {after:.4f}" if precision != "float32" else "",
            )
        elif self.args.test:
            log.info(
                "no accuracy: %s",
                "the images have no labels"
                if classes
                else "not one output has a value for each class; -classes names one of several",
            )

    def _drawn(self, model: "onnx.ModelProto") -> Batches:
        shape = _drawn_shape(self.net.shapes[self.net.inputs[0]], model)
        drawn = np.random.default_rng(1).uniform(size=shape) * (255 if self.pixels else 1)
        yield drawn.astype(self.pixels.dtype if self.pixels else np.float32), np.zeros(0)

    def _batches(self, images: "Images", model: "onnx.ModelProto") -> Batches:
        """The batches of a database, of -batch_size images where the model takes any number."""
        if model.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
            return images.batches(self.args.batch_size, whole=False)
        return images.batches(self.net.shapes[self.net.inputs[0]][0], whole=True)

    def _images(self, path: str) -> "Images":
        """A database's images, transformed as -train_val says or made raw pixels for the graph."""
        from pipeline.caffe.onnx.evaluation import Images, centre

        shape = self.net.shapes[_only_input(self.net, "databases")]

        def prepare(images: np.ndarray) -> np.ndarray:
            made = self.transformer(images) if self.transformer else images
            made = centre(made, *shape[2:]) if len(shape) == 4 else made
            if made.shape[1:] != shape[1:]:
                raise OnnxExportError(
                    f"{path}: images of shape {made.shape[1:]} where net '{self.net.name}' takes "
                    f"{shape[1:]}; make the database from images of that size"
                )
            if self.pixels is None:
                return made.astype(np.float32)
            raw = self.pixels.raw(made)
            if self.pixels.dtype == np.uint8 and raw.dtype != np.uint8:
                raise OnnxExportError(
                    f"{path}: images of floats where the graph takes uint8; leave -input and -raw_scale out"
                )
            return raw.astype(self.pixels.dtype)

        return Images(Path(path), self.args.backend, prepare)


def _hash(image: np.ndarray) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()
