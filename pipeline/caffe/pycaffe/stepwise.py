"""A net whose layers run one at a time on blobs that stay, as Caffe's do: what the Python interface works on."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipeline.caffe.blob import Blob, Blobs, Memory
from pipeline.caffe.insert_splits import AUTOMATIC_TOP
from pipeline.caffe.layers.data import Input
from pipeline.caffe.layers.layer import Tensors, passes_no_gradient
from pipeline.caffe.need_backward import find_needs
from pipeline.caffe.net import Net, channels_last
from pipeline.caffe.proto.caffe_pb2 import NetParameter, Phase

LayerCallback = Callable[[int], None]  # called with a layer's number


@dataclass
class Run:
    """What a layer last ran on and made, all leaves and ends of a graph of its own."""

    bottoms: Tensors
    blobs: Tensors
    tops: Tensors


class StepwiseNet(Net):
    """A net on blobs that stay. Layers run from any of them to any other, forward and backward, and read what stands
    in the blobs at the time, whoever wrote it: Caffe's order of events, where Net has torch's.

    stays: the blobs of the net by name, in the order in which layers make them. of_layers: each layer's own blobs,
    their memory that of the engine's tensors. Weighted losses stand in the gradients of their blobs, where backward
    starts. before_forward, after_forward, before_backward, after_backward: called with the number of every layer.

    The net computes in float32. param, phase and the other options are Net's.
    """

    def __init__(self, param: NetParameter, phase: Phase, **options: Any) -> None:
        super().__init__(param, phase, **options)
        self.stays: dict[str, Blob] = {}
        self._bottoms_of: list[list[Blob]] = []
        self._tops_of: list[list[Blob]] = []
        for index, layer in enumerate(self.layers):
            self._bottoms_of.append([self.stays[name] for name in layer.param.bottom])
            for name in layer.param.top:
                if name not in self.stays or name == AUTOMATIC_TOP:  # of that name there may be several
                    self.stays[name] = Blob(self.shapes[name], self.device)
            self._tops_of.append([self.stays[name] for name in layer.param.top])
            for number in range(len(layer.param.top)):
                self._start_gradient(index, number)
        self._fitted = [[blob.shape for blob in blobs] for blobs in self._bottoms_of]
        self._runs: list[Run | None] = [None] * len(self.layers)
        self._tensors = [list(layer.blobs) for layer in self.layers]
        self.of_layers = self._blobs_of_layers()
        by_tensor = {
            id(tensor): blob
            for tensors, blobs in zip(self._tensors, self.of_layers, strict=True)
            for tensor, blob in zip(tensors, blobs, strict=True)
        }
        self._learned = [(learnable, by_tensor[id(learnable.blob)]) for learnable in self.learnable]
        self.needs = find_needs(self.layers, param.force_backward)
        self.before_forward: list[LayerCallback] = []
        self.after_forward: list[LayerCallback] = []
        self.before_backward: list[LayerCallback] = []
        self.after_backward: list[LayerCallback] = []

    def _blobs_of_layers(self) -> list[Blobs]:
        """A Blob on the memory of every tensor; layers that share a tensor share its gradient as well."""
        known: dict[int, Blob] = {}
        of_layers = []
        for layer in self.layers:
            blobs = Blobs(device=self.device)
            for tensor in layer.blobs:
                tensor.data = tensor.data.contiguous()
                shape = tuple(tensor.shape)
                owner = known.setdefault(tensor.data_ptr(), Blob(shape, self.device, values=Memory.of(tensor)))
                blobs.append(Blob(shape, self.device, values=owner.values, gradients=owner.gradients))
            of_layers.append(blobs)
        return of_layers

    def forward(self, **inputs: np.ndarray | torch.Tensor) -> dict[str, torch.Tensor]:
        """Run all layers and return the outputs. Inputs that are not given stay as they are."""
        for name, value in inputs.items():
            self.stays[name].reshape(*value.shape)
            self.stays[name].tensor().copy_(torch.as_tensor(value))
        self.loss = torch.tensor(self.run_forward(0, len(self.layers) - 1))
        self.blobs = {name: blob.values.newest(blob.shape) for name, blob in self.stays.items()}
        return {name: self.blobs[name] for name in self.outputs}

    def run_forward(self, first: int, last: int) -> float:
        """Run layers `first` to `last` and return the weighted sum of their losses."""
        loss = 0.0
        for index in range(first, last + 1):
            for callback in self.before_forward:
                callback(index)
            loss += self._run_layer(index)
            for callback in self.after_forward:
                callback(index)
        return loss

    def reshape(self) -> None:
        """Fit all layers to the shapes that their bottoms have now. Raises LayerError when they cannot."""
        for index in range(len(self.layers)):
            self._fit(index)

    def _fit(self, index: int) -> None:
        shapes = [blob.shape for blob in self._bottoms_of[index]]
        if shapes == self._fitted[index]:
            return
        self._fitted[index] = []  # nor is it to the old ones where it cannot be to these
        self._runs[index] = None  # what it last ran on is of other shapes
        for number, shape in enumerate(self.layers[index].reshape(shapes)):
            self._shape_top(index, number, shape)
        self._fitted[index] = shapes

    def _shape_top(self, index: int, number: int, shape: Sequence[int]) -> None:
        blob = self._tops_of[index][number]
        if blob.shape != tuple(shape):
            blob.reshape(*shape)
            self._start_gradient(index, number)

    def _loss_weight(self, index: int, number: int) -> float:
        weights = self.layers[index].param.loss_weight
        return weights[number] if number < len(weights) else 0

    def _start_gradient(self, index: int, number: int) -> None:
        """Put a loss's weight where its backward starts (caffe/layer.hpp, SetLossWeights)."""
        if weight := self._loss_weight(index, number):
            self._tops_of[index][number].gradient().fill_(weight)

    def _run_layer(self, index: int) -> float:
        self._fit(index)
        if isinstance(self.layers[index], Input):
            return 0.0
        self._runs[index] = run = self._compute(index, with_graph=self.needs[index].layer and torch.is_grad_enabled())
        return sum(self._keep_top(index, number, top.detach()) for number, top in enumerate(run.tops))

    def _compute(self, index: int, *, with_graph: bool) -> Run:
        """Run a layer on what stands in its bottoms, and leave the tops' blobs alone."""
        layer, needs = self.layers[index], self.needs[index]
        with torch.set_grad_enabled(with_graph):
            bottoms = [self._bottom(index, blob) for blob in self._bottoms_of[index]]
            blobs = [blob.tensor() for blob in self.of_layers[index]]
            for tensor, need in zip((*bottoms, *blobs), (*needs.bottoms, *needs.blobs), strict=True):
                tensor.requires_grad_(need and with_graph)
            engines, layer.blobs = layer.blobs, blobs
            try:
                tops = [top.to(self.device) for top in layer.forward(bottoms)]
                if not bottoms:
                    tops = [channels_last(top) for top in tops]
                if self.watch is not None:
                    self.watch(layer, bottoms, tops)
            finally:
                layer.blobs = engines
        return Run(bottoms, blobs, tops)

    def _bottom(self, index: int, blob: Blob) -> torch.Tensor:
        """A blob's values for a layer, as they lie, or in the order in which it is faster."""
        values = blob.values.newest(blob.shape).detach()
        if blob in self._tops_of[index]:  # what an in-place layer writes over is still needed for its gradient
            return values if blob.values.waits else values.clone()
        if self.layers[index].prefers_channels_last and values.is_contiguous() and self.device.type == "cpu":
            return channels_last(values)
        return values

    def _keep_top(self, index: int, number: int, top: torch.Tensor) -> float:
        """Put a top into its blob, and return the loss that it is."""
        self._shape_top(index, number, top.shape)
        blob = self._tops_of[index][number]
        if self.layers[index].tops_are_bottom:
            blob.values = self._bottoms_of[index][0].values
        else:
            run = self._runs[index]
            self._put(blob.values, top, (*run.bottoms, *run.blobs) if run else ())
        if self._loss_weight(index, number):
            return float(torch.dot(top.flatten(), blob.gradient().flatten()))
        return 0.0

    @staticmethod
    def _put(memory: Memory, values: torch.Tensor, others: Iterable[torch.Tensor]) -> None:
        """Put values into a memory, a copy of them where they lie in that of others, which may be written to."""
        place = values.untyped_storage().data_ptr()
        shared = any(other.untyped_storage().data_ptr() == place for other in others)
        memory.put(values.clone() if shared else values)

    def backward(self) -> None:
        """Run all layers backward, and hand the gradients over to the engine's tensors."""
        self.run_backward(len(self.layers) - 1, 0)
        self.hand_blobs_to_engine()

    def run_backward(self, first: int, last: int) -> None:
        """Run layers `first` down to `last` backward: the gradients of bottoms are written, those of blobs added to.

        They are those of the last forward, and of what stands in the bottoms for a layer that has not run forward in
        these shapes.
        """
        for index in range(first, last - 1, -1):
            for callback in self.before_backward:
                callback(index)
            if self.needs[index].layer:
                self._run_layer_backward(index)
            for callback in self.after_backward:
                callback(index)

    def _run_layer_backward(self, index: int) -> None:
        layer, needs = self.layers[index], self.needs[index]
        if not any(needs.bottoms) and not any(needs.blobs):
            return
        self._runs[index] = run = self._run_to_go_back(index)
        tops, seeds = [], []
        for blob, top in zip(self._tops_of[index], run.tops, strict=True):
            seed = blob.gradients.newest(blob.shape)
            if top.requires_grad and not (passes_no_gradient(top) and not seed.any()):
                tops.append(top)
                seeds.append(seed)
        wanted = [tensor for tensor in (*run.bottoms, *run.blobs) if tensor.requires_grad]
        found: Sequence[torch.Tensor | None] = [None] * len(wanted)
        if tops:
            found = torch.autograd.grad(tops, wanted, seeds, retain_graph=True, allow_unused=True)
        gradients = iter(found)
        for blob, bottom in zip(self._bottoms_of[index], run.bottoms, strict=True):
            if not bottom.requires_grad:
                continue
            if (gradient := next(gradients)) is not None:
                self._put(blob.gradients, gradient, (*seeds, *run.bottoms, *run.blobs))
            elif not tops:  # Silence, for one; where none goes to the bottom alone, its diff is left alone
                blob.gradient().zero_()
        for number, (blob, tensor) in enumerate(zip(self.of_layers[index], run.blobs, strict=True)):
            if tensor.requires_grad and (gradient := next(gradients)) is not None:
                blob.gradient().add_(gradient)
                if self.watch_gradient is not None:
                    self.watch_gradient(layer, number, blob.gradient())

    def _run_to_go_back(self, index: int) -> Run:
        """A layer's last run, on what stands in its bottoms now: a script may have written there. Or a new one."""
        self._fit(index)
        layer, run = self.layers[index], self._runs[index]
        if run is None or not any(tensor.requires_grad for tensor in (*run.bottoms, *run.blobs)):
            return self._compute(index, with_graph=True)
        for blob, bottom in zip(self._bottoms_of[index], run.bottoms, strict=True):
            now = blob.values.newest(blob.shape)
            if blob in self._tops_of[index] or now.data_ptr() == bottom.data_ptr():
                continue
            if layer.prefers_channels_last or bottom.is_contiguous():
                bottom.data.copy_(now)
            elif not torch.equal(bottom, now):  # and the layer may have gone on with a copy of its own
                return self._compute(index, with_graph=True)
        return run

    def clear_gradients(self) -> None:
        for blobs in self.of_layers:
            for blob in blobs:
                blob.gradient().zero_()

    def hand_blobs_to_engine(self) -> None:
        """Let the engine's tensors, which solvers move and files are made of, be what the blobs of layers hold now."""
        for tensors, blobs in zip(self._tensors, self.of_layers, strict=True):
            for tensor, blob in zip(tensors, blobs, strict=True):
                tensor.data = blob.tensor()
        for learnable, blob in self._learned:
            learnable.blob.grad = blob.gradient() if learnable.lr_mult else None

    def copy_from(self, source: Any) -> None:
        self.hand_blobs_to_engine()
        super().copy_from(source)

    def to_proto(self) -> NetParameter:
        self.hand_blobs_to_engine()
        return super().to_proto()

    def to_hdf5(self) -> dict[str, dict[str, np.ndarray]]:
        self.hand_blobs_to_engine()
        return super().to_hdf5()

    def share_with(self, other: Net) -> None:
        """Use the values of the other net's layers of the same name; gradients stay each net's own."""
        if not isinstance(other, StepwiseNet):
            raise TypeError(f"{type(other).__name__} where a StepwiseNet was expected")
        theirs = {layer.param.name: blobs for layer, blobs in zip(other.layers, other.of_layers, strict=True) if blobs}
        for layer, mine in zip(self.layers, self.of_layers, strict=True):
            shared = theirs.get(layer.param.name, mine)
            if [blob.shape for blob in shared] != [blob.shape for blob in mine]:
                raise layer.error("its blobs have other shapes than those of the same layer in the net it shares with")
            for blob, owner in zip(mine, shared, strict=True):
                blob.values = owner.values
