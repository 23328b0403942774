"""A net: layers built from a prototxt for one phase, run forward on torch tensors, its gradients torch's."""

import base64
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from pipeline.base.console import log
from pipeline.caffe import weights
from pipeline.caffe.common import check_device
from pipeline.caffe.hdf5.files import write_hdf5
from pipeline.caffe.insert_splits import AUTOMATIC_TOP, choose_layers, insert_splits, layer_class, take_layers
from pipeline.caffe.layers import Layer, LayerError, Shape
from pipeline.caffe.layers.data import Input
from pipeline.caffe.layers.elementwise import Scale
from pipeline.caffe.layers.normalization import BatchNorm
from pipeline.caffe.memory_budget import MemoryBudget
from pipeline.caffe.net_log import NetLog
from pipeline.caffe.precision import PRECISIONS
from pipeline.caffe.proto.caffe_pb2 import LayerParameter, NetParameter, ParamSpec, Phase
from pipeline.caffe.proto.files import PrototxtError, read_net, write_binary
from pipeline.caffe.proto.prototxt_errors import find_layers, find_line


class EmptyNetError(PrototxtError):
    """A net without layers: Caffe aborts as it runs it."""


N = TypeVar("N", bound="Net")
Watch = Callable[[Layer, list[torch.Tensor], list[torch.Tensor]], None]  # a layer, its bottoms, its tops


@dataclass
class Learnable:
    """A blob that the solver owns: layer and index say where it first stands, lr_mult and decay_mult how it learns."""

    blob: torch.Tensor
    layer: str
    index: int
    lr_mult: float
    decay_mult: float


def build_net(path: Path, phase: Phase, **options: Any) -> "Net":
    """Build the net of a prototxt; `options` are Net's. Errors name the layer's line."""
    return build_read_net(path, read_net(path), phase, Net, **options)


def build_read_net(path: Path, param: NetParameter, phase: Phase, net_type: type[N], **options: Any) -> N:
    """build_net(), as Net or a class made from it, of what was read from the prototxt `path` before."""
    with naming_lines(path):
        return net_type(param, phase, **options)


@contextmanager
def naming_lines(path: Path) -> Iterator[None]:
    """Give an error about a layer the line on which the prototxt `path` names it."""
    try:
        yield
    except EmptyNetError as error:
        raise PrototxtError(f"{path}: {error}") from None
    except LayerError as error:
        blocks = find_layers(path.read_text(encoding="utf-8"))
        line = find_line(blocks, error.layer, error.place)
        other = find_line(blocks, error.other[1], error.other[0]) if error.other else None
        note = f" (line {other})" if other else ""
        raise PrototxtError(f"{path}:{line}: {error}{note}" if line else f"{path}: {error}") from None


class Net:
    """The layers of `param` that belong to `phase` (and level and stages), in their order.

    blobs: by name, what the last forward left in them. params: by layer name, its learnable blobs.
    inputs, outputs: names of the blobs that Input layers make, and of those that no layer takes (alphabetically).
    shapes: by name, the blobs' shapes when the net was built; a forward may be given another batch size.

    device: a torch device, as "cpu" or "cuda:1". precision: float32, or bfloat16 for products and convolutions while
    blobs of the solver stay float32. seed: of fillers, dropout, mirror and crop; None draws one.
    Raises ModeError for a GPU that is not there, and LayerError naming the first layer that cannot be built.
    """

    def __init__(
        self,
        param: NetParameter,
        phase: Phase,
        *,
        level: int = 0,
        stages: Collection[str] = (),
        device: str = "cpu",
        precision: str = "float32",
        seed: int | None = None,
    ) -> None:
        self.name = param.name
        self.phase = phase
        check_device(device)
        self.device = torch.device(device)
        self.precision = PRECISIONS[precision]
        self.generator = torch.Generator()
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(seed)
        self.blobs: dict[str, torch.Tensor] = {}
        self.keep_gradients = False
        self.watch: Watch | None = None  # called with every layer that has run forward
        # A net whose layers run backward one by one calls it with every gradient of a layer's blob, summed so far.
        self.watch_gradient: Callable[[Layer, int, torch.Tensor], None] | None = None
        self.layers: list[Layer] = []
        self.learnable: list[Learnable] = []
        self.shapes: dict[str, Shape] = {}
        chosen = choose_layers(param, phase, level, stages)
        if not chosen:
            raise EmptyNetError(
                f"net '{self.name}' has no layers"
                + (f" in phase {Phase.Name(phase)}; look at the layers' include and exclude rules" * bool(param.layer))
            )
        try:
            self._build_layers(take_layers(param, chosen))
        except LayerError as error:
            if error.place is not None:
                error.place = chosen[error.place]
            if error.other is not None:
                error.other = chosen[error.other[0]], error.other[1]
            raise
        self.inputs = tuple(top for layer in self.layers if isinstance(layer, Input) for top in layer.param.top)
        if self.device.type != "cpu":
            torch.backends.cudnn.allow_tf32 = False  # by default float32 convolutions keep ten bits of a product
            # Fillers draw on the CPU, so that a seed means the same weights everywhere; dropout draws where it runs.
            on_device = torch.Generator(self.device).manual_seed(self.generator.initial_seed())
            for layer in self.layers:
                layer.generator = on_device
            self.generator = on_device

    def _build_layers(self, param: NetParameter) -> None:
        """Build all layers of a net's message, which errors give the places of."""
        unused: set[str] = set()
        owners: dict[str, Learnable] = {}
        named: dict[str, int] = {}  # the place of the first layer of a name
        room = MemoryBudget(self.device)
        net_log = NetLog(param)
        for place, layer_param in insert_splits(param):
            if not layer_param.HasField("phase"):
                layer_param.phase = self.phase
            try:
                if not layer_param.top and layer_class(layer_param).default_loss_weight:
                    layer_param.top.append(AUTOMATIC_TOP)
                net_log.creating(layer_param)
                layer = self._build(layer_param, room)
                net_log.set_up(layer_param, [self.shapes[top] for top in layer_param.top])
                owned = len(self.learnable)
                self._share(layer, owners, net_log, room)
                first = named.setdefault(layer_param.name, place)
                if first != place and len(self.learnable) > owned:
                    raise LayerError(
                        layer_param.name,
                        "another layer has this name, by which files of weights tell blobs apart; rename one",
                        other=(first, layer_param.name),
                    )
                if first != place and layer_param.name:
                    log.warning("layer '%s': another layer of the net has this name", layer_param.name)
            except LayerError as error:
                error.place = place
                raise
            unused.difference_update(layer_param.bottom)
            unused.update(layer_param.top)
        self.outputs = tuple(sorted(unused - {AUTOMATIC_TOP}))
        # By the name of a BatchNorm layer, the Scale layer that comes next and works in place: no blob keeps the values
        # between the two, which forward may then make in one pass.
        self._scales = {
            first.param.name: second
            for first, second in pairwise(self.layers)
            if isinstance(first, BatchNorm)
            and isinstance(second, Scale)
            and first.param.top == second.param.bottom == second.param.top
            and not (first.param.loss_weight or second.param.loss_weight or second.param.propagate_down)
        }
        net_log.built(self.layers, self.outputs)

    def _build(self, param: LayerParameter, room: MemoryBudget) -> Layer:
        layer: Layer = layer_class(param)(param, self.generator)
        layer.room = room
        layer.warn_of_unused_parameters()
        if len(param.loss_weight) not in (0, len(param.top)):
            raise layer.error(f"{len(param.loss_weight)} loss_weight where one a top ({len(param.top)}) was expected")
        if layer.default_loss_weight and not param.loss_weight:
            param.loss_weight.append(layer.default_loss_weight)
        top_shapes = layer.setup([self.shapes[name] for name in param.bottom])
        for name, shape in zip(param.top, top_shapes, strict=True):
            layer.reserve_memory(f"top '{name}'", shape, in_others=layer.tops_are_bottom or name in param.bottom)
            self.shapes[name] = shape
        layer.room = None
        if len(param.param) > len(layer.blobs):
            raise layer.error(f"{len(param.param)} param where the layer has {len(layer.blobs)} blobs")
        layer.blobs = [channels_last(blob.to(self.device)) for blob in layer.blobs]
        self.layers.append(layer)
        return layer

    def _share(self, layer: Layer, owners: dict[str, Learnable], net_log: NetLog, room: MemoryBudget) -> None:
        """Enter a layer's blobs among the learnable ones, or put the owner's in where a param is shared by name."""
        for index, blob in enumerate(layer.blobs):
            spec = layer.param.param[index] if index < len(layer.param.param) else ParamSpec()
            owner = owners.get(spec.name) if spec.name else None
            if owner is None:
                lr_mult = spec.lr_mult if layer.blobs_are_learned else 0
                blob.requires_grad_(lr_mult != 0)
                learnable = Learnable(blob, layer.param.name, index, lr_mult, spec.decay_mult)
                self.learnable.append(learnable)
                if spec.name:
                    owners[spec.name] = learnable
                continue
            shape, wanted = tuple(blob.shape), tuple(owner.blob.shape)
            if shape != wanted and (spec.share_mode == ParamSpec.STRICT or blob.numel() != owner.blob.numel()):
                raise layer.error(
                    f"param '{spec.name}' has shape {shape} where layer '{owner.layer}', which owns it, has {wanted}"
                )
            for field in ("lr_mult", "decay_mult"):
                if spec.HasField(field) and getattr(spec, field) != getattr(owner, field):
                    raise layer.error(
                        f"param '{spec.name}' has {field} {getattr(spec, field)} where layer "
                        f"'{owner.layer}', which owns it, has {getattr(owner, field)}"
                    )
            net_log.shares(spec.name, owner.layer, owner.index)
            room.give_back(shape)
            if shape == wanted:
                layer.blobs[index] = owner.blob
            else:  # only values in Caffe's own order can be seen in another shape
                owner.blob.data = owner.blob.data.contiguous()
                layer.blobs[index] = owner.blob.view(shape)

    @property
    def params(self) -> dict[str, list[torch.Tensor]]:
        """The blobs of every layer that has any."""
        return {layer.param.name: layer.blobs for layer in self.layers if layer.blobs}

    def forward(self, **inputs: np.ndarray | torch.Tensor) -> dict[str, torch.Tensor]:
        """Run all layers and return the outputs; `inputs` fill the net's inputs, whose batch size may change.

        The weighted sum of the loss tops is left in `loss`. Raises PrototxtError when an input is missing or unknown.
        """
        if set(inputs) != set(self.inputs):
            raise PrototxtError(
                f"net '{self.name}' was given the inputs {', '.join(sorted(inputs)) or 'none'} where "
                f"{', '.join(self.inputs) or 'none'} were expected"
            )
        self.blobs = {}  # lets go of the last batch before this one is made
        self.loss = torch.zeros((), device=self.device)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            layers = iter(self.layers)
            for layer in layers:
                bottoms = self._bottoms(layer)
                scale = self._scales.get(layer.param.name) if self.watch is None and not self.keep_gradients else None
                if isinstance(layer, BatchNorm) and scale is not None and scale.scales_channels(bottoms):
                    tops = layer.forward_scaled(bottoms, *scale.blobs)
                    next(layers)  # skips the Scale layer, which forward_scaled has applied
                elif isinstance(layer, Input):
                    tops = [torch.as_tensor(inputs[name], dtype=torch.float32) for name in layer.param.top]
                else:
                    tops = layer.forward(bottoms)
                if not layer.param.bottom:
                    tops = [channels_last(top.to(self.device)) for top in tops]
                self._keep(layer, tops)
                if self.watch is not None:
                    self.watch(layer, bottoms, tops)
        return {name: self.blobs[name] for name in self.outputs}

    def clear_gradients(self) -> None:
        """Forget what backward has left in the gradients of learnable blobs."""
        for learnable in self.learnable:
            learnable.blob.grad = None

    def backward(self) -> None:
        """Add the gradient of the last forward's loss to those of the learnable blobs."""
        if self.loss.requires_grad:
            self.loss.backward()

    def _bottoms(self, layer: Layer) -> list[torch.Tensor]:
        bottoms = [self.blobs[name] for name in layer.param.bottom]
        for index, down in enumerate(layer.param.propagate_down):
            if not down:
                bottoms[index] = bottoms[index].detach()
        return bottoms

    def _keep(self, layer: Layer, tops: list[torch.Tensor]) -> None:
        for index, (name, top) in enumerate(zip(layer.param.top, tops, strict=True)):
            weight = layer.param.loss_weight[index] if index < len(layer.param.loss_weight) else 0
            if weight:
                self.loss = self.loss + weight * top.sum()
            if self.keep_gradients:
                self._keep_gradient(name, top)
            self.blobs[name] = top

    def _keep_gradient(self, name: str, top: torch.Tensor) -> None:
        if not top.requires_grad and top.is_floating_point():
            top.requires_grad_()
        if top.requires_grad and name not in self._first:
            top.retain_grad()
            self._first[name] = top

    def copy_from(self, source: NetParameter | Path) -> None:
        """Take the blobs of the layers that have the same name, as weights.copy_weights() says."""
        weights.copy_weights(self, source)

    def to_proto(self) -> NetParameter:
        """The net with its blobs, as a .caffemodel holds it."""
        return weights.to_caffemodel(self)

    def to_hdf5(self) -> dict[str, dict[str, np.ndarray]]:
        """The blobs, as /data of a .caffemodel.h5 holds them."""
        return weights.to_hdf5(self)

    def save(self, path: Path) -> None:
        """Write the .caffemodel."""
        write_binary(path, self.to_proto())

    def save_hdf5(self, path: Path) -> None:
        """Write the .caffemodel.h5."""
        write_hdf5(path, {"data": self.to_hdf5()})

    def share_with(self, other: "Net") -> None:
        """Use the blobs of the other net's layers of the same name, as Caffe's ShareTrainedLayersWith does."""
        params = other.params
        for layer in self.layers:
            theirs = params.get(layer.param.name, [])
            if theirs and [blob.shape for blob in theirs] != [blob.shape for blob in layer.blobs]:
                raise layer.error("its blobs have other shapes than those of the same layer in the net it shares with")
            layer.blobs = theirs or layer.blobs

    def state(self) -> dict[str, Any]:
        """What a resumed run must have back beside the blobs, fit for JSON: generator and data layers."""
        return {
            "device": self.generator.device.type,
            "generator": base64.b64encode(self.generator.get_state().numpy().tobytes()).decode(),
            "layers": {layer.param.name: state for layer in self.layers if (state := layer.state())},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what state() gave. A generator of another kind of device draws from its seed on."""
        if state.get("device", "cpu") == self.generator.device.type:  # earlier snapshots do not name it
            generator_state = np.frombuffer(base64.b64decode(state["generator"]), dtype=np.uint8)
            self.generator.set_state(torch.from_numpy(generator_state.copy()))
        for layer in self.layers:
            if layer.param.name in state["layers"]:
                layer.restore(state["layers"][layer.param.name])

    def gradients(self, **inputs: np.ndarray | torch.Tensor) -> dict[str, torch.Tensor]:
        """Run forward and backward; return the loss's gradient for every blob, and leave the params' in their .grad.

        A blob that in-place layers change has the gradient of what stood in it first, as Caffe leaves it.
        """
        self._first: dict[str, torch.Tensor] = {}
        self.keep_gradients = True
        try:
            self.forward(**inputs)
        finally:
            self.keep_gradients = False
        self.loss.backward()
        return {name: first.grad for name, first in self._first.items() if first.grad is not None}


def channels_last(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of images (N, C, H, W) with the channels innermost; other tensors as they are."""
    # oneDNN's convolutions, poolings and normalisations run about a third faster with the channels innermost. A copy,
    # since contiguous() leaves the strides of one-channel images as they are, and torch then puts channels outermost.
    if tensor.ndim != 4:
        return tensor
    return torch.empty_like(tensor, memory_format=torch.channels_last).copy_(tensor)
