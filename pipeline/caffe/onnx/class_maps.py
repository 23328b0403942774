"""Class activation maps as a second output of a net's ONNX form: where in an image each class's score comes from.

Zhou, Khosla, Lapedriza, Oliva, Torralba: Learning Deep Features for Discriminative Localization, 2016. A net that ends
in the mean over all places, one InnerProduct and Softmax has the score of class c as the mean of its map
M_c(y, x) = sum_k w_ck f_k(y, x) + b_c, so that the map is exact and needs no gradient.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.caffe.layers import Layer
from pipeline.caffe.net import Net
from pipeline.caffe.proto.caffe_pb2 import PoolingParameter

NAME = "class_maps"  # of the output, (N, classes, h, w)
PASSING = ("Dropout", "Flatten", "Split")  # in TEST they change no value


def with_class_maps(net: Net, model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, with the output NAME where the net has the form that gives it; else the model itself."""
    ending = _ending(net)
    if ending is None:
        return model
    pooling, product = ending
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    pooled = next(node for node in graph.node if node.name.startswith(f"{pooling.param.name}:"))
    weights, *bias = (blob.detach().cpu().numpy() for blob in product.blobs)
    classes = len(weights)
    constants: dict[str, np.ndarray] = {f"{NAME}:weight": weights.reshape(classes, -1, 1, 1)}
    if bias:
        constants[f"{NAME}:bias"] = bias[0].reshape(classes)
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name) for name, array in constants.items()
    )
    graph.node.append(
        helper.make_node("Conv", [pooled.input[0], *constants], [NAME], f"{NAME}:Conv", kernel_shape=[1, 1])
    )
    _, _, *size = net.shapes[pooling.param.bottom[0]]
    batch = graph.output[0].type.tensor_type.shape.dim[0]
    value = helper.make_tensor_value_info(NAME, TensorProto.FLOAT, [batch.dim_param or batch.dim_value, classes, *size])
    graph.output.append(value)
    onnx.checker.check_model(changed, full_check=True)
    return changed


def _ending(net: Net) -> tuple[Layer, Layer] | None:
    """The layers Pooling and InnerProduct of a net that ends in the mean over all places, InnerProduct and Softmax."""
    softmax = _maker(net, net.outputs[0], len(net.layers))
    if softmax is None or net.layers[softmax].type != "Softmax":
        return None
    product = _maker(net, net.layers[softmax].param.bottom[0], softmax)
    if product is None or net.layers[product].type != "InnerProduct":
        return None
    if net.layers[product].param.inner_product_param.transpose:
        return None
    pooling = _maker(net, net.layers[product].param.bottom[0], product)
    if pooling is None or not _is_mean(net, net.layers[pooling]):
        return None
    return net.layers[pooling], net.layers[product]


def _maker(net: Net, blob: str, before: int) -> int | None:
    """The place of the layer that made a blob, those passed over that change no value."""
    for place in range(before - 1, -1, -1):
        layer = net.layers[place]
        if blob in layer.param.top:
            if layer.type not in PASSING:
                return place
            blob = layer.param.bottom[0]
    return None


def _is_mean(net: Net, layer: Layer) -> bool:
    """Whether a layer takes the mean over all places of images."""
    if layer.type != "Pooling" or len(layer.param.bottom) != 1:
        return False
    param, shape = layer.param.pooling_param, net.shapes[layer.param.bottom[0]]
    if param.pool != PoolingParameter.AVE or len(shape) != 4:
        return False
    if param.global_pooling:
        return True
    kernel = (param.kernel_h or param.kernel_size, param.kernel_w or param.kernel_size)
    return kernel == shape[2:] and not (param.pad or param.pad_h or param.pad_w)
