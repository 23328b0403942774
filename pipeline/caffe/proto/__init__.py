"""Caffe's messages: caffe.proto, and how they are read, written and upgraded."""

from pipeline.caffe.proto import caffe_pb2

__all__ = ["caffe_pb2"]
