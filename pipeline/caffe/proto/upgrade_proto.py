"""Upgrades the nets of older Caffes to the form of 1.0 when they are read (caffe/util/upgrade_proto.cpp).

In V0, of 2013, a net has `layers { layer { type: "conv" ... } }`, with one message for all types and padding layers of
their own; in V1, of 2014, `layers { type: CONVOLUTION convolution_param { ... } }`. Later came changes of parts: fields
of data layers moved to transform_param, a net's `input` became a layer, and BatchNorm's blobs are no longer learned.

Caffe drops, with an error in its log at most, what it cannot upgrade, and reads past the end of too few input_dim; here
either is an UpgradeError.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.caffe.proto.caffe_pb2 import LayerParameter, NetParameter, V1LayerParameter


class UpgradeError(InputError):
    """A net in an older form that says what the form of today cannot. `layer` is the layer's name, "" for the net."""

    def __init__(self, layer: str, message: str) -> None:
        super().__init__(f"layer '{layer}': {message}" if layer else message)
        self.layer = layer


@dataclass(frozen=True)
class V0Type:
    """What becomes of a V0 layer: its V1 type, and where in which message its fields go."""

    type: str
    message: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


_BATCHES = {"source": "source", "batchsize": "batch_size"}
_WEIGHTS = {
    "num_output": "num_output",
    "biasterm": "bias_term",
    "weight_filler": "weight_filler",
    "bias_filler": "bias_filler",
}
_WINDOWS = {"pad": "pad", "kernelsize": "kernel_size", "stride": "stride"}

V0_TYPES = {
    "accuracy": V0Type("ACCURACY"),
    "bnll": V0Type("BNLL"),
    "concat": V0Type("CONCAT", "concat_param", {"concat_dim": "concat_dim"}),
    "conv": V0Type("CONVOLUTION", "convolution_param", {**_WEIGHTS, **_WINDOWS, "group": "group"}),
    "data": V0Type("DATA", "data_param", {**_BATCHES, "rand_skip": "rand_skip"}),
    "dropout": V0Type("DROPOUT", "dropout_param", {"dropout_ratio": "dropout_ratio"}),
    "euclidean_loss": V0Type("EUCLIDEAN_LOSS"),
    "flatten": V0Type("FLATTEN"),
    "hdf5_data": V0Type("HDF5_DATA", "hdf5_data_param", _BATCHES),
    "hdf5_output": V0Type("HDF5_OUTPUT"),
    "im2col": V0Type("IM2COL"),
    "images": V0Type(
        "IMAGE_DATA",
        "image_data_param",
        {
            **_BATCHES,
            "rand_skip": "rand_skip",
            "shuffle_images": "shuffle",
            "new_height": "new_height",
            "new_width": "new_width",
        },
    ),
    "infogain_loss": V0Type("INFOGAIN_LOSS", "infogain_loss_param", {"source": "source"}),
    "innerproduct": V0Type("INNER_PRODUCT", "inner_product_param", _WEIGHTS),
    "lrn": V0Type("LRN", "lrn_param", {name: name for name in ("local_size", "alpha", "beta", "k")}),
    "multinomial_logistic_loss": V0Type("MULTINOMIAL_LOGISTIC_LOSS"),
    "pool": V0Type("POOLING", "pooling_param", {**_WINDOWS, "pool": "pool"}),
    "relu": V0Type("RELU"),
    "sigmoid": V0Type("SIGMOID"),
    "softmax": V0Type("SOFTMAX"),
    "softmax_loss": V0Type("SOFTMAX_LOSS"),
    "split": V0Type("SPLIT"),
    "tanh": V0Type("TANH"),
    "window_data": V0Type(
        "WINDOW_DATA",
        "window_data_param",
        {
            **_BATCHES,
            "det_fg_threshold": "fg_threshold",
            "det_bg_threshold": "bg_threshold",
            "det_fg_fraction": "fg_fraction",
            "det_context_pad": "context_pad",
            "det_crop_mode": "crop_mode",
        },
    ),
}
# Fields that a V0 layer of any type may have: those of its data, and those that V1 has under the same name.
_V0_TRANSFORM = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}
_V0_LAYER = ("name", "blobs", "blobs_lr", "weight_decay")
_V0_NET = ("name", "layers", "input", "input_dim", "force_backward")

_V1_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}
# What V1 says of a layer's blobs in lists, and where each blob's ParamSpec says it.
_V1_PARAM_SPEC = {"param": "name", "blob_share_mode": "share_mode", "blobs_lr": "lr_mult", "weight_decay": "decay_mult"}

_TRANSFORMED = {
    V1LayerParameter.DATA: "data_param",
    V1LayerParameter.IMAGE_DATA: "image_data_param",
    V1LayerParameter.WINDOW_DATA: "window_data_param",
}
_TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")

_INPUT_AXES = 4  # input_dim has four numbers an input


def upgrade_net(net: NetParameter, name: str) -> bool:
    """Bring a net, with the blobs it may have, to the form of Caffe 1.0, in place; return whether it was in another.

    `name` stands for the net in the log, which tells of each form that was found. Raises UpgradeError for a net that
    has both `layer` and `layers`, and for one that says what cannot be upgraded.
    """
    if net.layer and net.layers:
        raise UpgradeError(
            net.layers[0].name or net.layers[0].layer.name,
            "'layers', the form of before 2015, stands beside 'layer'; write all layers as 'layer'",
        )
    upgraded = False
    for form, upgrade in _UPGRADES.items():
        if upgrade(net):
            log.info("%s: upgraded, as Caffe does, what uses deprecated %s", name, form)
            upgraded = True
    return upgraded


def _upgrade_v0(net: NetParameter) -> bool:
    if not any(layer.HasField("layer") for layer in net.layers):
        return False
    for descriptor, _ in net.ListFields():
        if descriptor.name not in _V0_NET:
            raise UpgradeError("", f"a net of V0 layers has '{descriptor.name}', which came later; remove it")
    folded = [_upgrade_v0_layer(layer) for layer in _fold_padding(net)]
    del net.layers[:]
    net.layers.extend(folded)
    return True


def _fold_padding(net: NetParameter) -> Iterator[V1LayerParameter]:
    """Give each convolution and pooling the pad of the padding layer before it, and leave out the padding layers."""
    makers: dict[str, V1LayerParameter | None] = dict.fromkeys(net.input)
    for connection in net.layers:
        layer = connection.layer
        for index, bottom in enumerate(connection.bottom):
            if bottom not in makers:
                raise UpgradeError(layer.name, f"bottom '{bottom}' is the top of no layer before it")
            maker = makers[bottom]
            if maker is None or maker.layer.type != "padding":
                continue
            if layer.type not in ("conv", "pool"):
                raise UpgradeError(
                    layer.name,
                    f"type '{layer.type}' after padding layer '{maker.layer.name}', where conv or pool was expected",
                )
            if not len(connection.bottom) == len(maker.bottom) == len(maker.top) == 1:
                raise UpgradeError(
                    layer.name,
                    f"it and padding layer '{maker.layer.name}' must have one bottom each, "
                    "and the padding layer one top",
                )
            connection.bottom[index] = maker.bottom[0]
            layer.pad = maker.layer.pad
        makers.update(dict.fromkeys(connection.top, connection))
        if layer.type != "padding":
            yield connection


def _upgrade_v0_layer(connection: V1LayerParameter) -> V1LayerParameter:
    old = connection.layer
    if old.type not in V0_TYPES:
        raise UpgradeError(
            old.name or connection.name,
            f"type '{old.type}' is none of V0's; it has {', '.join(sorted(V0_TYPES))}, padding",
        )
    for descriptor, _ in connection.ListFields():
        if descriptor.name not in ("bottom", "top", "layer"):
            raise UpgradeError(
                old.name,
                f"'{descriptor.name}' stands beside a V0 'layer', where only bottom and top "
                "may; write the layer in the form of today",
            )
    target = V0_TYPES[old.type]
    layer = V1LayerParameter(bottom=connection.bottom, top=connection.top, type=target.type)
    for descriptor, _ in old.ListFields():
        name = descriptor.name
        if name in _V0_LAYER:
            _copy_field(old, descriptor, layer, name)
        elif name in _V0_TRANSFORM:
            _copy_field(old, descriptor, layer.transform_param, _V0_TRANSFORM[name])
        elif name in target.fields:
            _copy_field(old, descriptor, getattr(layer, target.message), target.fields[name])
        elif name == "hdf5_output_param" and old.type == "hdf5_output":
            _copy_field(old, descriptor, layer, name)
        elif name != "type":
            raise UpgradeError(old.name, f"'{name}' is no field of V0's type '{old.type}'; remove it")
    return layer


def _upgrade_transform(net: NetParameter) -> bool:
    layers = [(layer, getattr(layer, _TRANSFORMED[layer.type])) for layer in net.layers if layer.type in _TRANSFORMED]
    if not any(param.HasField(name) for _, param in layers for name in _TRANSFORM_FIELDS):
        return False
    for layer, param in layers:
        param.SetInParent()  # as Caffe's, which leaves both messages in all data layers
        layer.transform_param.SetInParent()
        for name in _TRANSFORM_FIELDS:
            if param.HasField(name):
                setattr(layer.transform_param, name, getattr(param, name))
                param.ClearField(name)
    return True


def _upgrade_v1(net: NetParameter) -> bool:
    if not net.layers:
        return False
    for old in net.layers:
        _upgrade_v1_layer(old, net.layer.add())
    del net.layers[:]
    return True


def _upgrade_v1_layer(old: V1LayerParameter, layer: LayerParameter) -> None:
    for descriptor, _ in old.ListFields():
        name = descriptor.name
        if name == "type":
            layer.type = _V1_TYPES[V1LayerParameter.LayerType.Name(old.type)]
        elif name not in _V1_PARAM_SPEC:
            _copy_field(old, descriptor, layer, name)
    for name, spec_name in _V1_PARAM_SPEC.items():
        for index, value in enumerate(getattr(old, name)):
            while len(layer.param) <= index:
                layer.param.add()
            setattr(layer.param[index], spec_name, value)


def _upgrade_input(net: NetParameter) -> bool:
    """Put a layer named "input" first; input_shape goes before input_dim. Without shapes, as in old weights, none."""
    if not net.input:
        return False
    shapes = [list(shape.dim) for shape in net.input_shape]
    if not shapes and net.input_dim:
        if len(net.input_dim) != _INPUT_AXES * len(net.input):
            raise UpgradeError(
                "", f"{len(net.input_dim)} input_dim for {len(net.input)} input; {_INPUT_AXES} for each were expected"
            )
        shapes = [
            list(net.input_dim[start : start + _INPUT_AXES]) for start in range(0, len(net.input_dim), _INPUT_AXES)
        ]
    if shapes:
        if len(shapes) != len(net.input):
            raise UpgradeError("", f"{len(shapes)} input_shape for {len(net.input)} input; one for each was expected")
        layer = LayerParameter(name="input", type="Input", top=net.input)
        for shape in shapes:
            layer.input_param.shape.add().dim.extend(shape)
        net.layer.insert(0, layer)
    for name in ("input", "input_shape", "input_dim"):
        net.ClearField(name)
    return True


def _upgrade_batch_norm(net: NetParameter) -> bool:
    """Set lr_mult and decay_mult to 0 where all three of BatchNorm's blobs have a param, as they had to in 2015."""
    specs = [spec for layer in net.layer if layer.type == "BatchNorm" and len(layer.param) == 3 for spec in layer.param]
    learned = [spec for spec in specs if spec.lr_mult or spec.decay_mult]
    for spec in learned:
        spec.lr_mult = spec.decay_mult = 0
    return bool(learned)


def _copy_field(source: Message, descriptor: FieldDescriptor, target: Message, name: str) -> None:
    """Copy a field to the one called `name`, which may be repeated where the source is not."""
    value, held = getattr(source, descriptor.name), target.DESCRIPTOR.fields_by_name[name]
    if held.is_repeated:
        getattr(target, name).extend(value if descriptor.is_repeated else [value])
    elif held.message_type is not None:
        getattr(target, name).CopyFrom(value)
    else:
        setattr(target, name, value)


_UPGRADES = {  # in Caffe's order, called as in its log
    "V0LayerParameter": _upgrade_v0,
    "transformation parameters": _upgrade_transform,
    "V1LayerParameter": _upgrade_v1,
    "input fields": _upgrade_input,
    "params": _upgrade_batch_norm,
}
