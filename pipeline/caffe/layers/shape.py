"""Layers that copy, cut, join and reshape without arithmetic."""

import math
from itertools import pairwise

import torch

from pipeline.caffe.layers.layer import Graph, Layer, Shape, Tensors, register
from pipeline.caffe.proto.blob_proto import MAX_AXES


@register("Split")
class Split(Layer):
    """The bottom again under every top's name; gradients add up."""

    tops = (1, None)
    tops_are_bottom = True
    works_in_place = False

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
        if param.HasField("axis") and param.HasField("concat_dim"):
            raise self.error("both axis and concat_dim are given")
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
    """Axes `axis` to `end_axis`, both counted in, become one; an axis of 1 comes in where `end_axis` is one before."""

    tops_are_bottom = True
    works_in_place = False

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.flatten_param
        self.first = self.axis(param.axis, bottom[0])
        self.last = self.axis(param.end_axis, bottom[0], "end_axis")
        if self.last < self.first - 1:
            raise self.error(f"end_axis {param.end_axis} lies before axis {param.axis}")
        flat = math.prod(bottom[0][self.first : self.last + 1])
        return [(*bottom[0][: self.first], flat, *bottom[0][self.last + 1 :])]

    def forward(self, bottom: Tensors) -> Tensors:
        if self.last < self.first:
            return [bottom[0].unsqueeze(self.first)]
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

    tops_are_bottom = True
    works_in_place = False

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.reshape_param
        axes = len(bottom[0])
        self.first = self.axis(param.axis, (*bottom[0], 1)) if param.axis >= 0 else axes + param.axis + 1
        self.last = axes if param.num_axes == -1 else self.first + param.num_axes
        if not 0 <= self.first <= self.last <= axes or list(param.shape.dim).count(-1) > 1:
            raise self.error(
                f"axis {param.axis}, num_axes {param.num_axes}, dims {list(param.shape.dim)} do not fit "
                f"a bottom of shape {bottom[0]}"
            )
        top = self.target(bottom[0])
        if math.prod(top) != math.prod(bottom[0]) or -1 in top:
            raise self.error(
                f"bottom of shape {bottom[0]}, {math.prod(bottom[0])} values, cannot take the shape {top}"
                + (", whose known axes do not divide them" if -1 in top else f" of {math.prod(top)}")
            )
        return [top]

    def target(self, bottom: Shape) -> Shape:
        """The top's shape for a bottom of shape `bottom`."""
        dims = list(self.param.reshape_param.shape.dim)
        middle = [
            bottom[self.first + i] if dim == 0 and self.first + i < len(bottom) else dim for i, dim in enumerate(dims)
        ]
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


@register("Permute")
class Permute(Layer):
    """The bottom's axes in another order: axis i of the top is axis order[i] of the bottom.

    Axes that `order` does not name follow in their own order (weiliu89/caffe, permute_layer.cpp).
    """

    works_in_place = False

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        order, axes = list(self.param.permute_param.order), len(bottom[0])
        if len(order) > axes or len(set(order)) < len(order) or max(order, default=0) >= axes > 0:
            raise self.error(
                f"order {order[:MAX_AXES]} where different axes of a bottom of shape {bottom[0]} were expected"
            )
        self.order = [*order, *(axis for axis in range(axes) if axis not in order)]
        return [tuple(bottom[0][axis] for axis in self.order)]

    def forward(self, bottom: Tensors) -> Tensors:
        return [bottom[0].permute(self.order)]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        return [graph.node("Transpose", bottom, perm=self.order)]


@register("Slice")
class Slice(Layer):
    """The bottom cut along `axis` (or the older slice_dim) before every slice_point, or into equal parts."""

    tops = (1, None)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.slice_param
        if param.HasField("axis") and param.HasField("slice_dim"):
            raise self.error("both axis and slice_dim are given")
        self.along = self.axis(param.slice_dim if param.HasField("slice_dim") else param.axis, bottom[0])
        size, parts = bottom[0][self.along], len(self.param.top)
        points = [0, *param.slice_point, size]
        if not param.slice_point:
            if size % parts:
                raise self.error(
                    f"{parts} tops do not divide the {size} of axis {self.along} of a bottom of shape "
                    f"{bottom[0]}; give slice_point"
                )
            points = [size // parts * part for part in range(parts + 1)]
        if len(points) != parts + 1 or any(end <= start for start, end in pairwise(points)):
            raise self.error(
                f"slice_point {list(param.slice_point)} where {parts - 1} rising numbers between 0 and "
                f"{size} were expected"
            )
        self.parts = list(pairwise(points))
        return [(*bottom[0][: self.along], end - start, *bottom[0][self.along + 1 :]) for start, end in self.parts]

    def forward(self, bottom: Tensors) -> Tensors:
        return [bottom[0].narrow(self.along, start, end - start) for start, end in self.parts]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        if graph.shapes[bottom[0]][self.along] == -1:
            if not self.param.slice_param.slice_point:
                return graph.node_outputs("Split", bottom, len(self.parts), axis=self.along)
            raise self.error("slice_point on an axis whose size is only known at run time has no ONNX form here")
        return [
            graph.node("Slice", [*bottom, *(graph.constant([number]) for number in (start, end, self.along))])
            for start, end in self.parts
        ]


@register("Crop")
class Crop(Layer):
    """The first bottom cut to the second's size on every axis from `axis` on, starting at `offset`.

    One offset is for all those axes, none is 0. The second bottom gives no more than its shape; where it has more axes,
    the last do not count.
    """

    bottoms = (2, 2)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.crop_param
        whole, wanted = bottom
        self.first = self.axis(param.axis, whole)
        axes = len(whole) - self.first
        offset = list(param.offset) or [0]
        if len(offset) not in (1, axes) or len(wanted) < len(whole):
            raise self.error(
                f"{len(param.offset)} offsets and bottoms of shapes {whole} and {wanted} where 0, 1 or "
                f"{axes} offsets and at least as many axes in the second as in the first were expected"
            )
        self.offset = offset * (axes if len(offset) == 1 else 1)
        for axis, start in enumerate(self.offset, self.first):
            if start + wanted[axis] > whole[axis]:
                raise self.error(
                    f"{wanted[axis]} from offset {start} do not lie within axis {axis} of a bottom of shape {whole}"
                )
        return [(*whole[: self.first], *wanted[self.first : len(whole)])]

    def forward(self, bottom: Tensors) -> Tensors:
        top = bottom[0]
        for axis, start in enumerate(self.offset, self.first):
            top = top.narrow(axis, start, bottom[1].shape[axis])
        return [top]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        size = graph.node("Shape", [bottom[1]], start=self.first, end=self.first + len(self.offset))
        starts = graph.constant(self.offset)
        axes = graph.constant(list(range(self.first, self.first + len(self.offset))))
        return [graph.node("Slice", [bottom[0], starts, graph.node("Add", [size, starts]), axes])]


@register("Tile")
class Tile(Layer):
    """The bottom `tiles` times over along `axis`."""

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.tile_param
        if param.tiles < 1:
            raise self.error(f"tiles {param.tiles} where at least 1 was expected")
        axis = self.axis(param.axis, bottom[0])
        self.repeats = [param.tiles if index == axis else 1 for index in range(len(bottom[0]))]
        return [tuple(size * count for size, count in zip(bottom[0], self.repeats, strict=True))]

    def forward(self, bottom: Tensors) -> Tensors:
        return [bottom[0].repeat(self.repeats)]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        return [graph.node("Tile", [*bottom, graph.constant(self.repeats)])]
