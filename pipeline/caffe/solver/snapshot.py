"""Snapshots: {prefix}_iter_{N}.caffemodel and .solverstate as Caffe writes them, .resume.json for what Caffe forgets.

By snapshot_format HDF5 the first two are .caffemodel.h5 and .solverstate.h5.

Caffe keeps neither where the databases stand nor the generators; with the sidecar a resumed run continues as if it had
never stopped. A snapshot of Caffe's own has none: then the databases are read from their beginning, as Caffe does.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.base.atomic import atomic_file
from pipeline.base.console import log
from pipeline.base.hashing import sha256
from pipeline.caffe.common import solver_count, solver_rank
from pipeline.caffe.hdf5.files import HDF5Reader, Tree, hdf5_bytes, write_hdf5
from pipeline.caffe.proto.blob_proto import from_blobproto, set_diff, to_blobproto
from pipeline.caffe.proto.caffe_pb2 import NetParameter, SolverParameter, SolverState
from pipeline.caffe.proto.files import MAX_TEXT_BYTES, BinaryError, binary_bytes, read_binary, write_binary
from pipeline.caffe.proto.prototxt_errors import shorten
from pipeline.caffe.solver import Solver
from pipeline.caffe.weights import WeightsError

SIDECAR_FORM = 3
EARLIER_FORM = 2  # without the state's sum
# What layers raise that are given back a state that is none.
_DAMAGE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_WITHOUT = "delete it to resume as Caffe does, at the databases' beginning"
HDF5_SUFFIX = ".h5"  # by which Caffe tells a .solverstate.h5


@dataclass(frozen=True)
class Snapshot:
    """The files of one snapshot."""

    prefix: str
    iteration: int
    hdf5: bool = False

    @property
    def weights(self) -> Path:
        return Path(f"{self.prefix}_iter_{self.iteration}.caffemodel{HDF5_SUFFIX * self.hdf5}")

    @property
    def state(self) -> Path:
        return Path(f"{self.prefix}_iter_{self.iteration}.solverstate{HDF5_SUFFIX * self.hdf5}")

    @property
    def sidecar(self) -> Path:
        return Path(f"{self.prefix}_iter_{self.iteration}.resume.json")

    def check(self) -> None:
        """Raise BinaryError or HDF5Error naming the file that is cut off or damaged, OSError."""
        if self.hdf5:
            for path in (self.weights, self.state):
                HDF5Reader(path).close()
        else:
            read_binary(self.weights, NetParameter)
            read_binary(self.state, SolverState)

    def remove(self) -> None:
        """Delete the files; the state goes first, since it makes a snapshot whole."""
        for path in (self.state, self.sidecar, self.weights):
            path.unlink(missing_ok=True)


def find_snapshots(prefix: str) -> list[Snapshot]:
    """The whole snapshots under a prefix, of both formats, oldest first."""
    folder, name = Path(prefix).parent, Path(prefix).name
    pattern = re.compile(rf"{re.escape(name)}_iter_(\d+)\.solverstate({re.escape(HDF5_SUFFIX)})?")
    states = (pattern.fullmatch(path.name) for path in folder.glob("*"))
    snapshots = sorted(
        (Snapshot(prefix, int(match[1]), bool(match[2])) for match in states if match), key=lambda s: s.iteration
    )
    return [snapshot for snapshot in snapshots if snapshot.weights.exists()]


def save(solver: Solver, prefix: str) -> Snapshot:
    """Write a snapshot of the solver as it stands. The .solverstate comes last: with it the snapshot is whole."""
    snapshot = Snapshot(prefix, solver.iteration, solver.param.snapshot_format == SolverParameter.HDF5)
    if snapshot.hdf5:
        write_hdf5(snapshot.weights, _hdf5_weights(solver))
    else:
        write_binary(snapshot.weights, _weights(solver))
    state = _state_bytes(solver, snapshot)
    sidecar = {
        "form": SIDECAR_FORM,
        "weights": sha256(snapshot.weights),
        "state": hashlib.sha256(state).hexdigest(),
        "losses": list(solver.losses),
        "nets": [net.state() for net in (solver.net, *solver.test_nets)],
    }
    if solver.states_of_others:
        sidecar["train_nets_of_others"] = solver.states_of_others
    if progress := solver.progress.state():
        sidecar["progress"] = progress
    with atomic_file(snapshot.sidecar, "w", encoding="utf-8") as file:
        json.dump(sidecar, file)
    with atomic_file(snapshot.state) as file:
        file.write(state)
    return snapshot


def _state_bytes(solver: Solver, snapshot: Snapshot) -> bytes:
    """What the .solverstate holds."""
    histories = [history.cpu().numpy() for history in solver.history]
    if snapshot.hdf5:
        return hdf5_bytes(
            {
                "iter": np.array([solver.iteration]),
                "learned_net": str(snapshot.weights),
                "current_step": np.array([solver.current_step]),
                "history": {str(index): history for index, history in enumerate(histories)},
            }
        )
    state = SolverState(iter=solver.iteration, learned_net=str(snapshot.weights), current_step=solver.current_step)
    state.history.extend(map(to_blobproto, histories))
    return binary_bytes(state)


def _weights(solver: Solver) -> NetParameter:
    """The net with its blobs, and by snapshot_diff with what each lost in the last update as its gradient."""
    message = solver.net.to_proto()
    if solver.param.snapshot_diff:
        for layer_message, updates in zip(message.layer, _updates(solver), strict=True):
            for blob_message, update in zip(layer_message.blobs, updates, strict=True):
                set_diff(blob_message, update)
    return message


def _hdf5_weights(solver: Solver) -> Tree:
    """The same for a .caffemodel.h5, where a shared blob stands once in /data but for every layer in /diff."""
    data = solver.net.to_hdf5()
    if not solver.param.snapshot_diff:
        return {"data": data}
    diff = {
        name: {str(index): update for index, update in enumerate(updates)}
        for name, updates in zip(data, _updates(solver), strict=True)
    }
    return {"data": data, "diff": diff}


def _updates(solver: Solver) -> list[list[np.ndarray]]:
    """What each blob of each layer lost in the last update; 0 before the first."""
    updates = solver.updates or [torch.zeros_like(learnable.blob) for learnable in solver.net.learnable]
    by_blob = {
        learnable.blob.data_ptr(): update for learnable, update in zip(solver.net.learnable, updates, strict=True)
    }
    return [
        [by_blob[blob.data_ptr()].cpu().numpy().reshape(blob.shape) for blob in layer.blobs]
        for layer in solver.net.layers
    ]


def restore(solver: Solver, path: Path) -> bool:
    """Put a solver where a .solverstate, ours or Caffe's, left off; return whether its own sidecar was there as well.

    Its suffix .h5 says that one is HDF5, as in Caffe. Raises BinaryError or WeightsError when the state or the
    weights it names are damaged or another net's, OSError when they cannot be read.
    """
    hdf5 = path.suffix == HDF5_SUFFIX
    state = _read_hdf5_state(path, solver) if hdf5 else _read_state(path, solver)
    if state.iteration < 0 or state.current_step < 0:
        raise BinaryError(
            f"{path}: iter {state.iteration}, current_step {state.current_step} where at least 0 was "
            "expected; is the file damaged?"
        )
    base = path.with_suffix("") if hdf5 else path
    weights = base.with_suffix(".caffemodel" + HDF5_SUFFIX * hdf5)
    if not weights.exists():
        weights = Path(state.learned_net)
        if not weights.is_file():
            raise BinaryError(
                f"{path}: its weights, '{shorten(state.learned_net)}', are not there, nor are there any "
                "of its own name beside it"
            )
    sidecar_path = base.with_suffix(".resume.json")
    sidecar = _sidecar_of(sidecar_path, path, weights) if sidecar_path.exists() else None
    solver.net.copy_from(weights)
    for array, history in zip(state.history, solver.history, strict=True):
        history.copy_(torch.from_numpy(array))
    solver.iteration, solver.current_step = state.iteration, state.current_step
    if sidecar is None:
        return False
    try:
        solver.losses.extend(map(float, sidecar["losses"]))
        others = sidecar.get("train_nets_of_others", [])
        if solver_rank() == 0:
            for net, net_state in zip((solver.net, *solver.test_nets), sidecar["nets"], strict=True):
                net.restore(net_state)
        elif len(others) == solver_count() - 1:  # as many as wrote it; else this one draws anew
            solver.net.restore(others[solver_rank() - 1])
        if solver.progress.state():
            solver.progress.restore(sidecar["progress"])
    except _DAMAGE as error:
        raise BinaryError(f"{sidecar_path}: it does not fit the nets ({shorten(repr(error))}); {_WITHOUT}") from None
    return True


def _sidecar_of(path: Path, state: Path, weights: Path) -> dict[str, Any] | None:
    """The sidecar at `path` of a state and its weights; None where both are others than it was written with.

    Raises BinaryError naming the one of the two that is not what it was, or the sidecar, when it is damaged.
    """
    sidecar = _read_sidecar(path)
    sums = {file: sidecar.get(name) for name, file in (("weights", weights), ("state", state))}
    if sidecar["form"] == EARLIER_FORM:
        del sums[state]
    changed = [file for file, recorded in sums.items() if recorded != sha256(file)]
    if not changed:
        return sidecar
    if len(changed) < len(sums):
        raise BinaryError(
            f"{changed[0]}: another sum than {path} has of it, though the file beside it is as it was "
            "written; one of the two is damaged: resume from an earlier snapshot, or delete the .resume.json to "
            "resume from the file as it is"
        )
    log.warning("%s is of other weights than %s: going on without it, as from a snapshot of Caffe's own", path, weights)
    return None


@dataclass(frozen=True)
class _State:
    """What a .solverstate says. history: arrays of the shapes of the solver's."""

    iteration: int
    current_step: int
    learned_net: str
    history: list[np.ndarray]


def _read_state(path: Path, solver: Solver) -> _State:
    state = read_binary(path, SolverState)
    _check_history_length(path, len(state.history), solver)
    arrays = [from_blobproto(blob, f"{path}: history {index}") for index, blob in enumerate(state.history)]
    for index, (array, history) in enumerate(zip(arrays, solver.history, strict=True)):
        if array.shape != tuple(history.shape):
            raise WeightsError(
                f"{path}: history {index} has shape {array.shape} where the solver has "
                f"{tuple(history.shape)}; is it the state of another net?"
            )
    return _State(state.iter, state.current_step, state.learned_net, arrays)


def _read_hdf5_state(path: Path, solver: Solver) -> _State:
    with HDF5Reader(path) as file:
        _check_history_length(path, len(file.names("history")), solver)
        arrays = [
            file.array("history", str(index), shape=tuple(history.shape))
            for index, history in enumerate(solver.history)
        ]
        return _State(file.integer("iter"), file.integer("current_step"), file.text("learned_net"), arrays)


def _check_history_length(path: Path, length: int, solver: Solver) -> None:
    if length != len(solver.history):
        raise WeightsError(
            f"{path}: {length} history blobs where the solver has {len(solver.history)}; is it the "
            "state of another net or solver?"
        )


def _read_sidecar(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise BinaryError(
            f"{path}: {path.stat().st_size} bytes where at most {MAX_TEXT_BYTES} were expected; {_WITHOUT}"
        )
    try:
        sidecar: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BinaryError(f"{path}: {error}; {_WITHOUT}") from None
    if not isinstance(sidecar, dict):
        raise BinaryError(f"{path}: no object of JSON; {_WITHOUT}")
    if sidecar.get("form") not in (EARLIER_FORM, SIDECAR_FORM):
        raise BinaryError(
            f"{path}: form {sidecar.get('form')} where {SIDECAR_FORM} was expected; was it written by another version?"
        )
    return sidecar
