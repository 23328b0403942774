"""Layers that read a sequence step by step. Steps are on axis 0, sequences on axis 1."""

import math
from typing import Any, ClassVar

import torch

from pipeline.caffe.layers.layer import Graph, Layer, Shape, Tensors, register


def lstm_unit(cell: torch.Tensor, gates: torch.Tensor, cont: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One step: the next cell and hidden values (..., H) of the cell (..., H), its gates (..., 4 H) and cont (...).

    The gates are, in this order, those of input, forgetting and output and the new values.
    """
    inputs, forget, outputs, new = gates.chunk(4, -1)
    kept = torch.where(cont.unsqueeze(-1) == 0, 0, cont.unsqueeze(-1) * torch.sigmoid(forget) * cell)
    cell = kept + torch.sigmoid(inputs) * torch.tanh(new)
    return cell, torch.sigmoid(outputs) * torch.tanh(cell)


def onnx_lstm_unit(graph: Graph, cell: str, gates: str, cont: str) -> list[str]:
    """What lstm_unit does, for values of the graph."""
    inputs, forget, outputs, new = graph.node_outputs("Split", [gates], 4, axis=-1)
    keep = graph.node("Mul", [graph.node("Unsqueeze", [cont, graph.constant([-1])]), graph.node("Sigmoid", [forget])])
    added = graph.node("Mul", [graph.node("Sigmoid", [inputs]), graph.node("Tanh", [new])])
    cell = graph.node("Add", [graph.node("Mul", [keep, cell]), added])
    return [cell, graph.node("Mul", [graph.node("Sigmoid", [outputs]), graph.node("Tanh", [cell])])]


@register("LSTMUnit")
class LSTMUnit(Layer):
    """One step of an LSTM. bottom cell (1, N, H), gates (1, N, 4 H), cont (1, N) -> cell (1, N, H), hidden (1, N, H).

    The gates are input, forget, output and new values (caffe/layers/lstm_unit_layer.cpp); where cont is 0 a sequence
    begins, and the cell is forgotten.
    """

    bottoms = (3, 3)
    labels = (2,)
    tops = (2, 2)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        cell, gates, cont = bottom
        if len(cell) != 3 or cell[0] != 1 or gates != (*cell[:2], 4 * cell[2]) or cont != cell[:2]:
            raise self.error(
                f"bottoms of shapes {cell}, {gates}, {cont} where (1, N, H), (1, N, 4 H), (1, N) were expected"
            )
        return [cell, cell]

    def forward(self, bottom: Tensors) -> Tensors:
        cell, gates, cont = bottom
        return list(lstm_unit(cell, gates, cont.detach()))

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        return onnx_lstm_unit(graph, *bottom)


class Recurrent(Layer):
    """bottom x (T, N, ...), cont (T, N)[, x_static (N, ...)][, hidden...] -> top (T, N, num_output)[, hidden...].

    cont is 0 where a sequence begins and 1 where it goes on. What is hidden after the last step goes on into the
    first of the next batch, as much as cont lets it; with expose_hidden it is tops (1, N, num_output) instead, and
    what it is before the first step bottoms. Gradients stop at both ends of a batch, as in Caffe.
    """

    bottoms = (2, 5)
    labels = (1,)
    tops = (1, 3)
    hidden_count: ClassVar[int]
    input_gates: ClassVar[int]  # how many numbers each hidden unit takes from the input

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.recurrent_param
        exposed = self.hidden_count if param.expose_hidden else 0
        if param.num_output < 1:
            raise self.error(f"num_output {param.num_output} where at least 1 was expected")
        if len(bottom) - exposed not in (2, 3) or len(self.param.top) != 1 + exposed:
            raise self.error(
                f"{len(bottom)} bottoms and {len(self.param.top)} tops where x, cont, perhaps x_static "
                f"and {exposed} hidden ones, and 1 top and {exposed} hidden ones, were expected"
            )
        x, cont, *others = bottom
        self.has_static = len(others) > exposed
        hidden = (1, *x[1:2], param.num_output)
        static, inputs = others[: self.has_static], others[self.has_static :]
        if len(x) < 2 or not x[0] or cont != x[:2] or any(shape[:1] != x[1:2] for shape in static):
            raise self.error(
                f"bottoms of shapes {', '.join(map(str, bottom))} where (T, N, ...), (T, N) and, for "
                "x_static, (N, ...) were expected"
            )
        if any(shape != hidden for shape in inputs):
            raise self.error(f"hidden bottoms of shapes {', '.join(map(str, inputs))} where {hidden} was expected")
        units = self.input_gates * param.num_output
        self.add_blob((units, math.prod(x[2:])), param.weight_filler)
        self.add_blob((units,), param.bias_filler)
        for shape in static:
            self.add_blob((units, math.prod(shape[1:])), param.weight_filler)
        self.add_blob((units, param.num_output), param.weight_filler)
        self.hidden: Tensors = []
        return [(*x[:2], param.num_output), *[hidden] * exposed]

    def step(self, inputs: torch.Tensor, cont: torch.Tensor, hidden: Tensors) -> tuple[torch.Tensor, Tensors]:
        """What comes out (N, num_output) of one step and is hidden after it, of the inputs (N, units)."""
        raise NotImplementedError

    def forward(self, bottom: Tensors) -> Tensors:
        x, cont, *others = bottom
        outputs = self.param.recurrent_param.num_output
        exposed = self.param.recurrent_param.expose_hidden
        weight, bias, *blobs = self.blobs
        inputs = x.reshape(*x.shape[:2], math.prod(x.shape[2:])) @ weight.t() + bias
        if self.has_static:
            inputs = inputs + others.pop(0).flatten(1) @ blobs.pop(0).t()
        hidden = [value.detach()[0] for value in others] if exposed else self.hidden
        if not exposed and (not hidden or len(hidden[0]) != x.shape[1]):
            hidden = [x.new_zeros(x.shape[1], outputs) for _ in range(self.hidden_count)]
        steps = []
        for step_inputs, step_cont in zip(inputs, cont.detach(), strict=True):
            top, hidden = self.step(step_inputs, step_cont, hidden)
            steps.append(top)
        self.hidden = [value.detach().float() for value in hidden]
        return [torch.stack(steps), *([value.unsqueeze(0) for value in self.hidden] if exposed else [])]

    def onnx_step(self, graph: Graph, hidden: list[str], items: list[str]) -> tuple[list[str], str]:
        """What step does, for values of the graph; `items` are its inputs and cont."""
        raise NotImplementedError

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        # What a run leaves hidden is gone with it, unless it is exposed: each begins as the net's first batch does.
        x, cont, *others = bottom
        outputs = self.param.recurrent_param.num_output
        weight, bias, *blobs = self.blobs
        sequences = graph.shapes[x][1]
        vectors = graph.node("Reshape", [x, graph.constant([0, 0, weight.shape[1]])])
        inputs = graph.node("Add", [graph.node("MatMul", [vectors, graph.constant(weight.t())]), graph.constant(bias)])
        if self.has_static:
            static = graph.node("Reshape", [others.pop(0), graph.constant([sequences, blobs[0].shape[1]])])
            inputs = graph.node("Add", [inputs, graph.node("MatMul", [static, graph.constant(blobs[0].t())])])
        if others:
            hidden = [graph.node("Reshape", [value, graph.constant([sequences, outputs])]) for value in others]
        elif sequences == -1:
            count = graph.node("Shape", [x], start=1, end=2)
            size = graph.node("Concat", [count, graph.constant([outputs])], axis=0)
            hidden = [graph.node("Expand", [graph.constant(torch.zeros(1, 1)), size])] * self.hidden_count
        else:
            hidden = [graph.constant(torch.zeros(sequences, outputs))] * self.hidden_count
        *last, top = graph.scan(hidden, [inputs, cont], self.onnx_step)
        return [top, *(graph.node("Unsqueeze", [value, graph.constant([0])]) for value in last if others)]

    def multiply_adds(self, bottom: list[Shape], top: list[Shape]) -> int:
        steps, sequences = bottom[1]
        weights = [blob.numel() for blob in self.blobs if blob.ndim == 2]
        static = weights.pop(1) if self.has_static else 0  # once a sequence
        return sequences * (steps * sum(weights) + static)

    @staticmethod
    def onnx_kept(graph: Graph, hidden: str, cont: str) -> str:
        """What is hidden, where a sequence goes on."""
        return graph.node("Mul", [hidden, graph.node("Unsqueeze", [cont, graph.constant([-1])])])

    def state(self) -> dict[str, Any]:
        return {"hidden": [value.tolist() for value in self.hidden]}

    def restore(self, state: dict[str, Any]) -> None:
        hidden = [torch.tensor(value, dtype=torch.float32) for value in state["hidden"]]
        shapes = [tuple(value.shape) for value in hidden]
        wanted = [(*shapes[0][:1], self.param.recurrent_param.num_output)] * self.hidden_count if shapes else []
        if shapes != wanted:
            raise ValueError(f"hidden values of shapes {shapes}")
        self.hidden = [value.to(self.blobs[0].device) for value in hidden]


@register("LSTM")
class LSTM(Recurrent):
    """A long short-term memory: LSTMUnit's steps, its gates W_x x + b [+ W_static x_static] + W_h h.

    Bottoms and tops are Recurrent's, the hidden ones h and then the cell. Blobs: W_x (4 num_output, inputs),
    b (4 num_output,), with x_static W_static, and W_h (4 num_output, num_output).
    """

    hidden_count = 2
    input_gates = 4

    def step(self, inputs: torch.Tensor, cont: torch.Tensor, hidden: Tensors) -> tuple[torch.Tensor, Tensors]:
        previous, cell = hidden
        gates = inputs + (previous * cont[:, None]) @ self.blobs[-1].t()
        cell, top = lstm_unit(cell, gates, cont)
        return top, [top, cell]

    def onnx_step(self, graph: Graph, hidden: list[str], items: list[str]) -> tuple[list[str], str]:
        (inputs, cont), (previous, cell) = items, hidden
        recurring = [self.onnx_kept(graph, previous, cont), graph.constant(self.blobs[-1].t())]
        gates = graph.node("Add", [inputs, graph.node("MatMul", recurring)])
        cell, top = onnx_lstm_unit(graph, cell, gates, cont)
        return [top, cell], top


@register("RNN")
class RNN(Recurrent):
    """h = tanh(W_h h + W_x x + b [+ W_static x_static]), out of which comes tanh(W_o h + b_o).

    Bottoms and tops are Recurrent's. Blobs: W_x (num_output, inputs), b (num_output,), with x_static W_static,
    W_h and W_o (num_output, num_output), b_o (num_output,).
    """

    hidden_count = 1
    input_gates = 1

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        tops = super().setup(bottom)
        param = self.param.recurrent_param
        self.add_blob((param.num_output, param.num_output), param.weight_filler)
        self.add_blob((param.num_output,), param.bias_filler)
        return tops

    def step(self, inputs: torch.Tensor, cont: torch.Tensor, hidden: Tensors) -> tuple[torch.Tensor, Tensors]:
        from_hidden, to_output, output_bias = self.blobs[-3:]
        state = torch.tanh(inputs + (hidden[0] * cont[:, None]) @ from_hidden.t())
        return torch.tanh(state @ to_output.t() + output_bias), [state]

    def onnx_step(self, graph: Graph, hidden: list[str], items: list[str]) -> tuple[list[str], str]:
        inputs, cont = items
        from_hidden, to_output, output_bias = self.blobs[-3:]
        recurring = [self.onnx_kept(graph, hidden[0], cont), graph.constant(from_hidden.t())]
        state = graph.node("Tanh", [graph.node("Add", [inputs, graph.node("MatMul", recurring)])])
        output = graph.node("MatMul", [state, graph.constant(to_output.t())])
        output = graph.node("Add", [output, graph.constant(output_bias)])
        return [state], graph.node("Tanh", [output])
