"""The error of a solver's prototxt."""

from pipeline.caffe.proto import PrototxtError


class SolverError(PrototxtError):
    """A solver's prototxt that says what no solver can do."""
