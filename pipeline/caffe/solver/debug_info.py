"""What debug_info logs: mean absolute values of all blobs and gradients (caffe/net.cpp, ForwardDebugInfo and on)."""

from collections import Counter

import torch

from pipeline.caffe.layers import Layer
from pipeline.caffe.net import Net


class DebugInfo:
    """Appends Caffe's lines of what `net` does in the block to `lines`; does nothing unless `wanted`."""

    def __init__(self, net: Net, lines: list[str], wanted: bool) -> None:
        self.net = net
        self.lines = lines
        self.wanted = wanted
        self.gradients: dict[tuple[str, int], torch.Tensor] = {}  # of bottoms, by layer and index
        self.shared: dict[tuple[str, int], torch.Tensor] = {}  # by layer and index, weights that other layers have too
        self.parts: dict[tuple[str, int], torch.Tensor] = {}  # each layer's own part of their gradients
        self.sums: dict[torch.Tensor, torch.Tensor] = {}  # by weight, what Caffe has of its gradient so far
        self.told: dict[tuple[str, int], torch.Tensor] = {}  # that by layer and index, where the net tells of it

    def __enter__(self) -> "DebugInfo":
        if self.wanted:
            self.net.watch = self._forward
            self.net.watch_gradient = self._keep
            if torch.is_grad_enabled():
                self._part_shared()
        return self

    def __exit__(self, *error: object) -> None:
        if self.wanted:
            self.net.watch = self.net.watch_gradient = None
            for layer in self.net.layers:
                layer.blobs = [
                    self.shared.get((layer.param.name, index), blob) for index, blob in enumerate(layer.blobs)
                ]
            if self.gradients:
                self._backward()

    def _part_shared(self) -> None:
        """Lend each layer that shares a weight a view of its own: torch sums gradients only behind it."""
        users = Counter(_leaf(blob) for layer in self.net.layers for blob in layer.blobs if blob.requires_grad)
        for layer in self.net.layers:
            for index, blob in enumerate(layer.blobs):
                if users[_leaf(blob)] < 2:
                    continue
                place, leaf = (layer.param.name, index), _leaf(blob)
                self.shared[place] = blob
                before = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad  # with an iter_size
                self.sums[leaf] = before.detach().reshape(-1).clone()
                layer.blobs[index] = view = blob.view_as(blob)
                view.register_hook(lambda gradient, place=place: self.parts.update({place: gradient}))

    def _keep(self, layer: Layer, index: int, gradient: torch.Tensor) -> None:
        self.told[layer.param.name, index] = gradient.clone()

    def _gradient(self, place: tuple[str, int], blob: torch.Tensor) -> torch.Tensor | None:
        """A blob's gradient as Caffe has it when it is through with the layer: without those of the layers before."""
        if place in self.told:
            return self.told[place]
        leaf = _leaf(blob)
        if place in self.parts:
            self.sums[leaf] = self.sums[leaf] + self.parts[place].reshape(-1)
        return self.sums.get(leaf, leaf.grad)

    def _forward(self, layer: Layer, bottoms: list[torch.Tensor], tops: list[torch.Tensor]) -> None:
        name = layer.param.name
        for top_name, top in zip(layer.param.top, tops, strict=True):
            self.lines.append(f"    [Forward] Layer {name}, top blob {top_name} data: {_mean(top)}")
        for index, blob in enumerate(layer.blobs):
            spec = layer.param.param[index].name if index < len(layer.param.param) else ""
            self.lines.append(f"    [Forward] Layer {name}, param blob {spec or index} data: {_mean(blob)}")
        for index, bottom in enumerate(bottoms):
            if bottom.requires_grad:
                bottom.register_hook(lambda gradient, place=(name, index): self.gradients.update({place: gradient}))

    def _backward(self) -> None:
        for layer in reversed(self.net.layers):
            name = layer.param.name
            parameters = [(index, self._gradient((name, index), blob)) for index, blob in enumerate(layer.blobs)]
            reached = [index for index in range(len(layer.param.bottom)) if (name, index) in self.gradients]
            if not reached and all(gradient is None for _, gradient in parameters):
                continue
            for index in reached:
                self.lines.append(
                    f"    [Backward] Layer {name}, bottom blob {layer.param.bottom[index]} diff: "
                    f"{_mean(self.gradients[name, index])}"
                )
            for index, gradient in parameters:
                if gradient is not None or not layer.blobs_are_learned:
                    value = "0" if gradient is None else _mean(gradient)
                    self.lines.append(f"    [Backward] Layer {name}, param blob {index} diff: {value}")
        blobs = [learnable.blob.detach() for learnable in self.net.learnable]
        gradients = [learnable.blob.grad for learnable in self.net.learnable if learnable.blob.grad is not None]
        (data_1, data_2), (diff_1, diff_2) = _norms(blobs), _norms(gradients)
        self.lines.append(
            f"    [Backward] All net params (data, diff): L1 norm = ({data_1:.6g}, {diff_1:.6g}); "
            f"L2 norm = ({data_2:.6g}, {diff_2:.6g})"
        )


def _leaf(blob: torch.Tensor) -> torch.Tensor:
    """The blob that the solver owns: a PERMISSIVE sharer sees it in another shape."""
    return blob if blob._base is None else blob._base


def _mean(blob: torch.Tensor) -> str:
    return f"{blob.detach().abs().double().mean().item():.6g}" if blob.numel() else "0"


def _norms(blobs: list[torch.Tensor]) -> tuple[float, float]:
    """The L1 and the L2 norm of all blobs together."""
    return (
        sum(blob.double().abs().sum().item() for blob in blobs),
        sum(blob.double().square().sum().item() for blob in blobs) ** 0.5,
    )
