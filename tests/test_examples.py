"""The scripts of examples/ do what their first lines say, and the notebook prints what is stored in it."""

import contextlib
import csv
import importlib.util
import io
import itertools
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.moving_pictures import write_video
from PIL import Image

from pipeline import Predictor
from pipeline.data.synthetic.sample import draw_faces

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_of_the_examples_has_each() -> None:
    text = (EXAMPLES / "README.md").read_text()
    assert all(f"[{path.name}]({path.name})" in text for path in EXAMPLES.glob("[!_]*.*") if path.name != "README.md")


def test_the_notebook_prints_what_is_stored_in_it() -> None:
    notebook = json.loads((EXAMPLES / "photo.ipynb").read_text())
    names: dict[str, Any] = {}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) == 4
    for cell in cells:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec("".join(cell["source"]), names)
        assert printed.getvalue() == "".join(line for output in cell["outputs"] for line in output["text"])
    assert names["drawn"].shape[2] == 3
    assert not np.array_equal(names["drawn"], names["image"])


def test_a_folder_becomes_a_table(portrait: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(portrait).save(tmp_path / "photos/face.png")
    Image.fromarray(np.full((80, 80, 3), 90, np.uint8)).save(tmp_path / "photos/wall.png")
    load("folder_to_csv").main(str(tmp_path / "photos"), str(tmp_path / "readings.csv"))
    assert "2 pictures, 1 faces" in capsys.readouterr().out
    with open(tmp_path / "readings.csv", newline="") as file:
        table = [(Path(row["file"]).name, row["status"], row["label"]) for row in csv.DictReader(file)]
    (face,) = Predictor()(portrait).faces
    assert table == [("face.png", "found", face.label), ("wall.png", "none", "")]


def test_the_loop_tells_each_change_once(
    portrait: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = write_video(tmp_path / "film.mp4", [portrait] * 8, rate=10)
    load("webcam").main(str(film))
    told = [line.split(" s  ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert told[-1] == "face 1: neutral"
    assert all(earlier != later for earlier, later in itertools.pairwise(told))


def test_folders_of_pictures_become_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classes = {0: "cross", 3: "glad", 6: "calm"}
    for face in draw_faces(75, seed=1):
        if face.label in classes:
            folder = tmp_path / "pictures" / classes[face.label]
            folder.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(folder / f"{len(list(folder.iterdir()))}.png"), face.pixels)
    load("own_folders").main(tmp_path / "pictures", tmp_path / "out", epochs=1, detector="none", threads=1)
    printed = capsys.readouterr().out
    assert "accuracy on held-out pictures: " in printed
    assert "tells apart: calm, cross, glad" in printed
    assert '"faces": "images"' in (tmp_path / "out/model/preprocessing.json").read_text()


def test_a_script_for_pycaffe_trains_a_net(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load("pycaffe_net").main(tmp_path, iterations=80)
    printed = capsys.readouterr().out
    assert "conv1's weights (8, 1, 3, 3)" in printed
    assert int(printed.rpartition("right: ")[2].rstrip("%\n")) >= 60
    assert (tmp_path / "spot.caffemodel").stat().st_size > 0
