"""Reads facial expressions: fer2013.csv to a trained, measured, deployable Caffe net."""

__version__ = "0.1.0"
