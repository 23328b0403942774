"""Layers that copy, join and reshape without arithmetic."""

import math

import torch

from pipeline.caffe.layers.layer import Graph, Layer, Shape, Tensors, register


@register("Split")
class Split(Layer):
    """The bottom again under every top's name; gradients add up."""

    tops = (1, None)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        return bottom * len(self.param.top)

    def forward(self, bottom: Tensors) -> Tensors:
        return [bottom[0].view_as(bottom[0]) for _ in self.param.top]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        return bottom * len(self.param.top)


@register("Silence")
class Silence(Layer):
    """Takes bottoms that are not to be printed as outputs. No tops."""

    bottoms = (1, None)
    tops = (0, 0)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        return []

    def forward(self, bottom: Tensors) -> Tensors:
        return []

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        return []


@register("Concat")
class Concat(Layer):
    """Bottoms joined along `axis` (or the older concat_dim) -> one top; all other axes must agree."""

    bottoms = (1, None)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.concat_param
        self.along = self.axis(param.concat_dim if param.HasField("concat_dim") else param.axis, bottom[0])
        rests = {(*shape[: self.along], *shape[self.along + 1 :]) for shape in bottom}
        if len(rests) > 1:
            shapes = ", ".join(map(str, bottom))
            raise self.error(f"bottoms of shapes {shapes} differ elsewhere than on axis {self.along}")
        joined = sum(shape[self.along] for shape in bottom)
        return [(*bottom[0][: self.along], joined, *bottom[0][self.along + 1 :])]

    def forward(self, bottom: Tensors) -> Tensors:
        return [torch.cat(bottom, self.along)]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        return [graph.node("Concat", bottom, axis=self.along)]


@register("Flatten")
class Flatten(Layer):
    """Axes `axis` to `end_axis`, both counted in, become one."""

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.flatten_param
        self.first = self.axis(param.axis, bottom[0])
        self.last = self.axis(param.end_axis, bottom[0], "end_axis")
        if self.last < self.first:
            raise self.error(f"end_axis {param.end_axis} lies before axis {param.axis}")
        flat = math.prod(bottom[0][self.first : self.last + 1])
        return [(*bottom[0][: self.first], flat, *bottom[0][self.last + 1 :])]

    def forward(self, bottom: Tensors) -> Tensors:
        return [bottom[0].flatten(self.first, self.last)]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        shape = graph.shapes[bottom[0]]
        kept, joined = shape[self.last + 1 :], shape[self.first : self.last + 1]
        if -1 in kept:
            raise self.error("axes after the flattened ones, of a size only known at run time, have no ONNX form here")
        flat = -1 if -1 in joined else math.prod(joined)  # a known size does for an empty batch too
        return [graph.node("Reshape", [*bottom, graph.constant([0] * self.first + [flat, *kept])])]


@register("Reshape")
class Reshape(Layer):
    """num_axes axes from `axis` take the dimensions of `shape`: 0 copies the bottom's, -1 is worked out."""

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.reshape_param
        axes = len(bottom[0])
        self.first = self.axis(param.axis, (*bottom[0], 1)) if param.axis >= 0 else axes + param.axis + 1
        self.last = axes if param.num_axes == -1 else self.first + param.num_axes
        if not 0 <= self.first <= self.last <= axes or list(param.shape.dim).count(-1) > 1:
            raise self.error(f"axis {param.axis}, num_axes {param.num_axes}, dims {list(param.shape.dim)} do not fit "
                             f"a bottom of shape {bottom[0]}")
        top = self.target(bottom[0])
        if math.prod(top) != math.prod(bottom[0]) or -1 in top:
            raise self.error(f"bottom of shape {bottom[0]} cannot take the shape {top}")
        return [top]

    def target(self, bottom: Shape) -> Shape:
        """The top's shape for a bottom of shape `bottom`."""
        dims = list(self.param.reshape_param.shape.dim)
        middle = [bottom[self.first + i] if dim == 0 and self.first + i < len(bottom) else dim
                  for i, dim in enumerate(dims)]
        known = [*bottom[: self.first], *middle, *bottom[self.last :]]
        if -1 in known:
            rest = math.prod(dim for dim in known if dim != -1)
            if rest and math.prod(bottom) % rest == 0:
                known[known.index(-1)] = math.prod(bottom) // rest
        return tuple(known)

    def forward(self, bottom: Tensors) -> Tensors:
        return [bottom[0].reshape(self.target(tuple(bottom[0].shape)))]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        dims = list(self.param.reshape_param.shape.dim)
        kept = graph.shapes[bottom[0]][self.last :]
        if self.last == self.first + len(dims):
            kept = (0,) * len(kept)  # they stay in their places, where ONNX too copies the bottom's for a 0
        if -1 in kept:
            raise self.error("axes that move and whose size is only known at run time have no ONNX form here")
        return [graph.node("Reshape", [*bottom, graph.constant([0] * self.first + [*dims, *kept])])]
