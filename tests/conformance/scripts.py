"""Runs the scripts in pycaffe/, in real Caffe as they are and here with their imports changed."""

import logging
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from caffe_root import CaffeRoot
from google.protobuf import text_format
from harness import HERE, deviation, make_databases
from values import sample

from pipeline.base.console import log
from pipeline.caffe import io
from pipeline.caffe.proto.caffe_pb2 import NetParameter

FOLDER = HERE / "pycaffe"
RECORDED = FOLDER / "recorded.npz"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))

Answers = dict[str, np.ndarray]


def run_here(script: str) -> Answers:
    """What a script answers here. It runs in the working folder, where make_databases has been."""
    text = (FOLDER / f"{script}.py").read_text(encoding="utf-8")
    text = re.sub("^import caffe$", "import pipeline.caffe as caffe", text, flags=re.MULTILINE)
    text = re.sub(r"^from caffe\b", "from pipeline.caffe", text, flags=re.MULTILINE)
    with _left_as_it_was():
        sys.argv = [script, "answer.npz"]
        exec(compile(text, script, "exec"), {"__name__": "__main__"})
    return _read(Path("answer.npz"))


def run_in_caffe(caffe: CaffeRoot, script: str) -> Answers:
    """What a script answers in real Caffe, in whose folder make_databases has been."""
    for path in (FOLDER / f"{script}.py", HERE / "python_layers.py"):
        shutil.copy(path, caffe.folder)
    caffe.run("python3", f"{script}.py", "answer.npz")
    return _read(caffe.folder / "answer.npz")


@contextmanager
def _left_as_it_was() -> Iterator[None]:
    """Scripts do as they like with the process that is theirs: log, and put functions in the place of others."""
    arguments, load_image, handlers, level = sys.argv, io.load_image, log.handlers, log.level
    log.handlers = [logging.NullHandler()]
    try:
        yield
    finally:
        sys.argv, io.load_image, log.handlers = arguments, load_image, handlers
        log.setLevel(level)


def _read(path: Path) -> Answers:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def packed(answers: Answers) -> Answers:
    """The answers, of large ones some values."""
    return {name: value if value.dtype.kind == "U" else sample(value) for name, value in answers.items()}


def recorded(script: str) -> Answers:
    """Real Caffe's committed answers to a script."""
    return {
        name.removeprefix(f"{script}/"): value
        for name, value in _read(RECORDED).items()
        if name.startswith(f"{script}/")
    }


def difference(name: str, ours: np.ndarray, caffe: np.ndarray) -> float:
    """How far an answer is off: text by being another, nets in text by saying something else."""
    if caffe.dtype.kind != "U":
        return deviation(ours, caffe)
    if "/text" in name:  # numbers are printed differently by different versions of protobuf
        same = text_format.Parse(str(ours), NetParameter()) == text_format.Parse(str(caffe), NetParameter())
    else:
        same = str(ours) == str(caffe)
    return 0.0 if same else float("inf")


def record_scripts(caffe: CaffeRoot) -> None:
    make_databases(caffe.folder)
    answers = {
        f"{script}/{name}": value for script in SCRIPTS for name, value in packed(run_in_caffe(caffe, script)).items()
    }
    np.savez_compressed(RECORDED, **answers)
