"""Layers that choose: items of a batch, rows of a table, the largest values."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from pipeline.caffe.layers.layer import Graph, Layer, Shape, Tensors, register


class Lookup(Layer):
    """A layer one of whose bottoms holds whole numbers that count from 0."""

    def indices(self, bottom: torch.Tensor, limit: int) -> torch.Tensor:
        """The bottom's numbers as int64. Raises LayerError when one is not below `limit`, or below 0."""
        indices = bottom.long()
        wrong = indices[(indices < 0) | (indices >= limit)]
        if len(wrong):
            raise self.error(f"index {int(wrong[0])} where 0 to {limit - 1} were expected")
        return indices


@register("BatchReindex")
class BatchReindex(Lookup):
    """Items of a batch in another order, some repeated or left out.

    bottom (N, ...), indices (M,) into axis 0 -> top (M, ...).
    """

    bottoms = (2, 2)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        if not bottom[0] or len(bottom[1]) != 1:
            raise self.error(f"bottoms of shapes {bottom[0]} and {bottom[1]} where (N, ...) and (M,) were expected")
        return [(*bottom[1], *bottom[0][1:])]

    def forward(self, bottom: Tensors) -> Tensors:
        return [bottom[0].index_select(0, self.indices(bottom[1], len(bottom[0])))]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        return [graph.node("Gather", [bottom[0], graph.cast(bottom[1], np.int64)], axis=0)]


@register("Filter")
class Filter(Layer):
    """The items of a batch where the last bottom is not 0. bottoms (N, ...)..., selector (N, 1...) -> tops (M, ...)...

    M is known when the net runs; until then tops have their bottoms' shapes.
    """

    bottoms = (2, None)
    tops = (1, None)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        *data, selector = bottom
        if len(self.param.top) != len(data):
            raise self.error(
                f"{len(self.param.top)} tops where one for each bottom but the last ({len(data)}) was expected"
            )
        if not selector or any(size != 1 for size in selector[1:]) or any(shape[:1] != selector[:1] for shape in data):
            raise self.error(
                f"bottoms of shapes {', '.join(map(str, bottom))} where (N, ...) and, last, (N, 1...) were expected"
            )
        return data

    def forward(self, bottom: Tensors) -> Tensors:
        *data, selector = bottom
        chosen = selector.reshape(-1).nonzero()[:, 0]
        return [value.index_select(0, chosen) for value in data]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        *data, selector = bottom
        chosen = graph.cast(graph.node("Reshape", [selector, graph.constant([-1])]), np.bool_)
        return [graph.node("Compress", [value, chosen], axis=0) for value in data]


@register("Embed")
class Embed(Lookup):
    """Rows of a learned table. bottom (any shape) of numbers below input_dim -> top (that shape, num_output).

    Blobs: weight (input_dim, num_output) and, unless bias_term is false, bias (num_output,), added to every row.
    """

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.embed_param
        if param.num_output < 1 or param.input_dim < 1:
            raise self.error(
                f"num_output {param.num_output}, input_dim {param.input_dim} where at least 1 was expected"
            )
        self.add_blob((param.input_dim, param.num_output), param.weight_filler)
        if param.bias_term:
            self.add_blob((param.num_output,), param.bias_filler)
        return [(*bottom[0], param.num_output)]

    def forward(self, bottom: Tensors) -> Tensors:
        weight, *bias = self.blobs
        rows = F.embedding(self.indices(bottom[0], len(weight)), weight)
        return [rows + bias[0] if bias else rows]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        weight, *bias = map(graph.constant, self.blobs)
        rows = graph.node("Gather", [weight, graph.cast(bottom[0], np.int64)], axis=0)
        return [graph.node("Add", [rows, *bias]) if bias else rows]


@register("ArgMax")
class ArgMax(Layer):
    """Where the top_k largest values are; of equal ones the last comes first. No gradient passes.

    With `axis`: bottom -> top of the same shape but top_k on that axis, the places, or with out_max_val the values.
    Without: every item as one vector, bottom (N, ...) -> top (N, 1, top_k), the places, or (N, 2, top_k), with
    out_max_val, the places and then the values; one more axis of 1 for each beyond three that the bottom has.
    """

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.argmax_param
        shape = bottom[0]
        self.whole = not param.HasField("axis")
        if self.whole and not shape:
            raise self.error("a bottom of no axes where (N, ...) was expected")
        self.along = 1 if self.whole else self.axis(param.axis, shape)
        values = math.prod(shape[1:]) if self.whole else shape[self.along]
        if not 1 <= param.top_k <= values:
            raise self.error(f"top_k {param.top_k} where there are {values} values")
        self.trailing_axes = max(len(shape) - 3, 0)
        if self.whole:
            return [(shape[0], 2 if param.out_max_val else 1, param.top_k, *[1] * self.trailing_axes)]
        return [(*shape[: self.along], param.top_k, *shape[self.along + 1 :])]

    def forward(self, bottom: Tensors) -> Tensors:
        param = self.param.argmax_param
        x = bottom[0].reshape(len(bottom[0]), math.prod(bottom[0].shape[1:])) if self.whole else bottom[0]
        # Backwards, since of equal values sort puts the earlier first.
        values, order = torch.sort(x.flip(self.along), stable=True, dim=self.along, descending=True)
        values = values.narrow(self.along, 0, param.top_k)
        places = (x.shape[self.along] - 1 - order.narrow(self.along, 0, param.top_k)).to(x.dtype)
        if self.whole:
            top = torch.stack([places, values] if param.out_max_val else [places], 1)
            top = top.reshape(*top.shape, *[1] * self.trailing_axes)
        else:
            top = values if param.out_max_val else places
        return [self.without_gradient(top, *bottom)]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        param = self.param.argmax_param
        shape = graph.shapes[bottom[0]]
        if -1 in (shape[1:] if self.whole else shape[self.along : self.along + 1]):
            raise self.error("places on an axis whose size is only known at run time have no ONNX form here")
        size = math.prod(shape[1:]) if self.whole else shape[self.along]
        if self.whole:
            bottom = [graph.node("Reshape", [*bottom, graph.constant([0, size])])]
        # Backwards, since of equal values TopK puts the earlier first.
        flipped = graph.node(
            "Slice", [*bottom, *(graph.constant([number]) for number in (-1, -size - 1, self.along, -1))]
        )
        values, order = graph.node_outputs("TopK", [flipped, graph.constant([param.top_k])], 2, axis=self.along)
        places = graph.node("Sub", [graph.constant(np.array(size - 1)), graph.cast(order, np.float32)])
        if not self.whole:
            return [values if param.out_max_val else places]
        rows = [
            graph.node("Reshape", [value, graph.constant([0, 1, param.top_k, *[1] * self.trailing_axes])])
            for value in ([places, values] if param.out_max_val else [places])
        ]
        return [graph.node("Concat", rows, axis=1)]
