"""Runs a case in the engine, and compares what came out with what real Caffe answered."""

import re
from collections.abc import Mapping
from pathlib import Path

import cv2
import h5py
import numpy as np
import torch
from google.protobuf import text_format
from values import Values, forwards

from pipeline.caffe.database import DatabaseWriter, datum_from_image, record_key
from pipeline.caffe.hdf5.files import HDF5Reader
from pipeline.caffe.layers.data import MemoryData
from pipeline.caffe.layers.hdf5 import HDF5Output
from pipeline.caffe.net import Net
from pipeline.caffe.proto.blob_proto import write_mean
from pipeline.caffe.proto.caffe_pb2 import TRAIN, Datum, LayerParameter, NetParameter
from pipeline.caffe.proto.files import read_net

HERE = Path(__file__).parent
CASES = HERE / "cases"
FACE_EMOTION_NET = Path(__file__).parents[2] / "prototxt/face_emotion_net/train_val.prototxt"
TOLERANCE = 1e-5

# What a JPEG has behind its first two bytes when the camera was turned by a quarter: EXIF, orientation 6.
TURNED = b"\xff\xe1\x00\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"

Arrays = Mapping[str, np.ndarray]


def run_case(case: str, device: str = "cpu") -> dict[str, np.ndarray]:
    """Run cases/LayerType/case.prototxt; its answer has the keys that record.py's has."""
    return run_net(CASES / f"{case}.prototxt", case, device)


def run_net(path: Path, case: str, device: str = "cpu") -> dict[str, np.ndarray]:
    """Run a net forward and backward with the numbers that its case draws, as record.py does in real Caffe."""
    text = path.read_text()
    values = Values(case, text)
    param: NetParameter = read_net(path)
    net = Net(param, param.state.phase, device=device)
    draw_parameters(net, values)
    before = {
        (layer, index): blob.detach().clone() for layer, blobs in net.params.items() for index, blob in enumerate(blobs)
    }
    for layer in net.layers:
        if isinstance(layer, MemoryData):
            layer.set_arrays(*values.memory(layer.shape))
    inputs = {
        name: torch.from_numpy(values.input(name, net.shapes[name])).to(device).requires_grad_(param.force_backward)
        for name in net.inputs
    }
    for _ in range(forwards(text)):
        net.forward(**inputs)
    losses = {
        top
        for layer in net.layers
        for top, weight in zip(layer.param.top, layer.param.loss_weight, strict=False)
        if weight
    }
    total = net.loss
    for name in net.outputs:
        blob = net.blobs[name]
        if name not in losses and blob.requires_grad:
            gradient = torch.from_numpy(values.output_gradient(name, tuple(blob.shape)))
            total = total + (blob * gradient.to(device)).sum()
    if total.requires_grad:
        total.backward()
    answer = {f"top/{name}": blob.detach().cpu().numpy() for name, blob in net.blobs.items()}
    answer |= {f"gradient/{name}": gradient_of(value) for name, value in inputs.items()}
    for layer, blobs in net.params.items():
        for index, blob in enumerate(blobs):
            answer[f"parameter gradient/{layer}/{index}"] = gradient_of(blob)
            if not torch.equal(before[layer, index], blob):
                answer[f"parameter/{layer}/{index}"] = blob.detach().cpu().numpy()
    for layer in net.layers:
        if isinstance(layer, HDF5Output):
            with HDF5Reader(layer.path) as file:
                answer |= {f"file/{layer.path}/{name}": file.array(name) for name in file.names()}
    return answer


def draw_parameters(net: Net, values: Values) -> None:
    """Fill every parameter blob as the case says."""
    for layer in net.layers:
        for index, blob in enumerate(layer.blobs):
            with torch.no_grad():
                blob.copy_(torch.from_numpy(values.parameter(layer.param.name, layer.type, index, tuple(blob.shape))))


def gradient_of(blob: torch.Tensor) -> np.ndarray:
    """A blob's gradient; zeros where none came back, as Caffe has it."""
    leaf = blob if blob.is_leaf else blob._base  # a PERMISSIVE sharer sees its owner's blob in another shape
    return np.zeros(tuple(blob.shape), np.float32) if leaf.grad is None else leaf.grad.cpu().numpy().reshape(blob.shape)


def recorded(case: str) -> dict[str, np.ndarray]:
    """Real Caffe's committed answer to a case; empty where it has none."""
    layer_type, name = case.split("/")
    return split_answers(CASES / layer_type / "recorded.npz", name)


def split_answers(path: Path, name: str) -> dict[str, np.ndarray]:
    """One case's part of a recorded.npz."""
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as arrays:
        return {key.removeprefix(f"{name}/"): arrays[key] for key in arrays.files if key.startswith(f"{name}/")}


def tolerance(case: str) -> float:
    """What a case may deviate: 1e-5 unless its prototxt has a line "# tolerance: NUMBER, why"."""
    found = re.search(r"^# tolerance: (\S+), .+$", (CASES / f"{case}.prototxt").read_text(), re.MULTILINE)
    return float(found[1]) if found else TOLERANCE


def deviation(ours: np.ndarray, caffe: np.ndarray) -> float:
    """The largest difference of two blobs, relative to real Caffe's largest value; infinite where shapes differ."""
    if ours.shape != caffe.shape or not np.isfinite(ours).all():
        return float("inf")
    difference = float(np.abs(ours.astype(np.float64) - caffe).max(initial=0))
    return difference / max(float(np.abs(caffe).max(initial=0)), np.finfo(np.float32).tiny) if difference else 0.0


def assert_agrees(ours: Arrays, caffe: Arrays, limit: float, what: str) -> float:
    """Fail naming every blob of real Caffe's that ours lacks or that deviates by more than `limit`.

    Returns the largest deviation.
    """
    assert caffe, f"{what}: nothing recorded; run tests/conformance/record_all.py where real Caffe is"
    missing = float("inf")
    deviations = {name: deviation(ours[name], value) if name in ours else missing for name, value in caffe.items()}
    wrong = [
        f"{name}: {ours[name].shape} deviates by {off:.1e}" if name in ours else f"{name}: missing"
        for name, off in deviations.items()
        if off > limit
    ]
    wrong += [
        f"{name}: real Caffe leaves it alone" for name in ours.keys() - caffe.keys() if name.startswith("parameter/")
    ]
    assert not wrong, f"{what}: beyond {limit:g} of real Caffe: " + "; ".join(wrong)
    return max(deviations.values())


def make_databases(folder: Path) -> None:
    """Make the files that cases read: databases of seven 3x9x11 images, their mean, an infogain matrix."""
    random = np.random.RandomState(0)
    images = random.randint(0, 256, size=(7, 3, 9, 11)).astype(np.uint8)
    floats = random.uniform(-1, 1, size=images.shape).astype(np.float32)

    def encoded(image: np.ndarray, label: int) -> Datum:
        png = cv2.imencode(".png", image.transpose(1, 2, 0))[1].tobytes()
        return Datum(channels=3, height=9, width=11, data=png, label=label, encoded=True)

    def of_floats(image: np.ndarray, label: int) -> Datum:
        return Datum(channels=3, height=9, width=11, float_data=image.ravel().tolist(), label=label)

    def of_a_file(image: np.ndarray, label: int) -> Datum:
        """As convert_imageset -encoded writes them: without a shape. Every other one is grey."""
        picture = cv2.resize(image.transpose(1, 2, 0), (33, 27))
        jpeg = cv2.imencode(".jpg", picture if label % 2 else picture[:, :, 0])[1].tobytes()
        return Datum(data=jpeg, label=label, encoded=True)

    def of_its_own_size(image: np.ndarray, label: int) -> Datum:
        return datum_from_image(image[:, : 6 + label % 3, : 11 - label % 4], 1000 * label)

    for name, arrays, make in (
        ("images_lmdb", images, datum_from_image),
        ("encoded_lmdb", images, encoded),
        ("floats_lmdb", floats, of_floats),
        ("files_lmdb", images, of_a_file),
        ("sizes_lmdb", images, of_its_own_size),
        ("images_leveldb", images, datum_from_image),
        ("files_leveldb", images, of_a_file),
    ):
        with DatabaseWriter(folder / name, name.split("_")[1]) as database:
            for index, array in enumerate(arrays):
                database.put(record_key(index, f"{index}.png"), make(array, index))
    write_mean(folder / "mean.binaryproto", images.mean(0, dtype=np.float32))
    write_mean(folder / "infogain.binaryproto", random.uniform(size=(1, 5, 5)).astype(np.float32))
    make_pictures(folder)
    make_hdf5_files(folder)


def make_hdf5_files(folder: Path) -> None:
    """Make two HDF5 files of rows, of five and of four, and the lists that name them."""
    random = np.random.RandomState(2)
    for name, rows in (("rows_a.h5", 5), ("rows_b.h5", 4)):
        with h5py.File(folder / name, "w") as file:
            file["image"] = random.uniform(-1, 1, size=(rows, 3, 4, 2)).astype(np.float32)
            file["label"] = random.randint(0, 5, size=rows)
            file["vector"] = random.uniform(-1, 1, size=(rows, 6))
            file["half"] = random.uniform(-1, 1, size=(rows, 3)).astype(np.float16)
            file["big_endian"] = random.uniform(-1, 1, size=(rows, 2)).astype(">f4")
            file["long"] = random.randint(-(2**62), 2**62, size=(rows, 2))
            file["byte"] = random.randint(0, 256, size=(rows, 5)).astype(np.uint8)
            file["rounded"] = random.uniform(-1, 1, size=(rows, 2)) * [1e38, 1e-44]
            file["deep"] = random.uniform(-1, 1, size=(rows, 2, 1, 3, 2, 1, 2)).astype(np.float32)
            packed = random.uniform(-1, 1, size=(rows, 7, 3))
            file.create_dataset("packed", data=packed, chunks=(2, 5, 3), compression="gzip", shuffle=True)
    (folder / "hdf5_file.txt").write_text("rows_a.h5\n")
    (folder / "hdf5_files.txt").write_text("rows_a.h5\nrows_b.h5\n")


def make_pictures(folder: Path) -> None:
    """Make the pictures that lists and window files name, and these; pictures/square.binaryproto is a mean of 13x13."""
    random = np.random.RandomState(1)
    pictures = folder / "pictures"
    pictures.mkdir()
    shapes = {
        "a.png": (9, 11, 3),
        "b c.png": (9, 11, 3),
        "gray.png": (9, 11),
        "alpha.png": (9, 11, 4),
        "deep.png": (9, 11, 3),
        "large.png": (19, 23, 3),
        "tall.png": (31, 17, 3),
    }
    for name, shape in shapes.items():
        depth = np.uint16 if name == "deep.png" else np.uint8
        pixels = random.randint(0, np.iinfo(depth).max + 1, size=shape).astype(depth)
        assert cv2.imwrite(str(pictures / name), pixels)
    smooth = cv2.resize(random.randint(0, 256, size=(5, 7, 3)).astype(np.uint8), (35, 27))
    photo = cv2.imencode(".jpg", smooth)[1].tobytes()
    (pictures / "photo.jpg").write_bytes(photo[:2] + TURNED + photo[2:])
    (folder / "list.txt").write_text(
        "pictures/a.png 3\npictures/b c.png -2\npictures/gray.png 0\npictures/alpha.png 1000000\npictures/deep.png 5\n"
    )
    (folder / "photo.txt").write_text("pictures/photo.jpg 2\n")
    (folder / "sizes.txt").write_text("large.png 1\na.png 2\ntall.png 3")
    write_mean(pictures / "square.binaryproto", random.uniform(0, 255, size=(3, 13, 13)).astype(np.float32))
    # Of each file one window has an overlap of 1, one of 0, so that there is no choice.
    for name, inner, outer in (
        ("windows", "4 3 12 17", "2 5 9 6"),
        ("edge_windows", "0 2 6 15", "9 20 16 30"),
        ("corner_windows", "14 0 22 4", "0 0 16 30"),
    ):
        (folder / f"{name}.txt").write_text(
            f"# 0\npictures/large.png\n3\n19\n23\n2\n2 1 {inner}\n4 0.4 1 1 5 5\n"
            f"# 1\npictures/tall.png\n3 31 17\n2\n1 0.3 2 2 3 3\n7 0 {outer}\n"
        )


def face_emotion_net() -> NetParameter:
    """FaceEmotionNet in TRAIN without what is drawn at random: nothing is dropped out, no data layer."""
    param = read_net(FACE_EMOTION_NET)
    layers = [layer for layer in param.layer if layer.type not in ("Data", "Accuracy")]
    del param.layer[:]
    param.layer.extend(layers)
    for layer in param.layer:
        if layer.type == "Dropout":
            layer.dropout_param.dropout_ratio = 0
        if layer.name == "fc3":
            layer.inner_product_param.num_output = 7
    param.state.phase = TRAIN
    return param


def write_face_emotion_net(path: Path) -> None:
    """Write FaceEmotionNet on a given batch of 42x42 crops and labels.

    Five of them, chosen by the name they are drawn under: in larger batches some value is soon so near a rectifier's
    kink, or to another in its pooling window, that rounding alone decides where its gradient goes. Here a millionth's
    noise on all weights leaves all gradients within 4e-6.
    """
    param = face_emotion_net()
    for name, shape in (("label", (5,)), ("data", (5, 1, 42, 42))):
        param.layer.insert(0, LayerParameter(name=name, type="Input", top=[name]))
        param.layer[0].input_param.shape.add().dim.extend(shape)
    path.write_text(f"# label: choice 0 1 2 3 4 5 6\nforce_backward: true\n{text_format.MessageToString(param)}")


def run_face_emotion_net(path: Path) -> dict[str, np.ndarray]:
    """Run what write_face_emotion_net wrote; the answer has the keys of record.py's "net"."""
    return run_gradients(path, "FaceEmotionNet")


def run_gradients(path: Path, case: str) -> dict[str, np.ndarray]:
    """Every blob and gradient of a net in TRAIN; the answer has the keys of record.py's "net"."""
    values = Values(case, path.read_text())
    net = Net(read_net(path), TRAIN)
    draw_parameters(net, values)
    gradients = net.gradients(**{name: values.input(name, net.shapes[name]) for name in net.inputs})
    answer = {f"top/{name}": blob.detach().cpu().numpy() for name, blob in net.blobs.items()}
    answer |= {f"gradient/{name}": gradient.numpy() for name, gradient in gradients.items()}
    for layer in net.layers:
        for index, blob in enumerate(layer.blobs):
            answer[f"parameter gradient/{layer.param.name}/{index}"] = gradient_of(blob)
            if not layer.blobs_are_learned:
                answer[f"parameter/{layer.param.name}/{index}"] = blob.detach().numpy()
    return answer
