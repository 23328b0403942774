"""Nets written as Python: NetSpec, whose layers come from `pipeline.caffe.layers` and enums from `.params`.

n = NetSpec()
n.data = L.Input(shape=dict(dim=[10, 1, 28, 28]))
n.conv1 = L.Convolution(n.data, kernel_size=5, num_output=20)
n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
print(n.to_proto())
"""

import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from google.protobuf.message import Message

from pipeline.base.errors import InputError
from pipeline.caffe.proto.caffe_pb2 import LayerParameter, NetParameter


class NetSpecError(InputError, TypeError):
    """A layer that cannot be made so."""


class NetSpecFieldError(NetSpecError, AttributeError):
    """A keyword that no field of the layer's messages has."""


class Top:
    """A blob that a layer makes; what other layers take."""

    def __init__(self, maker_of_it: "Function", index: int) -> None:
        self.fn = maker_of_it
        self.n = index

    def to_proto(self) -> NetParameter:
        """The net that makes this blob."""
        return to_proto(self)


class Function:
    """One layer, its bottoms and parameters; its tops are `tops`."""

    def __init__(self, type_name: str, inputs: tuple[Top, ...], params: dict[str, Any]) -> None:
        for index, bottom in enumerate(inputs):
            if not isinstance(bottom, Top):
                raise NetSpecError(
                    f"{type_name} was given {type(bottom).__name__} as its bottom {index} where a blob "
                    "that another layer makes was expected"
                )
        self.type_name = type_name
        self.inputs = inputs
        self.params = dict(params)
        self.ntop: int = self.params.pop("ntop", 1)
        self.in_place: bool = self.params.pop("in_place", False)
        self.tops = tuple(Top(self, index) for index in range(self.ntop))


class _Names:
    """The names of blobs and layers: given ones, else the type and a number."""

    def __init__(self, given: dict[Top, str]) -> None:
        self.tops = given
        self.layers: dict[Function, str] = {}
        self.counts: Counter[str] = Counter()

    def of_top(self, top: Top) -> str:
        """A blob's name."""
        if top not in self.tops:
            self.tops[top] = self.next(top.fn.type_name)
        return self.tops[top]

    def of_layer(self, function: Function) -> str:
        """A layer's name: its first blob's."""
        if function not in self.layers:
            self.layers[function] = self.of_top(function.tops[0]) if function.tops else self.next(function.type_name)
        return self.layers[function]

    def next(self, type_name: str) -> str:
        """The type and its next number."""
        self.counts[type_name] += 1
        return f"{type_name}{self.counts[type_name]}"


def maker(type_name: str) -> Callable[..., Any]:
    """What makes layers of a type: its arguments are blobs, its keywords the parameters.

    Keywords are fields of the type's own parameter message or of LayerParameter; `ntop` says how many blobs come out
    (0 gives the layer itself, several a tuple) and `in_place` that the blob is the bottom, changed.
    """

    def make(*inputs: Top, **params: Any) -> Any:
        function = Function(type_name, inputs, params)
        if function.ntop == 0:
            return function
        return function.tops[0] if function.ntop == 1 else function.tops

    make.__name__ = make.__qualname__ = type_name
    return make


class NetSpec:
    """A net as it is written down: each attribute that is set is a blob, or a layer without any, of that name."""

    def __init__(self) -> None:
        super().__setattr__("tops", OrderedDict())

    def __setattr__(self, name: str, value: Top | Function) -> None:
        self.tops[name] = value

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["tops"][name]
        except KeyError:
            raise AttributeError(f"the net has no blob '{name}'") from None

    def __setitem__(self, name: str, value: Top | Function) -> None:
        self.tops[name] = value

    def __getitem__(self, name: str) -> Any:
        return self.tops[name]

    def __delitem__(self, name: str) -> None:
        del self.tops[name]

    def __delattr__(self, name: str) -> None:
        del self.tops[name]

    def to_proto(self) -> NetParameter:
        """The net: all layers that have a name here, and those they need."""
        names = _Names({top: name for name, top in self.tops.items() if isinstance(top, Top)})
        names.layers = {function: name for name, function in self.tops.items() if isinstance(function, Function)}
        return _net(self.tops.values(), names)


def to_proto(*tops: Top | Function) -> NetParameter:
    """The net that makes the given blobs, named after their types and numbers."""
    return _net(iter(tops), _Names({}))


def _net(wanted: Any, names: _Names) -> NetParameter:
    layers: dict[Function, LayerParameter] = {}
    for top in wanted:
        _add(top.fn if isinstance(top, Top) else top, layers, names)
    return NetParameter(layer=layers.values())


def _add(function: Function, layers: dict[Function, LayerParameter], names: _Names) -> None:
    """Enter a layer after those that it takes blobs of."""
    # Without recursion, which a net of a thousand layers would end.
    waiting: list[tuple[Function, Iterator[Top]]] = [(function, iter(function.inputs))]
    while waiting:
        current, inputs = waiting[-1]
        if current in layers:
            waiting.pop()
            continue
        needed = next((top.fn for top in inputs if top.fn not in layers), None)
        if needed is not None:
            waiting.append((needed, iter(needed.inputs)))
            continue
        # By the layers' own tops, since what is made in place has two names.
        bottoms = [layers[top.fn].top[top.n] for top in current.inputs]
        layers[current] = _layer(current, bottoms, names)
        waiting.pop()


def _layer(function: Function, bottoms: list[str], names: _Names) -> LayerParameter:
    layer = LayerParameter(type=function.type_name, bottom=bottoms)
    if function.in_place:
        if len(function.tops) != 1 or len(bottoms) != 1:
            raise NetSpecError(
                f"{function.type_name} with in_place has {len(bottoms)} bottoms and {len(function.tops)}"
                " tops where one of each was expected"
            )
        layer.top.extend(bottoms)
    else:
        layer.top.extend(names.of_top(top) for top in function.tops)
    layer.name = names.of_layer(function)
    for name, value in function.params.items():
        try:
            assign_proto(_holder(layer, name), name, value)
        except (AttributeError, TypeError, ValueError) as error:
            raised = NetSpecFieldError if isinstance(error, AttributeError) else NetSpecError
            raise raised(f"layer '{layer.name}' ({function.type_name}): {name}={value!r}: {error}") from None
    return layer


def _holder(layer: LayerParameter, name: str) -> Message:
    """The message that a keyword is a field of: the type's own parameters if they have it, else the layer's."""
    own = _OWN.get(_simple(layer.type))
    if own is None or name.endswith("param") or name not in getattr(layer, own).DESCRIPTOR.fields_by_name:
        return layer
    message: Message = getattr(layer, own)
    return message


def _simple(name: str) -> str:
    return name.replace("_", "").lower()


# By the field's message: ConvolutionParameter's are Convolution's.
_OWN = {
    _simple(re.sub("Parameter$", "", field.message_type.name)): field.name
    for field in LayerParameter.DESCRIPTOR.fields
    if field.message_type is not None and field.name.endswith("_param")
}


def assign_proto(message: Message, name: str, value: Any) -> None:
    """Set a message's field: from lists repeated fields, from dicts messages; one value for a repeated field is a list.

    Raises AttributeError when there is no such field, TypeError or ValueError when the value does not fit.
    """
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        raise AttributeError(f"{message.DESCRIPTOR.name} has no field '{name}'")
    place = getattr(message, name)
    if not hasattr(place, "extend"):
        if isinstance(value, dict):
            for key, part in value.items():
                assign_proto(place, key, part)
        else:
            setattr(message, name, value)
        return
    values = value if isinstance(value, list) else [value]
    if values and isinstance(values[0], dict):
        for item in values:
            added = place.add()
            for key, part in item.items():
                assign_proto(added, key, part)
    else:
        place.extend(values)


def __getattr__(name: str) -> object:
    """`layers` and `params`, which NetSpecs are written with."""
    if name in ("layers", "params"):
        return import_module(f"pipeline.caffe.{name}")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


__all__ = ["Function", "NetSpec", "NetSpecError", "NetSpecFieldError", "Top", "assign_proto", "maker", "to_proto"]
