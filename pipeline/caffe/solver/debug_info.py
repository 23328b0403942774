"""What debug_info logs: mean absolute values of all blobs and gradients (caffe/net.cpp, ForwardDebugInfo and on)."""

import torch

from pipeline.caffe.layers import Layer
from pipeline.caffe.net import Net


class DebugInfo:
    """Appends Caffe's lines of what `net` does in the block to `lines`; does nothing unless `wanted`.

    Of a weight that layers share, torch tells the sum of their gradients only: it stands at each of them.
    """

    def __init__(self, net: Net, lines: list[str], wanted: bool) -> None:
        self.net = net
        self.lines = lines
        self.wanted = wanted
        self.gradients: dict[tuple[str, int], torch.Tensor] = {}  # of bottoms, by layer and index

    def __enter__(self) -> "DebugInfo":
        if self.wanted:
            self.net.watch = self._forward
        return self

    def __exit__(self, *error: object) -> None:
        if self.wanted:
            self.net.watch = None
            if self.gradients:
                self._backward()

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
            parameters = [(index, leaf.grad) for index, blob in enumerate(layer.blobs)
                          if (leaf := blob if blob.is_leaf else blob._base) is not None]
            reached = [index for index in range(len(layer.param.bottom)) if (name, index) in self.gradients]
            if not reached and all(gradient is None for _, gradient in parameters):
                continue
            for index in reached:
                self.lines.append(f"    [Backward] Layer {name}, bottom blob {layer.param.bottom[index]} diff: "
                                  f"{_mean(self.gradients[name, index])}")
            for index, gradient in parameters:
                if gradient is not None or not layer.blobs_are_learned:
                    value = "0" if gradient is None else _mean(gradient)
                    self.lines.append(f"    [Backward] Layer {name}, param blob {index} diff: {value}")
        blobs = [learnable.blob.detach() for learnable in self.net.learnable]
        gradients = [learnable.blob.grad for learnable in self.net.learnable if learnable.blob.grad is not None]
        (data_1, data_2), (diff_1, diff_2) = _norms(blobs), _norms(gradients)
        self.lines.append(f"    [Backward] All net params (data, diff): L1 norm = ({data_1:.6g}, {diff_1:.6g}); "
                          f"L2 norm = ({data_2:.6g}, {diff_2:.6g})")


def _mean(blob: torch.Tensor) -> str:
    return f"{blob.detach().abs().double().mean().item():.6g}" if blob.numel() else "0"


def _norms(blobs: list[torch.Tensor]) -> tuple[float, float]:
    """The L1 and the L2 norm of all blobs together."""
    return (sum(blob.double().abs().sum().item() for blob in blobs),
            sum(blob.double().square().sum().item() for blob in blobs) ** 0.5)
