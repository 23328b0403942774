"""Reads facial expressions: fer2013.csv to a trained, measured, deployable Caffe net."""

import os

__version__ = "0.1.0"

# ONNX Runtime 1.29 and later keeps an id of the machine in the user's cache folder and sends figures of use to its
# maker, unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
