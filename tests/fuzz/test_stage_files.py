"""Altered text files that pass from stage to stage: read, or an error of one line that names the file.

FUZZ_EXAMPLES=1000 pytest tests/fuzz/test_stage_files.py
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.altering import Alteration, alterations, altered, fuzzed
from hypothesis import example, given

from pipeline.base.errors import InputError
from pipeline.base.hashing import sha256
from pipeline.classifier import model_folder
from pipeline.classifier.metrics import read_metrics
from pipeline.classifier.run_record import read_run_record
from pipeline.classifier.training_metrics import METRICS, read_rows
from pipeline.data import ferplus, manifest
from pipeline.stages.targets import read_answers
from pipeline.stages.workflow import find_net_settings

KINDS = ("word", "word", "drop", "copy", "insert", "set", "cut", "flip")
RESULTS = Path(__file__).parents[2] / "docs/results/small"
IMAGES = [f"Training/happy/{number:05d}.png" for number in range(3)]
VOTES = dict.fromkeys(ferplus.CHOICES, 1)
KEYS = [f"{number:08d}_{path}".encode() for number, path in enumerate(IMAGES)]


def rows() -> list[manifest.ManifestRow]:
    places = dict(zip(manifest.COLUMNS[6:], map(float, range(16)), strict=False))
    return [manifest.ManifestRow(number, "Training", 3, path, "0" * 64, "found", **places)
            for number, path in enumerate(IMAGES)]  # fmt: skip


def write_ferplus(path: Path) -> None:
    lines = [",".join(ferplus.COLUMNS), *(f"Training,fer{number:07d}.png,5,3,0,1,0,0,0,0,1,0" for number in range(3))]
    path.write_text("\n".join(lines) + "\n")


def write_record(path: Path) -> None:
    run = {"engine": "torch", "threads": 2, "versions": {"torch": "2"}, "sha256": {"net.prototxt": "0" * 64}}
    path.write_text(json.dumps(run | {"earlier": [{"until": 5} | run]}, indent=1))


FILES: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "labels.txt": (
        lambda path: manifest.write_labels(path, ("angry", "happy", "überrascht")),
        manifest.read_labels,
    ),
    "manifest.csv": (lambda path: manifest.write(path, rows(), manifest.COLUMNS), manifest.read),
    "fer2013new.csv": (write_ferplus, ferplus.Votes),
    "votes.csv": (
        lambda path: ferplus.write_sidecar(path, ((image, VOTES.values()) for image in IMAGES)),
        lambda path: ferplus.read_sidecar(path, IMAGES),
    ),
    "answers.csv": (
        lambda path: path.write_text("key,a,b\n" + "".join(f"{key.decode()},0.25,0.75\n" for key in KEYS)),
        lambda path: list(read_answers(path, ("a", "b"), KEYS)),
    ),
    "run.json": (write_record, read_run_record),
    "metrics.csv": (
        lambda path: path.write_text(",".join(METRICS) + "\n0,0.00,,,1.9,0.2\n5,0.1,0.01,1.8,,\n"),
        read_rows,
    ),
    "metrics.json": (
        lambda path: path.write_bytes((RESULTS / "metrics.json").read_bytes()),
        read_metrics,
    ),
}  # fmt: skip


def check(read: Callable[[], object], place: str) -> None:
    """It reads, or raises an InputError of one line that begins with the place."""
    try:
        read()
    except InputError as error:
        said = str(error)
    else:
        return
    assert said.startswith(place)
    assert "\n" not in said


@pytest.mark.parametrize("name", FILES)
@fuzzed
@given(todo=alterations(*KINDS))
@example(todo=[("insert", 0.5, 0.0, b"\xff")])
@example(todo=[("cut", 0.5, 0.0, b"")])
@example(todo=[("cut", 0.0, 0.0, b"")])
@example(todo=[("insert", 0.0, 0.0, b"[" * 100_000)])
@example(todo=[("insert", 0.9, 0.0, b"9" * 200_000)])
@example(todo=[("insert", 0.9, 0.0, b'"')])
@example(todo=[("insert", 0.9, 0.0, b"\0")])
def test_a_file_is_read_or_named(name: str, todo: list[Alteration], tmp_path: Path) -> None:
    write, read = FILES[name]
    path = tmp_path / name
    write(path)
    path.write_bytes(altered(path.read_bytes(), todo))
    check(lambda: read(path), f"{path}:")


@pytest.mark.parametrize("name", [model_folder.INDEX, model_folder.PREPROCESSING, model_folder.LABELS])
@fuzzed
@given(todo=alterations(*KINDS))
@example(todo=[("insert", 0.5, 0.0, b"\xff")])
@example(todo=[("insert", 0.0, 0.0, b"[" * 100_000)])
def test_a_model_folder_is_read_or_named(name: str, todo: list[Alteration], tmp_path: Path) -> None:
    """Even where model.json has the right hash of what was altered."""
    source = model_folder.find("fast")
    for file in source.iterdir():
        link = tmp_path / file.name
        link.unlink(missing_ok=True)
        link.symlink_to(file)
    path = tmp_path / name
    path.unlink()
    path.write_bytes(altered((source / name).read_bytes(), todo))
    if name != model_folder.INDEX:
        index = json.loads((source / model_folder.INDEX).read_text())
        index["sha256"][name] = sha256(path)
        (tmp_path / model_folder.INDEX).unlink()
        (tmp_path / model_folder.INDEX).write_text(json.dumps(index))
    check(lambda: model_folder.read(tmp_path), str(tmp_path))


@fuzzed
@given(todo=alterations(*KINDS))
@example(todo=[("insert", 0.5, 0.0, b"\xff")])
def test_a_nets_settings_are_read_or_named(todo: list[Alteration], tmp_path: Path) -> None:
    net = tmp_path / "prototxt/net"
    net.mkdir(parents=True, exist_ok=True)
    (net / "train_val.prototxt").touch()
    text = b"epochs: 9\nbase_lr: 0.01\nsteps: [0.6, 0.85]\naugmentation: [mirror]\n"
    (net / "config.yaml").write_bytes(altered(text, todo))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.stages.workflow.NETS", tmp_path / "prototxt")
        check(lambda: find_net_settings("net"), f"{net / 'config.yaml'}")
