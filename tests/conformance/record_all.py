"""Ask real Caffe everything again, and keep its answers beside the cases.

CAFFE_ROOT=DIR python tests/conformance/record_all.py
"""

import re
import shutil
import sys
from contextlib import chdir

import filling
import numpy as np
from caffe_root import CaffeRoot
from classic_nets import record_classics
from commands import record_commands
from harness import CASES, HERE, make_databases, write_face_emotion_net
from scripts import record_scripts
from solving import (
    EXCHANGED,
    FACE_EMOTION_NET_CASE,
    FACE_EMOTION_NET_STEPS,
    HDF5_RECORDED,
    LOGS,
    NAMES,
    SOLVERS,
    STEPS,
    make_training_folder,
    packed,
    run_solver,
)
from tooling import record_tools
from upgrading import record_upgrades
from values import sample


def record_cases(caffe: CaffeRoot) -> None:
    make_databases(caffe.folder)
    shutil.copytree(CASES, caffe.folder / "cases")
    caffe.record("cases", "cases")
    for answers in (caffe.folder / "cases").glob("*/recorded.npz"):
        shutil.copy(answers, CASES / answers.parent.name)


def record_face_emotion_net(caffe: CaffeRoot) -> None:
    write_face_emotion_net(caffe.folder / "net.prototxt")
    answer = caffe.net("net.prototxt", "FaceEmotionNet")
    np.savez_compressed(HERE / "face_emotion_net.npz", **{key: sample(value) for key, value in answer.items()})


def record_fillers(caffe: CaffeRoot) -> None:
    shutil.copy(filling.NET, caffe.folder)
    np.savez_compressed(filling.RECORDED, **filling.packed(caffe.outputs(filling.NET.name, "fillers")))


def record_solvers(caffe: CaffeRoot) -> None:
    make_training_folder(caffe.folder)
    answers = caffe.solve(NAMES, STEPS, "net.caffemodel")
    name = FACE_EMOTION_NET_CASE
    answer = caffe.solve([name], FACE_EMOTION_NET_STEPS, f"{name}.caffemodel")[name]
    answers[name] = {key: answer[key] for key in ("loss", "lr")}
    for name, answer in caffe.solve(EXCHANGED, 100, "net.caffemodel").items():
        answers[f"{name} at 100"] = answer
    caffe.solve(EXCHANGED, 50, "net.caffemodel")
    for name in EXCHANGED:
        for suffix in ("caffemodel", "solverstate"):
            shutil.copy(caffe.folder / f"{name}_iter_50.{suffix}", SOLVERS / "snapshots")
    caffe.solve(HDF5_RECORDED, 50, "net.caffemodel")
    for name in HDF5_RECORDED:
        for suffix in ("caffemodel.h5", "solverstate.h5"):
            shutil.copy(caffe.folder / f"{name}_iter_50.{suffix}", SOLVERS / "snapshots")
    with chdir(caffe.folder):
        for name in EXCHANGED:
            run_solver(name, 50, "net.caffemodel")
    for name, answer in caffe.solve(EXCHANGED, 50, "{}_iter_50.solverstate").items():
        answers[f"{name} from ours"] = answer
    np.savez_compressed(
        SOLVERS / "recorded.npz",
        **{f"{name}/{key}": value for name, answer in answers.items() for key, value in packed(answer).items()},
    )
    for name in LOGS:
        log = caffe.run("caffe", "train", "-solver", f"{name}.prototxt")
        lines = log[log.index("Starting Optimization") :].splitlines(keepends=True)[1:]
        kept = [line for line in lines if not re.search("Waiting for data|Ignoring source layer", line)]
        (SOLVERS / f"{name}.txt").write_text("".join(kept))


def main() -> None:
    for record in (
        record_cases,
        record_face_emotion_net,
        record_fillers,
        record_solvers,
        record_classics,
        record_upgrades,
        record_scripts,
        record_tools,
        record_commands,
    ):
        caffe = CaffeRoot.from_environment()
        if caffe is None:
            sys.exit("CAFFE_ROOT is not set; docker/caffe-root.sh makes a root with real Caffe")
        with caffe:
            record(caffe)
        print(record.__name__, "done", flush=True)


if __name__ == "__main__":
    main()
