"""The solvers' cases: every solver type under every setting, on one small net; trained in the engine.

solvers/SETTING.solver.prototxt is a setting, solvers/types/TYPE.prototxt what a type has otherwise than the settings.
The case TYPE_SETTING is both merged. FaceEmotionNet is a case of its own.
"""

import shutil
from contextlib import chdir
from pathlib import Path

import cv2
import numpy as np
from harness import HERE, Arrays, assert_agrees, draw_parameters, face_emotion_net, split_answers
from values import Values

from pipeline.caffe.database import DatabaseWriter, datum_from_image, record_key
from pipeline.caffe.net import Net
from pipeline.caffe.proto.blob_proto import write_mean
from pipeline.caffe.proto.caffe_pb2 import TRAIN, NetParameter, SolverParameter
from pipeline.caffe.proto.files import read_net, read_solver, write_prototxt
from pipeline.caffe.solver import get_solver, snapshot

SOLVERS = HERE / "solvers"
FACE_EMOTION_NET_CASE = "face_emotion_net"
TYPES = sorted(path.stem for path in (SOLVERS / "types").glob("*.prototxt"))
SETTINGS = sorted(
    path.name.removesuffix(".solver.prototxt")
    for path in SOLVERS.glob("*.solver.prototxt")
    if not path.name.startswith(FACE_EMOTION_NET_CASE)
)
NAMES = [f"{solver_type}_{setting}" for solver_type in TYPES for setting in SETTINGS]
EXCHANGED = [f"{solver_type}_multistep" for solver_type in TYPES]
HDF5_EXCHANGED = {f"{name}_hdf5": name for name in EXCHANGED}  # the same, their snapshots in HDF5
HDF5_RECORDED = [f"{solver_type}_multistep_hdf5" for solver_type in ("AdaDelta", "Adam", "SGD")]  # to be compact
LOGS = sorted(path.stem for path in SOLVERS.glob("*.txt"))  # of real Caffe, to SOLVERS/NAME.prototxt
STEPS = 200
FACE_EMOTION_NET_STEPS = 100
NO_BIAS = "\n".join(f"# {layer}/1: choice 0" for layer in ("conv1", "conv2", "conv3", "fc1", "fc2", "fc3"))
KEPT = 64  # of a blob's values, or a few more


def make_training_folder(folder: Path) -> None:
    """Make what the cases read: their prototxts, faces_lmdb and its mean, and both nets' first weights."""
    for path in SOLVERS.glob("*.prototxt"):
        shutil.copy(path, folder)
    for name in NAMES:
        solver_type, _, setting = name.partition("_")
        solver = read_solver(SOLVERS / f"{setting}.solver.prototxt")
        solver.MergeFrom(read_solver(SOLVERS / "types" / f"{solver_type}.prototxt"))
        solver.snapshot_prefix = name
        write_prototxt(folder / f"{name}.solver.prototxt", solver)
    for name, same in HDF5_EXCHANGED.items():
        solver = read_solver(folder / f"{same}.solver.prototxt")
        solver.snapshot_prefix, solver.snapshot_format = name, SolverParameter.HDF5
        write_prototxt(folder / f"{name}.solver.prototxt", solver)
    random = np.random.RandomState(1)
    patterns = np.stack([cv2.resize(random.uniform(size=(6, 6)), (48, 48))[None] for _ in range(7)])  # a class each
    labels = random.randint(0, 7, size=400)
    images = (127 * (patterns[labels] + random.uniform(size=(400, 1, 48, 48)))).astype(np.uint8)
    with DatabaseWriter(folder / "faces_lmdb") as database:
        for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            database.put(record_key(index, f"{index}.png"), datum_from_image(image, label))
    write_mean(folder / "mean.binaryproto", images.mean(0, dtype=np.float32))
    write_prototxt(folder / "face_emotion_net.prototxt", face_emotion_net_from_database())
    with chdir(folder):
        for name, rules in (("net", ""), (FACE_EMOTION_NET_CASE, NO_BIAS)):
            net = Net(read_net(Path(f"{name}.prototxt")), TRAIN)
            draw_parameters(net, Values(name, rules))
            net.save(Path(f"{name}.caffemodel"))


def face_emotion_net_from_database() -> NetParameter:
    """FaceEmotionNet on whole images, 64 at a time."""
    param = face_emotion_net()
    param.layer.insert(0, read_net(SOLVERS / "net.prototxt").layer[0])
    param.layer[0].data_param.batch_size = 64
    return param


def run_solver(name: str, steps: int, start: str | Path) -> dict[str, np.ndarray]:
    """Iterate a case of the working folder from a .caffemodel or .solverstate[.h5], and leave a snapshot there.

    The answer has the keys of record.py's "solve", and lr.
    """
    param = read_solver(Path(f"{name}.solver.prototxt"))
    solver = get_solver(param)
    if ".solverstate" in Path(start).name:
        snapshot.restore(solver, Path(start))
    else:
        solver.net.copy_from(Path(start))
    losses, rates = [], []
    for _ in range(steps):
        rates.append(solver.step())
        losses.append(solver.net.loss.item())
    snapshot.save(solver, param.snapshot_prefix)
    parameters = {
        f"parameter/{layer}/{index}": blob.detach().numpy()
        for layer, blobs in solver.net.params.items()
        for index, blob in enumerate(blobs)
    }
    return {"loss": np.array(losses), "lr": np.array(rates), **parameters}


def after(answer: Arrays, iteration: int) -> dict[str, np.ndarray]:
    """An answer without its first iterations."""
    return {key: value[iteration:] if key in ("loss", "lr") else value for key, value in answer.items()}


def packed(answer: Arrays) -> dict[str, np.ndarray]:
    """What is committed of real Caffe's answer: every loss and rate, and some values of every blob, by its name."""
    parameters = [_kept(answer[key]) for key in sorted(answer) if key.startswith("parameter/")]
    kept = {key: answer[key].astype(np.float32) for key in ("loss", "lr")}
    return {**kept, "parameters": np.concatenate(parameters)} if parameters else kept


def recorded_solver(name: str) -> dict[str, np.ndarray]:
    """Real Caffe's committed answer to a case, packed."""
    return split_answers(SOLVERS / "recorded.npz", name)


def assert_trained_alike(ours: Arrays, caffe: Arrays, what: str) -> float:
    """Losses and parameters within 1e-4 of real Caffe's, every rate as its log has it; `caffe` may be packed.

    Returns the largest deviation.
    """
    assert caffe, f"{what}: nothing recorded; run tests/conformance/record_all.py where real Caffe is"
    np.testing.assert_allclose(ours["lr"], caffe["lr"], rtol=1e-5, err_msg=f"{what}: lr")  # six digits in Caffe's log
    ours, caffe = comparable(ours, caffe)
    return assert_agrees(ours, caffe, 1e-4, what)


def comparable(ours: Arrays, caffe: Arrays) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The losses and, as far as real Caffe's answer has them, the parameters of both, blob by blob."""
    kept = {key: value for key, value in ours.items() if key.startswith("parameter/")}
    theirs = {key: value for key, value in caffe.items() if key.startswith("parameter/")}
    if "parameters" in caffe:
        kept = {key: _kept(value) for key, value in kept.items()}
        ends = np.cumsum([len(kept[key]) for key in sorted(kept)])
        assert len(caffe["parameters"]) == ends[-1], "the net has changed; run tests/conformance/record_all.py"
        theirs = dict(zip(sorted(kept), np.split(caffe["parameters"], ends[:-1]), strict=True))
    elif not theirs:
        kept = {}
    return {"loss": ours["loss"], **kept}, {"loss": caffe["loss"], **theirs}


def _kept(blob: np.ndarray) -> np.ndarray:
    return blob.ravel()[:: max(1, blob.size // KEPT)].astype(np.float32)
