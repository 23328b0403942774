"""The layer that a class of the user's is."""

import importlib
from types import ModuleType
from typing import Any

import torch

from pipeline.caffe.blob import Blob, Blobs, Memory
from pipeline.caffe.common import mode
from pipeline.caffe.layers.layer import Layer, Shape, Tensors, register

_HOST = torch.device("cpu")


class PythonLayer:
    """What the class of a Python layer is made from: caffe.Layer.

    It overrides setup(bottom, top), called once; reshape(bottom, top), called before every forward, which shapes the
    tops; forward(bottom, top), which fills their data; and backward(top, propagate_down, bottom), which fills the diff
    of those bottoms whose propagate_down says so. bottom and top are lists of Blobs, on the host.

    param_str: the prototxt's. phase: TRAIN or TEST. blobs: its own blobs, which setup adds with blobs.add_blob(*shape).
    """

    param_str: str
    phase: int
    type: str
    blobs: Blobs

    def __init__(self, *arguments: Any) -> None:
        """Caffe gives the layer's message."""

    @classmethod
    def of(cls, kind: str, blobs: Blobs) -> "PythonLayer":
        """A layer of the engine as scripts see it: its type and blobs."""
        made = cls()
        made.type, made.blobs = kind, blobs
        return made

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        """Read param_str, check the bottoms, add blobs."""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Give the tops their shapes."""
        raise NotImplementedError(f"{type(self).__name__} has no reshape(bottom, top)")

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Fill the tops' data."""
        raise NotImplementedError(f"{type(self).__name__} has no forward(bottom, top)")

    def backward(self, top: Blobs, propagate_down: list[bool], bottom: Blobs) -> None:
        """Fill the bottoms' diff."""
        raise NotImplementedError(f"{type(self).__name__} has no backward(top, propagate_down, bottom)")


class _Call(torch.autograd.Function):
    """One forward of a Python layer, and its backward."""

    @staticmethod
    def forward(context: Any, layer: "Python", *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        context.layer = layer
        return tuple(layer.run(tensors))

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return None, *context.layer.run_backward(gradients, context.needs_input_grad[1:])


@register("Python")
class Python(Layer):
    """A class of the user's, `layer` of `module`, derived from caffe.Layer. Bottoms, tops and blobs as it likes.

    Only after allow_python_layers(), since the prototxt chooses what is imported. share_in_parallel, which is about
    several GPUs, has no meaning here.
    """

    bottoms = (0, None)
    tops = (0, None)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        self.instance = self.make_instance()
        self.bottom = Blobs(Blob(shape, _HOST) for shape in bottom)
        self.top = Blobs(Blob((0,), _HOST) for _ in self.param.top)
        self.instance.setup(self.bottom, self.top)
        self.instance.reshape(self.bottom, self.top)
        self.blobs = [blob.tensor().clone() for blob in self.instance.blobs]
        return [blob.shape for blob in self.top]

    def make_instance(self) -> PythonLayer:
        """An object of the user's class."""
        param = self.param.python_param
        if not mode.python_layers:
            raise self.error(
                f"Python layers run code that the prototxt names (module '{param.module}'); where you "
                "trust it, call allow_python_layers() first, or give the command --allow_python_layers"
            )
        made = getattr(self.find_module(), param.layer, None)
        if made is None:
            raise self.error(f"no layer '{param.layer}' in module '{param.module}'")
        if not isinstance(made, type) or not issubclass(made, PythonLayer):
            raise self.error(f"'{param.layer}' in module '{param.module}' is no class made from pipeline.caffe.Layer")
        instance = made(self.param)
        instance.type, instance.blobs = "Python", Blobs()
        instance.param_str, instance.phase = param.param_str, self.param.phase
        return instance

    def find_module(self) -> ModuleType:
        """The user's module. What goes wrong in it comes through as it is, with where it was."""
        name = self.param.python_param.module
        if not name or name.startswith("."):
            raise self.error(f"module '{name}' where the name of one was expected, such as \"my_layers\"")
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not f"{name}.".startswith(f"{error.name}."):  # one that the user's module imports
                raise
            raise self.error(f"{error}; is its folder in PYTHONPATH?") from error

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        for blob, shape in zip(self.bottom, bottom, strict=True):
            blob.reshape(*shape)
        self.instance.reshape(self.bottom, self.top)
        return [blob.shape for blob in self.top]

    def forward(self, bottom: Tensors) -> Tensors:
        if not self.param.top:
            self.run((*bottom, *self.blobs))
            return []
        return list(_Call.apply(self, *bottom, *self.blobs))

    def run(self, tensors: tuple[torch.Tensor, ...]) -> Tensors:
        """Let the class compute the tops from the bottoms and its blobs, whose values it may move."""
        self.reshape([tuple(tensor.shape) for tensor in tensors[: len(self.bottom)]])
        blobs = (*self.bottom, *self.instance.blobs)
        for blob, tensor in zip(blobs, tensors, strict=True):
            blob.tensor().copy_(tensor.detach())
        self.instance.forward(self.bottom, self.top)
        for blob, tensor in zip(self.instance.blobs, tensors[len(self.bottom) :], strict=True):
            tensor.data.copy_(blob.tensor())
        return [blob.tensor().to(tensors[0].device if tensors else _HOST, copy=True) for blob in self.top]

    def run_backward(self, gradients: tuple[torch.Tensor, ...], needed: tuple[bool, ...]) -> list[torch.Tensor | None]:
        """The gradients of bottoms and blobs, None where none is needed."""
        for blob, gradient in zip(self.top, gradients, strict=True):
            blob.gradient().copy_(gradient)
        own = self.instance.blobs
        sums = [blob.gradients for blob in own]  # a class may add to what there is, but what is asked for is its part
        for blob in own:
            blob.gradients = Memory(blob.count, _HOST)
        try:
            self.instance.backward(self.top, list(needed[: len(self.bottom)]), self.bottom)
            return [
                blob.gradient().to(gradients[0].device, copy=True) if need else None
                for blob, need in zip((*self.bottom, *own), needed, strict=True)
            ]
        finally:
            for blob, memory in zip(own, sums, strict=True):
                blob.gradients = memory
