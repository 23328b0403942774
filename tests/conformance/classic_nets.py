"""The nets of prototxt and prototxt/classics, cut to what two cores compare in seconds, here and in real Caffe."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import h5py
import numpy as np
import onnxruntime
from caffe_root import CaffeRoot
from google.protobuf import text_format
from harness import TOLERANCE, Arrays, draw_parameters, run_gradients, split_answers
from values import Values

from pipeline.caffe.database import DatabaseWriter, datum_from_image, record_key
from pipeline.caffe.layers import Shape
from pipeline.caffe.net import Net
from pipeline.caffe.onnx import to_onnx
from pipeline.caffe.proto.blob_proto import write_mean
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter, Phase
from pipeline.caffe.proto.files import read_net

PROTOTXT = Path(__file__).parents[2] / "prototxt"
CLASSICS = PROTOTXT / "classics"
RECORDED = Path(__file__).parent / "classics"
KEPT = 32  # values of each blob that are committed
DATA_LAYERS = ("Data", "HDF5Data", "ImageData", "Input")
DATUMS = {
    "cifar10_full": (3, 32, 32),
    "fcn8s": (3, 40, 48),
    "fcn8s label": (1, 40, 48),
    "lenet": (1, 28, 28),
    "mnist_siamese": (2, 28, 28),
}  # in the databases; of a net, or of one of its data layers


class Kept(NamedTuple):
    """Of a blob of real Caffe's: its values, or those that were kept, and the largest of all."""

    values: np.ndarray
    largest: float


@dataclass(frozen=True)
class Classic:
    """A net, and how it is cut; its files stay as they are, the sizes are set on the message.

    train, deploy: the shapes of what takes the data layers' or inputs' place. parameters: the learnable values of
    deploy.prototxt as published, statistics left out. narrower: every num_output, and every group of depthwise
    convolutions, is divided by it where it can be. windows: kernels of average poolings over all that is left of an
    image. rules: how inputs are drawn. tolerance: instead of 1e-5.

    dead: layers whose bias has no effect, so that its gradient is 0 but for rounding, which is measured against the
    weight's. flat: the beginnings of the names of blobs whose gradients are not compared.
    """

    train: Mapping[str, Shape]
    deploy: Mapping[str, Shape]
    parameters: int
    narrower: int = 1
    windows: Mapping[str, int] = field(default_factory=dict)
    rules: str = ""
    tolerance: float = TOLERANCE
    dead: tuple[str, ...] = ()
    flat: tuple[str, ...] = ()


def images(*shape: int) -> dict[str, Shape]:
    return {"data": shape}


def labelled(*shape: int) -> dict[str, Shape]:
    return {"data": shape, "label": shape[:1]}


TEN, THOUSAND = "# label: choice 0 3 9", "# label: choice 0 57 124"  # of a thousand classes an eighth is left

FACES = "# label: choice 0 1 2 3 4 5 6"

NETS = {
    # Those of faces.
    "accurate": Classic(labelled(4, 1, 46, 46), images(2, 1, 46, 46), 1_613_287, 8, rules=FACES, tolerance=1e-4),
    # Its biases before BatchNorm have gradients that are differences of nearly equal sums: at batches of 2 to 8 the
    # two engines are 0.5e-4 to 4e-4 apart.
    "class_folders_vgg": Classic(
        labelled(4, 1, 48, 48), images(2, 1, 48, 48), 10_593_479, 8, rules=FACES, tolerance=5e-4
    ),
    "four_layer_cnn": Classic(labelled(4, 1, 48, 48), images(2, 1, 48, 48), 2_345_607, 8, rules=FACES),
    "gudi": Classic(labelled(4, 1, 48, 48), images(2, 1, 48, 48), 56_883_015, 8, rules=FACES),
    "small": Classic(labelled(4, 1, 46, 46), images(2, 1, 46, 46), 323_215, 8, rules=FACES, tolerance=1e-4),
    "three_expressions": Classic(
        labelled(4, 1, 48, 48), images(2, 1, 48, 48), 2_393_027, 8, rules="# label: choice 0 1 2", tolerance=1e-4
    ),
    # The classics.
    "alexnet": Classic(labelled(3, 3, 99, 99), images(2, 3, 99, 99), 60_965_224, 8, rules=THOUSAND),
    "caffenet": Classic(labelled(3, 3, 99, 99), images(2, 3, 99, 99), 60_965_224, 8, rules=THOUSAND),
    "cifar10_full": Classic(labelled(4, 3, 32, 32), images(3, 3, 32, 32), 89_578, rules=TEN),
    # In the margin of 100 zeros all values of a window are equal, and rounding decides which of them gets the gradient;
    # from there on down it stands elsewhere in the blobs, though what it makes of the parameters' is the same.
    "fcn8s": Classic(
        {"data": (1, 3, 33, 41), "label": (1, 1, 33, 41)},
        images(1, 3, 41, 33),
        134_489_759,
        16,
        rules="# label: choice 0 1 7 20 255",
        flat=("conv", "pool"),
    ),
    "googlenet": Classic(
        labelled(3, 3, 64, 64),
        images(2, 3, 64, 64),
        6_998_552,
        8,
        {"loss1/ave_pool": 3, "loss2/ave_pool": 3, "pool5/7x7_s1": 2},
        THOUSAND,
    ),
    "lenet": Classic(labelled(4, 1, 28, 28), images(3, 1, 28, 28), 431_080, rules=TEN),
    "lrcn": Classic(
        {"data": (3, 3, 99, 99), "cont_sentence": (5, 3), "input_sentence": (5, 3), "target_sentence": (5, 3)},
        {"cont_sentence": (4, 2), "input_sentence": (4, 2), "image_features": (2, 125)},
        37_618_801,
        8,
        rules="# cont_sentence: choice 0 1 1\n# input_sentence: choice 0 7 8800\n# target_sentence: choice -1 9 8800",
    ),
    "mnist_siamese": Classic(
        {"pair_data": (6, 2, 28, 28), "sim": (6,)},
        images(3, 1, 28, 28),
        431_102,
        rules="# sim: choice 0 1",
        dead=("ip2", "ip2_p", "feat", "feat_p"),
    ),
    "mobilenet": Classic(labelled(4, 3, 64, 96), images(2, 3, 64, 96), 4_231_976, 8, rules=THOUSAND, tolerance=1e-4),
    "resnet50": Classic(
        labelled(4, 3, 64, 64),
        images(2, 3, 64, 64),
        25_557_096,
        8,
        {"pool5": 2},
        THOUSAND,
        1e-4,
        dead=("conv1", "scale_conv1"),
    ),
    "squeezenet": Classic(labelled(3, 3, 67, 83), images(2, 3, 67, 83), 1_235_496, 8, rules=THOUSAND),
    "vgg16": Classic(labelled(2, 3, 64, 64), images(2, 3, 64, 64), 138_357_544, 8, rules=THOUSAND),
}


def net_folder(name: str) -> Path:
    """Where a net's prototxts lie."""
    return CLASSICS / name if (CLASSICS / name).is_dir() else PROTOTXT / name


def published(name: str) -> NetParameter:
    """deploy.prototxt in TEST, for a batch of one."""
    param = read_net(net_folder(name) / "deploy.prototxt")
    for layer in param.layer:
        if layer.top[:] == ["data"]:
            layer.input_param.shape[0].dim[0] = 1
    param.state.phase = TEST
    return param


def cut(name: str, phase: Phase) -> NetParameter:
    """train_val.prototxt in TRAIN, on a given batch and without what is drawn at random; or deploy.prototxt in TEST."""
    classic = NETS[name]
    param = read_net(net_folder(name) / ("train_val.prototxt" if phase == TRAIN else "deploy.prototxt"))
    layers = [layer for layer in param.layer if layer.type not in (*DATA_LAYERS, "Accuracy", "Silence")]
    del param.layer[:]
    for blob, shape in (classic.train if phase == TRAIN else classic.deploy).items():
        layer = param.layer.add(name=blob, type="Input", top=[blob])
        layer.input_param.shape.add().dim.extend(shape)
    for layer in layers:
        _narrow(layer, classic.narrower)
        if layer.type == "Dropout":
            layer.dropout_param.dropout_ratio = 0
        if layer.name in classic.windows:
            layer.pooling_param.kernel_size = classic.windows[layer.name]
    param.layer.extend(layers)
    param.state.phase = phase
    return param


def _narrow(layer: LayerParameter, divisor: int) -> None:
    for param in (layer.convolution_param, layer.inner_product_param, layer.embed_param, layer.recurrent_param):
        if param.num_output and param.num_output % divisor == 0:
            param.num_output //= divisor
    if layer.convolution_param.group > 2:
        layer.convolution_param.group //= divisor


def on_small_databases(name: str) -> NetParameter:
    """train_val.prototxt with its data layers, narrower, two items a batch; what they read is made where they say."""
    param = read_net(CLASSICS / name / "train_val.prototxt")
    for layer in param.layer:
        _narrow(layer, NETS[name].narrower)
        if layer.type == "Data":
            shape = DATUMS.get(f"{name} {layer.name}", DATUMS.get(name, (3, 256, 256)))
            layer.data_param.batch_size = 2
            with DatabaseWriter(Path(layer.data_param.source)) as database:
                for index in range(3):
                    image = np.full(shape, index, np.uint8)
                    database.put(record_key(index, "image"), datum_from_image(image, index % 2))
            if layer.transform_param.mean_file:
                write_mean(Path(layer.transform_param.mean_file), np.ones(shape, np.float32))
        elif layer.type == "ImageData":
            layer.image_data_param.batch_size = 2
            cv2.imwrite("image.png", np.zeros((9, 11, 3), np.uint8))
            write_list(Path(layer.image_data_param.source), "image.png 0\n" * 3)
        elif layer.type == "HDF5Data":
            with h5py.File("sentences.h5", "w") as file:
                for top in layer.top:
                    file[top] = np.ones((layer.hdf5_data_param.batch_size, 2), np.float32)
            write_list(Path(layer.hdf5_data_param.source), "sentences.h5\n")
    return param


def write_list(path: Path, lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lines)


def write_case(name: str, param: NetParameter, path: Path) -> None:
    """Write a net with the rules by which its numbers are drawn."""
    # Scales as those of trained nets, and shifts above 0. With shifts around 0 most of a layer's values lie at the
    # rectifier's kink, and under BatchNorm every few layers double the rounding errors of those before them.
    scales = [
        f"# {layer.name}/{index}: uniform 0.5 1.5"
        for layer in param.layer
        if layer.type == "Scale"
        for index in range(2)
    ]
    path.write_text("\n".join([*scales, NETS[name].rules, text_format.MessageToString(param)]))


def trained(name: str, folder: Path) -> dict[str, np.ndarray]:
    """Every blob and gradient of a net in TRAIN; the answer has the keys of record.py's "net"."""
    path = folder / f"{name}.prototxt"
    write_case(name, cut(name, TRAIN), path)
    return run_gradients(path, name)


def trained_by_caffe(name: str, caffe: CaffeRoot) -> dict[str, np.ndarray]:
    """Real Caffe's answer to the same, as far as it can be compared.

    It passes no gradient to blobs, and to parameters of lr_mult 0, that no learned parameter is below: zeros.
    """
    write_case(name, cut(name, TRAIN), caffe.folder / "net.prototxt")
    answer = caffe.net("net.prototxt", name)
    flat = tuple(f"gradient/{start}" for start in NETS[name].flat)
    return {
        key: value
        for key, value in answer.items()
        if not key.startswith("gradient/") or (value.any() and not key.startswith(flat))
    }


def deployed(name: str, param: NetParameter, folder: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The outputs of a net in TEST, from the engine and from ONNX Runtime, with the keys of record.py's "outputs"."""
    path = folder / f"{name}.prototxt"
    write_case(name, param, path)
    values = Values(name, path.read_text())
    net = Net(read_net(path), TEST)
    draw_parameters(net, values)
    inputs = {blob: values.input(blob, net.shapes[blob]) for blob in net.inputs}
    ours = {f"top/{blob}": value.detach().numpy() for blob, value in net.forward(**inputs).items()}
    runtime = onnxruntime.InferenceSession(to_onnx(net).SerializeToString(), providers=["CPUExecutionProvider"])
    made = runtime.run(None, inputs)
    return ours, {f"top/{output.name}": value for output, value in zip(runtime.get_outputs(), made, strict=True)}


def deployed_by_caffe(name: str, param: NetParameter, caffe: CaffeRoot) -> dict[str, np.ndarray]:
    """Real Caffe's outputs of the same."""
    write_case(name, param, caffe.folder / "net.prototxt")
    return caffe.outputs("net.prototxt", name)


def deviations(name: str, ours: Arrays, caffe: Mapping[str, Kept]) -> dict[str, float]:
    """How far ours is from each blob of real Caffe's; infinite where it has none, or one of another shape."""
    dead = {f"parameter gradient/{layer}/1": f"parameter gradient/{layer}/0" for layer in NETS[name].dead}
    found = {}
    for key, (values, _) in caffe.items():
        mine = ours.get(key, np.empty(0))
        mine = mine if mine.shape == values.shape else some(mine)
        if mine.shape != values.shape or not np.isfinite(mine).all():
            found[key] = float("inf")
            continue
        difference = float(np.abs(mine.astype(np.float64) - values).max())
        found[key] = difference / max(caffe[dead.get(key, key)].largest, np.finfo(np.float32).tiny)
    return found


def whole(answer: Arrays) -> dict[str, Kept]:
    """A live answer."""
    return {key: Kept(value, float(np.abs(value).max())) for key, value in answer.items()}


def recorded(name: str, part: str) -> dict[str, Kept]:
    """A committed answer; `part` is train or deploy."""
    answer = split_answers(RECORDED / f"{name}.npz", part)
    values = np.split(answer["values"], np.cumsum(answer["sizes"])[:-1])
    return {
        str(key): Kept(value, float(largest))
        for key, value, largest in zip(answer["names"], values, answer["largest"], strict=True)
    }


def packed(answer: Arrays) -> dict[str, np.ndarray]:
    """What is committed of an answer: every blob's largest value and some of all."""
    names = sorted(answer)
    kept = [some(answer[name]) for name in names]
    return {
        "names": np.array(names),
        "largest": np.array([np.abs(answer[name]).max() for name in names], np.float32),
        "sizes": np.array([len(values) for values in kept]),
        "values": np.concatenate(kept).astype(np.float32),
    }


def some(blob: np.ndarray) -> np.ndarray:
    """At most 63 of a blob's values, the first among them."""
    return blob.ravel()[:: max(1, blob.size // KEPT)]


def record_classics(caffe: CaffeRoot) -> None:
    """Ask real Caffe everything again."""
    RECORDED.mkdir(exist_ok=True)
    for name in NETS:
        parts = {"train": trained_by_caffe(name, caffe), "deploy": deployed_by_caffe(name, cut(name, TEST), caffe)}
        np.savez_compressed(
            RECORDED / f"{name}.npz",
            **{f"{part}/{key}": value for part, answer in parts.items() for key, value in packed(answer).items()},
        )
