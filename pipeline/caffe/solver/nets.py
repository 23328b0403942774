"""Which nets a solver trains and tests, and in which state (caffe/solver.cpp, InitTrainNet and InitTestNets)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.caffe.insert_splits import filter_layers
from pipeline.caffe.net import N, build_read_net
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter, NetState, Phase, SolverParameter
from pipeline.caffe.proto.files import read_net
from pipeline.caffe.solver.errors import SolverError

_TRAIN_FIELDS = ("net", "net_param", "train_net", "train_net_param")


@dataclass(frozen=True)
class NamedNet:
    """A net that a solver's field names, by its file or by its message, and the state that the solver wants it in."""

    field: str
    source: str | NetParameter
    phase: Phase
    state: NetState

    def __str__(self) -> str:
        return f"{self.field} file: {self.source}" if isinstance(self.source, str) else self.field

    def build(self, net_type: type[N], **options: Any) -> N:
        """Build the net, as Net or a class made from it; `options` are Net's.

        Its own state goes over the phase, the solver's over its own.
        """
        message = self.read()
        options |= {"level": message.state.level, "stages": tuple(message.state.stage)}
        if isinstance(self.source, str):
            return build_read_net(Path(self.source), message, message.state.phase, net_type, **options)
        return net_type(message, message.state.phase, **options)

    def read(self) -> NetParameter:
        """The net's message with its whole state."""
        message = NetParameter()
        message.CopyFrom(read_net(Path(self.source)) if isinstance(self.source, str) else self.source)
        state = NetState(phase=self.phase)
        state.MergeFrom(message.state)
        state.MergeFrom(self.state)
        message.state.CopyFrom(state)
        return message

    def layers(self) -> Sequence[LayerParameter]:
        """The layers that are in the net in its state."""
        message = self.read()
        state = message.state
        return filter_layers(message, state.phase, state.level, tuple(state.stage)).layer


def train_net(param: SolverParameter) -> NamedNet:
    """The train net. Raises SolverError unless exactly one field names it."""
    named = [field for field in _TRAIN_FIELDS if param.HasField(field)]
    if len(named) != 1:
        raise SolverError(
            f"{' and '.join(named)} are given where one net was expected"
            if named
            else "no net is named; set net, or train_net and test_net"
        )
    return NamedNet(named[0], getattr(param, named[0]), TRAIN, param.train_state)


def test_nets(param: SolverParameter) -> list[NamedNet]:
    """The test nets: those of test_net_param, of test_net, then net's own for each test_iter that is left.

    Raises SolverError when test_iter, test_interval or test_state do not go with them.
    """
    named: list[tuple[str, str | NetParameter]] = [
        (field, source) for field in ("test_net_param", "test_net") for source in getattr(param, field)
    ]
    if param.test_iter and param.test_interval < 1:
        raise SolverError("test_iter needs a test_interval of at least 1")
    left = len(param.test_iter) - len(named)
    generic = [(field, getattr(param, field)) for field in ("net", "net_param") if param.HasField(field)]
    if left < 0 or (left > 0 and not generic):
        raise SolverError(f"{len(param.test_iter)} test_iter for {len(named)} test nets; one for each was expected")
    named += generic[:1] * left
    if param.test_state and len(param.test_state) != len(named):
        raise SolverError(f"{len(named)} test_iter for {len(param.test_state)} test_state; one for each was expected")
    states = param.test_state or [NetState()] * len(named)
    return [NamedNet(field, source, TEST, state) for (field, source), state in zip(named, states, strict=True)]


def weights(param: SolverParameter) -> Iterator[Path]:
    """The .caffemodels that the nets start from: each `weights` may name several, commas between them."""
    for names in param.weights:
        yield from (Path(name.strip()) for name in names.split(","))
