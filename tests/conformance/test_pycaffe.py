"""Scripts of Caffe's Python interface give here what they give in real Caffe, their imports changed."""

import types
from pathlib import Path

import numpy as np
import pytest
from caffe_root import CaffeRoot
from harness import CASES, HERE, TOLERANCE, assert_agrees, deviation, make_databases, tolerance
from harness import recorded as recorded_case
from parity import Parity
from PIL import Image
from scripts import SCRIPTS, Answers, difference, packed, recorded, run_here, run_in_caffe
from values import all_cases

from pipeline.caffe import io


@pytest.fixture(scope="module")
def recorder() -> types.ModuleType:
    """record.py, which runs the cases in real Caffe, on this interface."""
    source = (HERE / "record.py").read_text(encoding="utf-8")
    source = source.replace("import caffe\n", "import pipeline.caffe as caffe\n")
    source = source.replace("from caffe.", "from pipeline.caffe.")
    module = types.ModuleType("record")
    exec(compile(source, "record.py", "exec"), module.__dict__)
    return module


def assert_same(ours: Answers, caffe: Answers, script: str, parity: Parity) -> None:
    assert caffe, f"{script}: nothing recorded; run tests/conformance/record_all.py where real Caffe is"
    assert ours.keys() == caffe.keys()
    off = {name: difference(name, ours[name], value) for name, value in caffe.items()}
    for name, value in off.items():
        parity("Python interface", name.split("/")[0], "Scripts", value)
    wrong = [f"{name}: {value:.1e}" for name, value in off.items() if value > TOLERANCE]
    assert not wrong, f"{script}: not as in real Caffe: " + "; ".join(wrong)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_answers_as_in_caffe(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parity: Parity
) -> None:
    make_databases(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert_same(packed(run_here(script)), recorded(script), script, parity)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_answers_as_in_live_caffe(
    script: str, caffe: CaffeRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parity: Parity
) -> None:
    for folder in (caffe.folder, tmp_path):
        make_databases(folder)
    answers = run_in_caffe(caffe, script)
    monkeypatch.chdir(tmp_path)
    assert_same(run_here(script), answers, script, parity)


@pytest.mark.parametrize("case", all_cases(CASES))
def test_a_case_runs_stepwise_as_in_caffe(
    case: str, databases: Path, recorder: types.ModuleType, monkeypatch: pytest.MonkeyPatch, parity: Parity
) -> None:
    """Each layer by itself, on blobs that stay: record.py is the script here, and its answers the recorded ones."""
    monkeypatch.chdir(databases)
    ours, caffe = recorder.run_net(CASES / f"{case}.prototxt", case), recorded_case(case)
    assert_agrees(ours, caffe, tolerance(case), case)
    assert ours.keys() == caffe.keys()
    parity("Python interface", "Net", "Cases", max(deviation(ours[name], value) for name, value in caffe.items()))


PICTURES = {
    "rgb.png": "RGB",
    "gray.png": "L",
    "alpha.png": "RGBA",
    "gray_alpha.png": "LA",
    "palette.gif": "P",
    "bits.png": "1",
    "photo.jpg": "RGB",
    "print.jpg": "CMYK",
    "map.bmp": "RGB",
    "scan.tif": "RGB",
    "deep.png": "I;16",
}
READ = """
import sys, numpy as np, skimage, skimage.io
for color in (True, False):
    np.savez("%d.npz" % color, **{name: skimage.img_as_float(skimage.io.imread(name, as_gray=not color))
                                  for name in sys.argv[1:]})
"""


def test_pictures_are_read_as_by_caffes_image_library(caffe: CaffeRoot, parity: Parity) -> None:
    """load_image of that Caffe asks its scikit-image for something that it no longer has; the library is asked here."""
    random = np.random.RandomState(0)
    for name, mode in PICTURES.items():
        pixels = random.randint(0, 256, size=(13, 11, 4)).astype(np.uint8)
        if mode == "I;16":
            image = Image.fromarray(random.randint(0, 65536, size=(13, 11)).astype(np.uint16))
        elif mode in ("RGBA", "CMYK"):
            image = Image.fromarray(pixels, mode)
        else:
            image = Image.fromarray(pixels).convert(mode)
        image.save(caffe.folder / name)
    (caffe.folder / "read.py").write_text(READ)
    caffe.run("python3", "read.py", *PICTURES)
    for color in (True, False):
        with np.load(caffe.folder / f"{color:d}.npz") as pictures:
            for name in PICTURES:
                wanted = pictures[name].astype(np.float32)
                wanted = wanted[:, :, np.newaxis] if wanted.ndim == 2 else wanted[:, :, :3]
                wanted = np.broadcast_to(wanted, (13, 11, 3 if color else 1))
                off = deviation(io.load_image(caffe.folder / name, color), wanted)
                assert off <= TOLERANCE, name
                parity("Python interface", "io", "Pictures", off)
