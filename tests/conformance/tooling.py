"""The cases of tools/: what Caffe's file tools are run on, in real Caffe and here, and what they made of it."""

import hashlib
import json
import re
import shutil
from contextlib import chdir
from pathlib import Path

import numpy as np
from caffe_root import CaffeRoot
from harness import HERE
from values import Values

from pipeline.caffe.net import build_net
from pipeline.caffe.proto.caffe_pb2 import TEST

TOOLS = HERE / "tools"
RECORDED = TOOLS / "recorded"

LIST = "a.png 3\nb.jpg 6\nmissing.png 1\nc.JPEG 0\nsub dir/d.bmp 5\ne.png 4\nbroken.png 2\nalpha.png 1\ns16.png 2\n"
READABLE = "a.png 3\nb.jpg 6\nc.JPEG 0\nsub dir/d.bmp 5\ne.png 4\n"
RESIZED = ("-resize_width=16", "--resize_height", "12")

# By name: the flags of convert_imageset, and the list.
SETS: dict[str, tuple[tuple[str, ...], str]] = {
    "colour": ((), LIST),
    "gray": (("-gray",), LIST),
    "resized": (("--resize_width=20", "--resize_height=31"), LIST),
    "gray resized": (("--gray=true", "-resize_width", "20", "-resize_height", "31"), LIST),
    "one side": (("-resize_width=20",), READABLE),
    "check_size": ((*RESIZED, "-check_size"), READABLE),
    "encoded": (("-encoded",), READABLE),
    "gray encoded": (("-gray", "-encoded"), READABLE),
    "png": (("-encode_type=png",), READABLE),
    "jpg": (("-encoded", "-encode_type=jpg"), READABLE),
    "JPG": (("-encode_type=JPG",), READABLE),
    "encoded one side": (("-encoded", "-resize_width=20"), READABLE),
    "encoded resized": ((*RESIZED, "-encoded"), READABLE),
}
MEANS = ("check_size", "encoded resized")  # sets of images of one size, raw and encoded
BLOBS = ("data", "label", "conv", "accuracy")  # sums of few and short numbers, exact in any order
BATCHES = 210  # of five records: more than one commit


def make_folder(folder: Path) -> None:
    """Put in a folder what the tools read."""
    shutil.copytree(TOOLS / "images", folder / "images")
    for name, (_, lines) in SETS.items():
        (folder / f"{name}.txt").write_text(lines)
    shutil.copy(TOOLS / "features.prototxt", folder)


def make_weights(folder: Path) -> None:
    """Write the weights of features.prototxt beside it, whose database must be there; multiples of 1/64."""
    with chdir(folder):
        net = build_net(Path("features.prototxt"), TEST)
    values = Values("features", (folder / "features.prototxt").read_text())
    for layer in net.layers:
        for index, blob in enumerate(layer.blobs):
            drawn = values.parameter(layer.param.name, layer.type, index, tuple(blob.shape))
            blob.data.copy_(blob.new_tensor(np.round(64 * drawn) / 64))
    net.save(folder / "features.caffemodel")


def caffe_answers(caffe: CaffeRoot) -> dict[str, str]:
    """sha256 of what real Caffe's tools write, and the messages of compute_image_mean."""
    folder, answers = caffe.folder, {}
    make_folder(folder)
    for name, (flags, _) in SETS.items():
        caffe.run("convert_imageset", *flags, "images/", f"{name}.txt", f"{name}_lmdb")
        answers[f"convert_imageset/{name}"] = sha256(folder / f"{name}_lmdb/data.mdb")
    make_weights(folder)
    databases = [f"{blob}_lmdb" for blob in BLOBS]
    caffe.run(
        "extract_features",
        "features.caffemodel",
        "features.prototxt",
        ",".join(BLOBS),
        ",".join(databases),
        str(BATCHES),
        "lmdb",
    )
    for blob, database in zip(BLOBS, databases, strict=True):
        answers[f"extract_features/{blob}"] = sha256(folder / database / "data.mdb")
    for name in (*MEANS, "conv"):
        output = caffe.run("compute_image_mean", f"{name}_lmdb", f"{name}.binaryproto")
        answers[f"compute_image_mean/{name}"] = sha256(folder / f"{name}.binaryproto")
        answers[f"compute_image_mean/{name} says"] = "; ".join(re.findall(r"mean_value channel.*", output))
    for path in sorted(TOOLS.glob("*.solver.prototxt")):
        shutil.copy(path, folder)
        caffe.run("upgrade_solver_proto_text", path.name, "upgraded.prototxt")
        answers[f"upgrade_solver_proto_text/{path.name}"] = (folder / "upgraded.prototxt").read_text()
    return answers


def record_tools(caffe: CaffeRoot) -> None:
    """Keep what real Caffe's tools make of the cases."""
    (RECORDED / "answers.json").write_text(json.dumps(caffe_answers(caffe), indent=1) + "\n")


def recorded_answers() -> dict[str, str]:
    """What record_tools() kept."""
    answers: dict[str, str] = json.loads((RECORDED / "answers.json").read_text())
    return answers


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
