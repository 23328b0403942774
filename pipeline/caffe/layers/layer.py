"""What every layer is, and the registry of types."""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from pipeline.base.console import log
from pipeline.caffe.common import solver_count, solver_rank
from pipeline.caffe.fillers import fill
from pipeline.caffe.forks import EXTENSIONS
from pipeline.caffe.memory_budget import MemoryBudget, MemoryBudgetError
from pipeline.caffe.proto.blob_proto import POSSIBLE, is_possible, shown
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, FillerParameter, LayerParameter
from pipeline.caffe.proto.files import PrototxtError

Shape = tuple[int, ...]
Tensors = list[torch.Tensor]

LAYERS: dict[str, type["Layer"]] = {}


class LayerError(PrototxtError):
    """A layer that cannot be built: its line in the prototxt can be found.

    layer: its name. place: where it stands among the net's layers, where that is known. other: the place and the name
    of another one that the reason is about.
    """

    def __init__(self, layer: str, reason: str, place: int | None = None, other: tuple[int, str] | None = None) -> None:
        super().__init__(f"layer '{layer}': {reason}")
        self.layer = layer
        self.place = place
        self.other = other


def register(name: str) -> Callable[[type["Layer"]], type["Layer"]]:
    """Enter a class in the registry as the layer type `name`."""

    def enter(layer_class: type["Layer"]) -> type["Layer"]:
        layer_class.type = name
        layer_class.fork = EXTENSIONS.get(name, "")
        LAYERS[name] = layer_class
        return layer_class

    return enter


class Graph(Protocol):
    """An ONNX graph as a layer sees it: values by name, and the blobs' shapes, -1 where only known at run time."""

    shapes: dict[str, Shape]

    def constant(self, value: torch.Tensor | np.ndarray | list[int]) -> str:
        """Add a constant, float32 or, as a list, int64; return its name."""

    def node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        """Add a node with one output; return the output's name."""

    def node_outputs(self, operator: str, inputs: list[str], outputs: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs; return their names."""

    def cast(self, value: str, dtype: type[np.generic]) -> str:
        """Add a node that turns a value's numbers, float32, into another type; return the output's name."""

    def scan(self, states: list[str], sequences: list[str], step: "Step") -> list[str]:
        """Add a loop over the sequences' axis 0; return the names of the last states and of the stacked tops."""


Step = Callable[[Graph, list[str], list[str]], tuple[list[str], str]]  # of states and items: next states, and a top


class _EndOfGradient(torch.autograd.Function):
    """Hands a layer's top on; a gradient that comes back to it is an error."""

    @staticmethod
    def forward(context: Any, top: torch.Tensor, layer: "Layer", *bottom: torch.Tensor) -> torch.Tensor:
        context.layer = layer
        return top.view_as(top)

    @staticmethod
    def backward(context: Any, *gradient: torch.Tensor) -> None:
        raise context.layer.error(f"a loss depends on a top through which {context.layer.type} passes no gradient")


def passes_no_gradient(top: torch.Tensor) -> bool:
    """Whether a top is one of Layer.without_gradient."""
    return isinstance(top.grad_fn, _EndOfGradient._backward_cls)


class Layer:
    """One layer: `setup` once with the bottoms' shapes, then `forward` for every batch; torch differentiates it.

    param: the layer's message. blobs: its learnable (or, as BatchNorm's, learned) blobs, float32.
    generator: the net's, for fillers and for what is drawn in training.
    """

    type: ClassVar[str]
    fork: ClassVar[str]  # which fork of Caffe the type is from; "" for Caffe's own
    bottoms: ClassVar[tuple[int, int | None]] = (1, 1)  # fewest and most; None: no limit
    tops: ClassVar[tuple[int, int | None]] = (1, 1)
    default_loss_weight: ClassVar[float] = 0
    # BatchNorm's blobs are statistics: forward itself moves them, the solver must not.
    blobs_are_learned: ClassVar[bool] = True
    # Bottoms that get no gradient even where a net has force_backward: labels (caffe/layer.hpp, AllowForceBackward).
    labels: ClassVar[tuple[int, ...]] = ()
    # Whether the tops are the bottom's own values in Caffe: who writes into one there writes into all.
    tops_are_bottom: ClassVar[bool] = False
    # Whether a top may have the name of its bottom.
    works_in_place: ClassVar[bool] = True
    # Whether it is faster on images whose channels lie innermost by more than it takes to lay them so.
    prefers_channels_last: ClassVar[bool] = False
    # Parameter messages of other types that this one reads as well.
    reads: ClassVar[tuple[str, ...]] = ()

    def __init__(self, param: LayerParameter, generator: torch.Generator) -> None:
        self.param = param
        self.generator = generator
        self.blobs: Tensors = []
        self.room: MemoryBudget | None = None  # the memory that is left, while a net is built
        self._made: Tensors | None = None  # the blobs that reshape keeps
        for kind, names, (fewest, most) in (("bottom", param.bottom, self.bottoms), ("top", param.top, self.tops)):
            if len(names) < fewest or (most is not None and len(names) > most):
                wanted = f"{fewest}" if fewest == most else f"{fewest} to {most or 'any number'}"
                verb = "takes" if kind == "bottom" else "makes"
                labels = len(names) in self.labels if kind == "bottom" else False
                raise self.error(
                    f"{len(names)} {kind}{'s' * (len(names) != 1)} where {self.type} {verb} {wanted}"
                    f"{'; the last is the labels' * labels}"
                )

        if not self.works_in_place and any(top == bottom for top, bottom in zip(param.top, param.bottom, strict=False)):
            raise self.error(f"{self.type} does not work in place; give its top another name than '{param.top[0]}'")

    @property
    def training(self) -> bool:
        return self.param.phase == TRAIN

    def error(self, reason: str) -> LayerError:
        """An error that names this layer; raise it."""
        return LayerError(self.param.name, reason)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        """Check the bottoms' shapes, make the blobs, and return the tops' shapes."""
        raise NotImplementedError

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        """Set up again for bottoms of other shapes, and return the tops'. The blobs stay.

        Raises LayerError when they are not what bottoms of those shapes need.
        """
        made = self.blobs
        self._made, self.blobs = made, []
        try:
            return self.setup(bottom)
        finally:
            self._made, self.blobs = None, made

    def forward(self, bottom: Tensors) -> Tensors:
        """Compute the tops. No bottom is changed: tops of an in-place layer are new tensors of the same name."""
        raise NotImplementedError

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        """Add what forward does in TEST to an ONNX graph, the bottoms being values of it, and name the tops' values."""
        raise self.error(f"{self.type} has no ONNX form here")

    def multiply_adds(self, bottom: list[Shape], top: list[Shape]) -> int:
        """How many products of weights and values a forward adds up, for bottoms and tops of these shapes.

        As papers count: those of convolutions, inner products and recurrent layers, padding among them; 0 for all else.
        """
        return 0

    def without_gradient(self, top: torch.Tensor, *bottom: torch.Tensor) -> torch.Tensor:
        """A top made from `bottom` without derivative: as in Caffe, it is an error when a loss needs one."""
        ended: torch.Tensor = _EndOfGradient.apply(top.detach(), self, *bottom)
        return ended

    def part(self) -> slice:
        """Which of the records that all solvers' batches take this one's batch has: every solver_count-th in TRAIN.

        In TEST, where one solver runs, it is all of them (caffe/layers/data_layer.cpp, Skip).
        """
        return slice(solver_rank(), None, solver_count()) if self.training else slice(0, None, 1)

    def state(self) -> dict[str, Any]:
        """What a resumed run must have back beside the blobs, fit for JSON: a reader's position, a generator."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what state() gave. What it cannot have given is a LookupError, a TypeError or the like."""

    def add_blob(self, shape: Shape, filler: FillerParameter) -> None:
        """Make the next blob, or where the layer is reshaped take the one that is there."""
        if self._made is not None:
            made = self._made[len(self.blobs)]
            if tuple(made.shape) != shape:
                raise self.error(
                    f"blob {len(self.blobs)} of shape {tuple(made.shape)} where bottoms of the new shapes need {shape}"
                )
            self.blobs.append(made)
            return
        self.reserve_memory(f"blob {len(self.blobs)}", shape)
        try:
            self.blobs.append(fill(shape, filler, self.generator))
        except PrototxtError as error:
            raise self.error(str(error)) from None

    def reserve_memory(self, name: str, shape: Shape, *, in_others: bool = False) -> None:
        """Count a blob in that is about to be made, unless it lies in the memory of others.

        Raises LayerError for a shape that no blob can have, and where memory does not suffice.
        """
        if not is_possible(shape):
            raise self.error(f"{name} of {shown(shape)} where {POSSIBLE} were expected")
        if 0 in shape[1:]:  # Caffe makes these, but has nothing to compute
            raise self.error(f"{name} of {shown(shape)} where an axis after the first has at least 1")
        if self.room is not None and not in_others:
            try:
                self.room.take(shape)
            except MemoryBudgetError as error:
                raise self.error(f"{name} of shape {shape}: {error}") from None

    def note_ignored(self, message: str, fields: tuple[str, ...]) -> None:
        """Tell of fields that Caffe does not look at, though they are set."""
        given = {descriptor.name for descriptor, _ in getattr(self.param, message).ListFields()}
        ignored = [name for name in fields if name in given]
        if ignored:
            log.warning(
                "layer '%s': %s has no use for %s's %s: ignored, as in Caffe",
                self.param.name,
                self.type,
                message,
                ", ".join(ignored),
            )

    def warn_of_unused_parameters(self) -> None:
        """Tell of parameters of other types, which Caffe does not look at."""
        for descriptor, _ in self.param.ListFields():
            kind = descriptor.message_type.name.removesuffix("Parameter") if descriptor.message_type else ""
            if kind in LAYERS and kind != self.type and descriptor.name not in self.reads:
                log.warning(
                    "layer '%s': %s has no use for %s: ignored, as in Caffe",
                    self.param.name,
                    self.type,
                    descriptor.name,
                )

    def axis(self, axis: int, bottom: Shape, name: str = "axis") -> int:
        """Turn a possibly negative axis of `bottom` into its index. Raises LayerError when there is no such axis."""
        if not -len(bottom) <= axis < len(bottom):
            raise self.error(f"{name} {axis} where the bottom has shape {bottom}")
        return axis % len(bottom)


def whole_number(state: dict[str, Any], name: str) -> int:
    """A number from 0 on that a layer's state has. Raises LookupError, TypeError or ValueError when it has none."""
    value = state[name]
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{name} is no number from 0 on")
    return value


__all__ = ["LAYERS", "TEST", "TRAIN", "Graph", "Layer", "LayerError", "Shape", "Tensors", "register", "whole_number"]
