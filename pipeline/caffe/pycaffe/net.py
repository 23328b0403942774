"""Net under the names, and with the order of events, of Caffe's Python interface (pycaffe)."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from os import fspath
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np

from pipeline.base.errors import InputError
from pipeline.caffe.blob import Blob, Blobs
from pipeline.caffe.common import mode
from pipeline.caffe.layers import CAFFE_LAYERS
from pipeline.caffe.layers.data import MemoryData
from pipeline.caffe.layers.python import Python
from pipeline.caffe.layers.python import PythonLayer as Layer
from pipeline.caffe.net import build_read_net
from pipeline.caffe.proto.caffe_pb2 import Phase
from pipeline.caffe.proto.files import read_net
from pipeline.caffe.pycaffe.stepwise import StepwiseNet

T = TypeVar("T")
Arrays = dict[str, np.ndarray]


class CallError(InputError, ValueError):
    """What a net or solver cannot be asked: arrays that are not its blobs', in number or shape."""


class BlobNameError(CallError, KeyError):
    """A name that none of a net's blobs has."""

    __str__ = Exception.__str__  # KeyError's puts the sentence in quotes


class FirstLayerError(CallError, RuntimeError):
    """What a net is asked that its first layer does not do."""


class NoFileError(InputError, FileNotFoundError, RuntimeError):
    """A net's file that is not there: FileNotFoundError as Python has it, RuntimeError as Caffe has it."""

    __str__ = Exception.__str__


class Named(OrderedDict[str, T]):
    """What a net has, by name."""

    def __missing__(self, name: str) -> T:
        raise KeyError(f"'{name}' is none of {', '.join(self) or 'none'}")


class Net:
    """A net: Net(file, phase), or Net(file, weights, phase); `level`, `stages` and `weights` may be given by name.

    file: a prototxt. weights: a .caffemodel. phase: TRAIN or TEST. Computes where set_mode_cpu, set_mode_gpu and
    set_device say when it is made. Raises PrototxtError, WeightsError, OSError.
    """

    @overload
    def __init__(
        self,
        network_file: str,
        phase: int,
        level: int = 0,
        stages: Iterable[str] | None = None,
        weights: str | None = None,
    ) -> None: ...

    @overload
    def __init__(self, network_file: str, weights: str, phase: int) -> None: ...

    def __init__(self, network_file: str, *arguments: Any, **keywords: Any) -> None:
        read = _phase_first if not arguments or isinstance(arguments[0], int) else _weights_and_phase
        try:
            options = read(*arguments, **keywords)
        except TypeError as error:
            raise TypeError(
                "Net takes a prototxt and a phase, caffe.TRAIN or caffe.TEST, or between them weights; by "
                "name also level, stages and weights"
            ) from error
        self._open(network_file, *options)

    def _open(self, network_file: str, weights: str | None, phase: Phase, level: int, stages: Iterable[str]) -> None:
        path = Path(network_file)
        for file in (network_file, weights):
            if file is not None and not Path(file).exists():
                raise NoFileError(f"{file}: there is no such file")
        self._wrap(
            build_read_net(
                path,
                read_net(path),
                phase,
                StepwiseNet,
                level=level,
                stages=tuple(stages),
                device=mode.device(),
                seed=mode.next_seed(),
            )
        )
        if weights is not None:
            self.copy_from(weights)

    def _wrap(self, net: StepwiseNet) -> None:
        self._net = net
        self._named = Named(net.stays)
        self._layers = []
        for layer, blobs in zip(net.layers, net.of_layers, strict=True):
            if isinstance(layer, Python):
                layer.instance.blobs = blobs  # its own blobs are the net's
            self._layers.append(layer.instance if isinstance(layer, Python) else Layer.of(layer.type, blobs))

    @classmethod
    def of(cls, net: StepwiseNet) -> "Net":
        """The interface to a net that there is."""
        made = cls.__new__(cls)
        made._wrap(net)
        return made

    @property
    def blobs(self) -> "Named[Blob]":
        """The blobs by name, in the order in which layers make them."""
        return self._named

    @property
    def params(self) -> "Named[Blobs]":
        """The blobs of every layer that has any, by the layer's name."""
        return Named(
            (layer.param.name, blobs)
            for layer, blobs in zip(self._net.layers, self._net.of_layers, strict=True)
            if blobs
        )

    @property
    def blob_loss_weights(self) -> "Named[float]":
        """By blob, the factor with which its sum is part of the loss."""
        weights = Named((name, 0.0) for name in self._named)
        for layer in self._net.layers:
            for index, name in enumerate(layer.param.top):
                weights[name] = layer.param.loss_weight[index] if index < len(layer.param.loss_weight) else 0.0
        return weights

    @property
    def layers(self) -> list[Layer]:
        """The layers, each with its type and blobs; of a Python layer its object."""
        return self._layers

    @property
    def layer_dict(self) -> "Named[Layer]":
        """The layers by name."""
        return Named(zip(self._layer_names, self._layers, strict=True))

    @property
    def inputs(self) -> list[str]:
        """The blobs of Input layers."""
        return list(self._net.inputs)

    @property
    def outputs(self) -> list[str]:
        """The blobs that no layer takes, alphabetically."""
        return list(self._net.outputs)

    @property
    def top_names(self) -> "Named[list[str]]":
        """By layer, the blobs that it makes."""
        return Named((layer.param.name, list(layer.param.top)) for layer in self._net.layers)

    @property
    def bottom_names(self) -> "Named[list[str]]":
        """By layer, the blobs that it takes."""
        return Named((layer.param.name, list(layer.param.bottom)) for layer in self._net.layers)

    @property
    def _layer_names(self) -> list[str]:
        return [layer.param.name for layer in self._net.layers]

    @property
    def _blob_names(self) -> list[str]:
        return list(self._named)

    # What follows has no text in Caffe either: blobs and layers by number, as scripts that walk a net ask for them.

    @property
    def _blobs(self) -> list[Blob]:
        return list(self._named.values())

    @property
    def _blob_loss_weights(self) -> list[float]:
        return list(self.blob_loss_weights.values())

    @property
    def _inputs(self) -> list[int]:
        return self._numbers(self.inputs)

    @property
    def _outputs(self) -> list[int]:
        return self._numbers(self.outputs)

    def _bottom_ids(self, layer: int) -> list[int]:
        return self._numbers(self._net.layers[layer].param.bottom)

    def _top_ids(self, layer: int) -> list[int]:
        return self._numbers(self._net.layers[layer].param.top)

    def _numbers(self, blobs: Iterable[str]) -> list[int]:
        names = self._blob_names
        return [names.index(blob) for blob in blobs]

    def _forward(self, first: int, last: int) -> float:
        return self._net.run_forward(first, last)

    def _backward(self, first: int, last: int) -> None:
        self._net.run_backward(first, last)

    def forward(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **inputs: np.ndarray
    ) -> Arrays:
        """Run the layers from `start` to `end`, both counted in, or all.

        inputs: arrays for all the net's inputs, in their shapes; without any, what stands in the blobs is taken.
        Returns the data of the outputs, or of the layer `end`, and of `blobs`.
        """
        first = self._index(start) if start is not None else 0
        last = self._index(end) if end is not None else len(self._layers) - 1
        wanted = self.outputs if end is None else self.top_names[end]
        self._fill(inputs, self.inputs, "inputs")
        for name, value in inputs.items():
            self._put(self._named[name].data, value, f"input '{name}'")
        self._forward(first, last)
        return {name: self._blob(name).data for name in (*wanted, *_names(blobs, "blobs"))}

    def backward(
        self,
        diffs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **gradients: np.ndarray,
    ) -> Arrays:
        """Run the layers from `start` back to `end`, both counted in, or all.

        gradients: arrays for the diff of all outputs; without any, what stands there is taken, a loss's weight in its
        own. Returns the diff of the inputs, or of the bottoms of the layer `end`, and of `diffs`.
        """
        first = self._index(start) if start is not None else len(self._layers) - 1
        last = self._index(end) if end is not None else 0
        wanted = self.inputs if end is None else self.bottom_names[end]
        self._fill(gradients, self.outputs, "outputs")
        for name, value in gradients.items():
            self._put(self._named[name].diff, value, f"gradient of '{name}'")
        self._backward(first, last)
        return {name: self._blob(name).diff for name in (*wanted, *_names(diffs, "diffs"))}

    def _index(self, layer: str) -> int:
        if layer not in self._layer_names:
            raise CallError(f"no layer is named '{layer}'; the net has {', '.join(self._layer_names)}")
        return self._layer_names.index(layer)

    def _blob(self, name: str) -> Blob:
        if name not in self._named:
            raise BlobNameError(f"no blob is named '{name}'; the net has {', '.join(self._named)}")
        return self._named[name]

    @staticmethod
    def _fill(given: Mapping[str, Any], expected: Sequence[str], what: str) -> None:
        if given and set(given) != set(expected):
            raise CallError(
                f"arrays for {', '.join(sorted(given))} where the net's {what} are "
                f"{', '.join(expected) or 'none'}; give all of them or none"
            )

    @staticmethod
    def _put(place: np.ndarray, value: Any, what: str) -> None:
        values = np.asarray(value)
        if values.shape[:1] != place.shape[:1]:
            raise CallError(
                f"{what} of shape {values.shape} where the blob has shape {place.shape}; reshape the blob "
                "and the net, or use forward_all"
            )
        try:
            place[...] = values
        except ValueError:
            raise CallError(f"{what} of shape {values.shape} where the blob has shape {place.shape}") from None

    def forward_all(self, blobs: Sequence[str] | None = None, **inputs: np.ndarray) -> Arrays:
        """Run arrays of any length through the net, batch by batch; the last batch is filled up with zeros.

        Returns the data of the outputs and of `blobs`, as long as the inputs.
        """
        found: dict[str, list[np.ndarray]] = {}
        for batch in self._batches(inputs):
            _append(found, self.forward(blobs=blobs, **batch))
        return _joined(found, _length(inputs))

    def forward_backward_all(
        self, blobs: Sequence[str] | None = None, diffs: Sequence[str] | None = None, **arrays: np.ndarray
    ) -> tuple[Arrays, Arrays]:
        """forward_all of the arrays that are inputs and backward, batch by batch, of those that are outputs.

        Returns the data of the outputs and of `blobs`, and the diff of the inputs and of `diffs`.
        """
        inputs = {name: value for name, value in arrays.items() if name in self.inputs}
        gradients = {name: value for name, value in arrays.items() if name in self.outputs}
        values: dict[str, list[np.ndarray]] = {}
        slopes: dict[str, list[np.ndarray]] = {}
        batches: Iterable[tuple[dict[str, Any], dict[str, Any]]] = zip_longest(
            self._batches(inputs), self._batches(gradients), fillvalue={}
        )
        for forward, backward in batches:
            _append(values, self.forward(blobs=blobs, **forward))
            _append(slopes, self.backward(diffs=diffs, **backward))
        length = _length(inputs)
        return _joined(values, length), _joined(slopes, length)

    def _batches(self, arrays: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The arrays cut to the net's batch size, that of its first blob."""
        size = next(iter(self._named.values())).num
        for start in range(0, _length(arrays), size):
            batch = {}
            for name, value in arrays.items():
                part = np.asarray(value)[start : start + size]
                missing = np.zeros((size - len(part), *self._blob(name).shape[1:]), part.dtype)
                batch[name] = np.concatenate([part, missing])
            yield batch

    def reshape(self) -> None:
        """Fit all layers to the shapes that the inputs have now."""
        self._net.reshape()

    def copy_from(self, weights: str) -> None:
        """Take the blobs of the layers that have the same name from a .caffemodel, or from an HDF5 file."""
        self._net.copy_from(Path(weights))

    def load_hdf5(self, path: str) -> None:
        """Take the blobs of the layers that have the same name from an HDF5 file."""
        self._net.copy_from(Path(path))

    def save(self, path: str) -> None:
        """Write a .caffemodel."""
        self._net.save(Path(path))

    def save_hdf5(self, path: str) -> None:
        """Write an HDF5 file of the weights."""
        self._net.save_hdf5(Path(path))

    def share_with(self, other: "Net") -> None:
        """Use the values of the other net's layers of the same name."""
        self._net.share_with(other._net)

    def clear_param_diffs(self) -> None:
        """Set the gradients of all layers' blobs to 0, to which backward adds."""
        self._net.clear_gradients()

    def set_input_arrays(self, data: np.ndarray, labels: np.ndarray) -> None:
        """Let the MemoryData layer, the net's first, read (n, channels, height, width) images and n labels."""
        layer = self._net.layers[0]
        if not isinstance(layer, MemoryData):
            raise FirstLayerError(f"set_input_arrays needs a net whose first layer is MemoryData; it is {layer.type}")
        layer.set_arrays(data, labels)

    def before_forward(self, callback: Callable[[int], None]) -> None:
        """Call `callback` with its number before every layer runs forward."""
        self._net.before_forward.append(callback)

    def after_forward(self, callback: Callable[[int], None]) -> None:
        """Call `callback` with its number after every layer has run forward."""
        self._net.after_forward.append(callback)

    def before_backward(self, callback: Callable[[int], None]) -> None:
        """Call `callback` with its number before every layer runs backward."""
        self._net.before_backward.append(callback)

    def after_backward(self, callback: Callable[[int], None]) -> None:
        """Call `callback` with its number after every layer has run backward."""
        self._net.after_backward.append(callback)


def _phase_first(
    phase: Phase, level: int = 0, stages: Iterable[str] | None = None, weights: str | None = None
) -> tuple[str | None, Phase, int, Iterable[str]]:
    return weights, phase, level, stages or ()


def _weights_and_phase(weights: str, phase: Phase) -> tuple[str, Phase, int, Iterable[str]]:
    return fspath(weights), phase, 0, ()


def _names(given: Sequence[str] | None, what: str) -> Sequence[str]:
    if given is not None and (isinstance(given, str) or not all(isinstance(name, str) for name in given)):
        raise CallError(
            f"{what}={type(given).__name__} where a list of blobs' names was expected; arrays are given by "
            "name, as in forward(data=array)"
        )
    return given or []


def _append(found: dict[str, list[np.ndarray]], batch: Arrays) -> None:
    for name, value in batch.items():
        found.setdefault(name, []).append(np.atleast_1d(value).copy())


def _joined(found: Mapping[str, Sequence[np.ndarray]], length: int) -> Arrays:
    return {name: np.concatenate(values)[:length] for name, values in found.items()}


def _length(arrays: Mapping[str, Any]) -> int:
    lengths = {len(value) for value in arrays.values()}
    if len(lengths) > 1:
        raise CallError(f"arrays of {', '.join(map(str, sorted(lengths)))} items where as many in each were expected")
    return lengths.pop() if lengths else 0


def layer_type_list() -> list[str]:
    """The types of layer that a net may have."""
    return sorted(CAFFE_LAYERS)
