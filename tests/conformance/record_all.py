"""Ask real Caffe everything again, and keep its answers beside the cases.

    CAFFE_ROOT=DIR python tests/conformance/record_all.py
"""

import shutil
import sys

import numpy as np
from caffe_root import CaffeRoot
from harness import CASES, HERE, SOLVERS, make_databases, make_training_folder, write_face_emotion_net
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


def record_solvers(caffe: CaffeRoot) -> None:
    make_training_folder(caffe.folder)
    answers = {}
    for path in sorted(SOLVERS.glob("*.solver.prototxt")):
        name = path.name.removesuffix(".solver.prototxt")
        if name == "face_emotion_net":
            answer = caffe.solve(name, 200, "face_emotion_net.caffemodel")
            answers[name] = {key: answer[key] for key in ("loss", "lr")}
        else:
            answers[name] = caffe.solve(name, 200, "net.caffemodel")
    caffe.solve("multistep", 50, "net.caffemodel")
    for suffix in ("caffemodel", "solverstate"):
        shutil.copy(caffe.folder / f"multistep_iter_50.{suffix}", SOLVERS)
    answers["resumed at 50"] = caffe.solve("multistep", 100, "net.caffemodel")
    log = caffe.run("caffe", "train", "-solver", "log.prototxt", "-weights", "net.caffemodel")
    (SOLVERS / "log.txt").write_text(log[log.index("Starting Optimization") :].partition("\n")[2])
    np.savez_compressed(SOLVERS / "recorded.npz", **{f"{name}/{key}": value for name, answer in answers.items()
                                                     for key, value in answer.items()})


def main() -> None:
    for record in (record_cases, record_face_emotion_net, record_solvers):
        caffe = CaffeRoot.from_environment()
        if caffe is None:
            sys.exit("CAFFE_ROOT is not set; docker/caffe-root.sh makes a root with real Caffe")
        with caffe:
            record(caffe)
        print(record.__name__, "done", flush=True)


if __name__ == "__main__":
    main()
