"""The layer that is a blob."""

from pipeline.caffe.layers.layer import Graph, Layer, Shape, Tensors, register
from pipeline.caffe.proto.caffe_pb2 import FillerParameter


@register("Parameter")
class Parameter(Layer):
    """A learned blob of the given shape, 0 at first, as the top."""

    bottoms = (0, 0)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        shape = tuple(self.param.parameter_param.shape.dim)
        self.add_blob(shape, FillerParameter(type="constant", value=0))
        return [shape]

    def forward(self, bottom: Tensors) -> Tensors:
        return [self.blobs[0].view_as(self.blobs[0])]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        value = graph.constant(self.blobs[0])
        graph.shapes[value] = tuple(self.blobs[0].shape)  # of which none is the batch
        return [value]
