"""Caffe's Python interface on top of the engine."""
