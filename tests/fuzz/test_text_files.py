"""Altered lists of pictures, window files and logs: read, or an error of one line, soon and without much memory.

FUZZ_EXAMPLES=1000 pytest tests/fuzz/test_text_files.py
"""

from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.altering import Alteration, alterations, altered, fuzzed
from helpers.little import little
from hypothesis import given

from pipeline.base.errors import InputError
from pipeline.caffe.net import Net
from pipeline.caffe.proto.caffe_pb2 import TRAIN, NetParameter
from pipeline.caffe.proto.files import parse_text
from pipeline.caffe.train_log_parser import History, read_history

KINDS = ("word", "word", "drop", "copy", "insert", "set", "cut", "flip")
LOG = Path(__file__).parents[1] / "conformance/solvers/log.txt"

LIST = "".join(f"picture{number}.png {number}\n" for number in range(2)) * 2
WINDOWS = "".join(
    f"# {number}\n{{folder}}/picture{number}.png\n3\n12\n16\n3\n1 0.9 1 2 8 9\n2 0.7 0 0 4 4\n0 0.1 3 3 9 9\n"
    for number in range(2)
)
IMAGE_DATA = """layer {{ name: "it" type: "ImageData" top: "data" top: "label" image_data_param {{ source: "{path}"
  root_folder: "{folder}/" batch_size: 2 new_height: 6 new_width: 5 shuffle: true }} }}"""
WINDOW_DATA = """layer {{ name: "it" type: "WindowData" top: "data" top: "label"
  transform_param {{ crop_size: 5 mirror: true }}
  window_data_param {{ source: "{path}" batch_size: 4 fg_threshold: 0.5 bg_threshold: 0.5 fg_fraction: 0.5
  context_pad: 1 }} }}"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(2):
        pixels = np.random.RandomState(number).randint(0, 256, (12, 16, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"picture{number}.png"), pixels)
    return folder


@pytest.mark.parametrize(("text", "net"), [(LIST, IMAGE_DATA), (WINDOWS, WINDOW_DATA)], ids=["list", "windows"])
@fuzzed
@given(todo=alterations(*KINDS))
def test_a_list(text: str, net: str, todo: list[Alteration], pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(altered(text.replace("{folder}", str(pictures)).encode(), todo))
    message = parse_text(net.format(path=path, folder=pictures), NetParameter, "net")
    try:
        with little():
            built = Net(message, TRAIN, seed=1)
            for _ in range(2):
                built.forward()
    except InputError as error:
        said = str(error)
    else:
        return
    assert said.startswith((f"{path}:", "layer 'it': "))
    assert "\n" not in said


@fuzzed
@given(todo=alterations(*KINDS))
def test_a_log(todo: list[Alteration], tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_bytes(altered(LOG.read_bytes(), todo))
    try:
        with little():
            history = read_history(path)
    except InputError as error:
        said = str(error)
    else:
        assert isinstance(history, History)
        return
    assert said.startswith(f"{path}:")
    assert "\n" not in said
