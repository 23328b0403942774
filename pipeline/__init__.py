"""Reads facial expressions: fer2013.csv to a trained, measured, deployable Caffe net.

import pipeline

reading = pipeline.Predictor()("photo.jpg")
print([(face.label, face.probabilities) for face in reading.faces])
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.base.errors import InputError
    from pipeline.drawing.overlay import Parts
    from pipeline.media.pictures import draw
    from pipeline.media.sources import open_sources
    from pipeline.predictor import Predictor, Session
    from pipeline.readings import FaceReading as Face
    from pipeline.readings import Reading, to_dataframe

__version__ = "0.1.0"
__all__ = [
    "Face",
    "InputError",
    "Parts",
    "Predictor",
    "Reading",
    "Session",
    "__version__",
    "draw",
    "open_sources",
    "to_dataframe",
]

# Where each name comes from: a module is imported when one of its names is first asked for.
_NAMES = {
    "Face": ("readings", "FaceReading"),
    "InputError": ("base.errors", "InputError"),
    "Parts": ("drawing.overlay", "Parts"),
    "Predictor": ("predictor", "Predictor"),
    "Reading": ("readings", "Reading"),
    "Session": ("predictor", "Session"),
    "draw": ("media.pictures", "draw"),
    "open_sources": ("media.sources", "open_sources"),
    "to_dataframe": ("readings", "to_dataframe"),
}

# ONNX Runtime 1.29 and later keeps an id of the machine in the user's cache folder and sends figures of use to its
# maker, unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    module, inner = _NAMES[name]
    return getattr(import_module(f"{__name__}.{module}"), inner)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
