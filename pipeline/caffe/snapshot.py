"""Snapshots: {prefix}_iter_{N}.caffemodel and .solverstate as Caffe writes them, .resume.json for what Caffe forgets.

Caffe keeps neither where the databases stand nor the generators; with the sidecar a resumed run goes on as if it had
never stopped. A snapshot of Caffe's own has none: then the databases are read from their beginning, as Caffe does.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.atomic import atomic_file
from pipeline.caffe.blobs import from_blobproto, set_diff, to_blobproto
from pipeline.caffe.caffe_pb2 import NetParameter, SolverState
from pipeline.caffe.net import WeightsError
from pipeline.caffe.proto import BinaryError, read_binary, write_binary
from pipeline.caffe.solver import Solver

SIDECAR_FORM = 1


@dataclass(frozen=True)
class Snapshot:
    """The files of one snapshot."""

    prefix: str
    iteration: int

    @property
    def weights(self) -> Path:
        return Path(f"{self.prefix}_iter_{self.iteration}.caffemodel")

    @property
    def state(self) -> Path:
        return Path(f"{self.prefix}_iter_{self.iteration}.solverstate")

    @property
    def sidecar(self) -> Path:
        return Path(f"{self.prefix}_iter_{self.iteration}.resume.json")

    def remove(self) -> None:
        """Delete the files; the state goes first, since it makes a snapshot whole."""
        for path in (self.state, self.sidecar, self.weights):
            path.unlink(missing_ok=True)


def find_snapshots(prefix: str) -> list[Snapshot]:
    """The whole snapshots under a prefix, oldest first."""
    folder, name = Path(prefix).parent, Path(prefix).name
    states = (re.fullmatch(rf"{re.escape(name)}_iter_(\d+)\.solverstate", path.name) for path in folder.glob("*"))
    snapshots = sorted((Snapshot(prefix, int(match[1])) for match in states if match), key=lambda s: s.iteration)
    return [snapshot for snapshot in snapshots if snapshot.weights.exists()]


def save(solver: Solver, prefix: str) -> Snapshot:
    """Write a snapshot of the solver as it stands. The .solverstate comes last: with it the snapshot is whole."""
    snapshot = Snapshot(prefix, solver.iteration)
    write_binary(snapshot.weights, _weights(solver))
    sidecar = {
        "form": SIDECAR_FORM,
        "losses": list(solver.losses),
        "nets": [net.state() for net in (solver.net, *solver.test_nets)],
    }
    with atomic_file(snapshot.sidecar, "w", encoding="utf-8") as file:
        json.dump(sidecar, file)
    state = SolverState(iter=solver.iteration, learned_net=str(snapshot.weights), current_step=solver.current_step)
    state.history.extend(to_blobproto(history.cpu().numpy()) for history in solver.history)
    write_binary(snapshot.state, state)
    return snapshot


def _weights(solver: Solver) -> NetParameter:
    """The net with its blobs, and by snapshot_diff with what each lost in the last update as its gradient."""
    message = solver.net.to_proto()
    if solver.param.snapshot_diff:
        updates = solver.updates or [torch.zeros_like(learnable.blob) for learnable in solver.net.learnable]
        by_blob = {learnable.blob.data_ptr(): update
                   for learnable, update in zip(solver.net.learnable, updates, strict=True)}
        for layer, layer_message in zip(solver.net.layers, message.layer, strict=True):
            for blob, blob_message in zip(layer.blobs, layer_message.blobs, strict=True):
                set_diff(blob_message, by_blob[blob.data_ptr()].cpu().numpy())
    return message


def restore(solver: Solver, path: Path) -> bool:
    """Put a solver where a .solverstate, ours or Caffe's, left off; return whether its sidecar was there as well.

    Raises BinaryError or WeightsError when the state or the weights it names are damaged or another net's, OSError
    when they cannot be read.
    """
    state = read_binary(path, SolverState)
    if len(state.history) != len(solver.history):
        raise WeightsError(f"{path}: {len(state.history)} history blobs where the solver has {len(solver.history)}; is "
                           "it the state of another net or solver?")
    histories = [from_blobproto(blob, f"{path}: history {index}") for index, blob in enumerate(state.history)]
    for index, (array, history) in enumerate(zip(histories, solver.history, strict=True)):
        if array.shape != tuple(history.shape):
            raise WeightsError(f"{path}: history {index} has shape {array.shape} where the solver has "
                               f"{tuple(history.shape)}; is it the state of another net?")
    weights = path.with_suffix(".caffemodel")
    solver.net.copy_from(weights if weights.exists() else Path(state.learned_net))
    for array, history in zip(histories, solver.history, strict=True):
        history.copy_(torch.from_numpy(array))
    solver.iteration, solver.current_step = state.iter, state.current_step
    sidecar_path = path.with_suffix(".resume.json")
    if not sidecar_path.exists():
        return False
    sidecar = _read_sidecar(sidecar_path)
    solver.losses.extend(sidecar["losses"])
    for net, net_state in zip((solver.net, *solver.test_nets), sidecar["nets"], strict=True):
        net.restore(net_state)
    return True


def _read_sidecar(path: Path) -> dict[str, Any]:
    try:
        sidecar: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BinaryError(f"{path}: {error}; delete it to resume as Caffe does, at the databases' beginning") from None
    if sidecar.get("form") != SIDECAR_FORM:
        raise BinaryError(f"{path}: form {sidecar.get('form')} where {SIDECAR_FORM} was expected; was it written by "
                          "another version?")
    return sidecar
