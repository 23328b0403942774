"""The error of a solver's prototxt."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.caffe.net import naming_lines
from pipeline.caffe.proto.files import PrototxtError


class SolverError(PrototxtError):
    """A solver's prototxt that says what no solver can do."""


@contextmanager
def naming_solver(path: Path) -> Iterator[None]:
    """Give an error about a solver, or a net inside its prototxt `path`, the file's name, and a layer's line."""
    try:
        with naming_lines(path):
            yield
    except SolverError as error:
        raise SolverError(f"{path}: {error}") from None
