"""The numbers that go into a case: inputs, weights and output gradients, drawn from names alone.

Imported by real Caffe's Python 3.9 and by ours, so only numpy, and only RandomState, whose stream is frozen (NEP 19).
"""

import math
import re
import zlib
from pathlib import Path

import numpy as np

_RULE = re.compile(r"^# ([\w/]+): (uniform|choice) ([-\d. e]+)$", re.MULTILINE)


class Values:
    """The numbers of one case.

    A comment line in the case's prototxt may say how a blob is drawn: "# NAME: uniform LOW HIGH" or
    "# NAME: choice NUMBER NUMBER ...", NAME an input, a layer (for all its parameters) or LAYER/INDEX.
    """

    def __init__(self, case: str, prototxt: str) -> None:
        self.case = case
        self.rules = {
            name: (kind, [float(number) for number in numbers.split()])
            for name, kind, numbers in _RULE.findall(prototxt)
        }

    def input(self, name: str, shape) -> np.ndarray:
        """An input blob: uniform in -1..1 unless a rule says otherwise."""
        return self._draw(name, shape, self.rules.get(name, ("uniform", [-1, 1])))

    def memory(self, shape) -> tuple:
        """Images and labels for three batches of a MemoryData layer whose data has that shape."""
        count = 3 * shape[0]
        return self.input("data", (count, *shape[1:])), self.input("label", (count,))

    def parameter(self, layer: str, layer_type: str, index: int, shape) -> np.ndarray:
        """A layer's blob: uniform in +-sqrt(3 / fan in) with several axes, else +-1/2; BatchNorm's sums in 1/2..3/2."""
        bound = math.sqrt(3 * shape[0] / math.prod(shape)) if len(shape) > 1 else 0.5
        default = [0.5, 1.5] if layer_type == "BatchNorm" else [-bound, bound]
        name = f"{layer}/{index}"
        return self._draw(name, shape, self.rules.get(name, self.rules.get(layer, ("uniform", default))))

    def output_gradient(self, name: str, shape) -> np.ndarray:
        """What the backward pass starts from at an output that is no loss: uniform in -1..1."""
        return self._draw(f"gradient of {name}", shape, ("uniform", [-1, 1]))

    def _draw(self, name: str, shape, rule) -> np.ndarray:
        random = np.random.RandomState(zlib.crc32(f"{self.case}: {name}".encode()))
        kind, numbers = rule
        drawn = random.uniform(*numbers, size=shape) if kind == "uniform" else random.choice(numbers, size=shape)
        return np.asarray(drawn, dtype=np.float32)


def forwards(prototxt: str) -> int:
    """How many times the case is run forward before it is looked at ("# forwards: N"); once unless it says so."""
    found = re.search(r"^# forwards: (\d+)$", prototxt, re.MULTILINE)
    return int(found[1]) if found else 1


def sample(blob: np.ndarray) -> np.ndarray:
    """A thousand or so of a large blob's values, for answers that would be too large to keep."""
    return blob.ravel()[:: blob.size // 1024] if blob.size > 2048 else blob


def all_cases(folder: Path) -> list:
    """The cases of a folder, as "LayerType/case"."""
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.glob("*/*.prototxt"))
