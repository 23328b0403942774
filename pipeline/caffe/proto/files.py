"""Reads and writes Caffe's messages: prototxts by protobuf's own text parser, binary files with a size limit."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from google.protobuf import text_encoding, text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from pipeline.base.atomic import atomic_file
from pipeline.base.errors import InputError
from pipeline.caffe.proto import caffe_pb2
from pipeline.caffe.proto.prototxt_errors import describe_parse_error, find_layers, find_line
from pipeline.caffe.proto.upgrade_proto import UpgradeError, upgrade_net

# In Caffe's package this module is a folder: `import caffe.proto.caffe_pb2`.
sys.modules[f"{__name__}.caffe_pb2"] = caffe_pb2

M = TypeVar("M", bound=Message)

# Far above any published net (VGG-16's prototxt has 6 kB, its weights 553 MB); protobuf itself stops at 2 GiB.
MAX_TEXT_BYTES = 16 << 20
MAX_BINARY_BYTES = (2 << 30) - 1


class PrototxtError(InputError):
    """A prototxt that does not parse, or says what no net or solver can do."""


class BinaryError(InputError):
    """A .caffemodel, .solverstate or .binaryproto that is not one."""


def parse_text(text: str, message_type: type[M], name: str) -> M:
    """Parse a prototxt's text; `name` stands for it in errors.

    Raises PrototxtError with line and column for a syntax error, an unknown field or a value out of range.
    """
    try:
        return text_format.Parse(text, message_type())
    except text_format.ParseError as error:
        raise PrototxtError(f"{name}:{describe_parse_error(text, error, message_type)}") from None


def read_prototxt(path: Path, message_type: type[M]) -> M:
    """Read a prototxt as it stands. Raises PrototxtError naming line and column, OSError when it cannot be read."""
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise PrototxtError(
            f"{path}: {path.stat().st_size} bytes where a prototxt of at most {MAX_TEXT_BYTES} "
            "was expected; is it a binary file?"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PrototxtError(
            f"{path}: byte {error.start} is not UTF-8 where a prototxt was expected; is it a binary file?"
        ) from None
    return parse_text(text, message_type, str(path))


def read_net(path: Path) -> caffe_pb2.NetParameter:
    """Read a net's prototxt, upgraded where it is in an older form.

    Raises PrototxtError naming line and column, or the line of the layer that cannot be upgraded, OSError when it
    cannot be read.
    """
    net = read_prototxt(path, caffe_pb2.NetParameter)
    upgrade_read_net(net, path)
    return net


def upgrade_read_net(net: caffe_pb2.NetParameter, path: Path) -> bool:
    """Upgrade a net that was read from the prototxt `path`; return whether there was anything to upgrade.

    Raises PrototxtError naming the line of the layer that cannot be.
    """
    try:
        return upgrade_net(net, str(path))
    except UpgradeError as error:
        line = find_line(find_layers(path.read_text(encoding="utf-8")), error.layer)
        raise PrototxtError(f"{path}:{line}: {error}" if line else f"{path}: {error}") from None


def read_solver(path: Path) -> caffe_pb2.SolverParameter:
    """Read a solver's prototxt. Raises PrototxtError naming line and column, OSError when it cannot be read.

    Snapshots are named after the prototxt where it has no snapshot_prefix, or a folder's, as Caffe names them.
    Nets in it are upgraded where they are in an older form, of which Caffe sees no layers.
    """
    solver = read_prototxt(path, caffe_pb2.SolverParameter)
    for field in ("net_param", "train_net_param"):
        if solver.HasField(field):
            upgrade_read_net(getattr(solver, field), path)
    for net in solver.test_net_param:
        upgrade_read_net(net, path)
    if not solver.HasField("snapshot_prefix"):
        solver.snapshot_prefix = str(path.with_suffix(""))
    elif solver.snapshot_prefix and Path(solver.snapshot_prefix).is_dir():
        solver.snapshot_prefix = str(Path(solver.snapshot_prefix) / path.stem)
    return solver


def write_prototxt(path: Path, message: Message) -> None:
    """Write a message as text, as Caffe prints it."""
    with atomic_file(path, "w", encoding="utf-8") as file:
        file.writelines(to_text(message))


def to_text(message: Message, indent: str = "") -> Iterator[str]:
    """The lines of a message's text as C++'s protobuf prints them, of which Python's differs in numbers and letters."""
    for field, value in message.ListFields():
        for item in value if field.is_repeated else [value]:
            if field.message_type is not None:
                yield f"{indent}{field.name} {{\n"
                yield from to_text(item, indent + "  ")
                yield f"{indent}}}\n"
            else:
                yield f"{indent}{field.name}: {_scalar(field, item)}\n"


def _scalar(field: FieldDescriptor, value: Any) -> str:
    if field.enum_type is not None:
        return str(field.enum_type.values_by_number[value].name)
    if isinstance(value, str | bytes):
        data = value.encode() if isinstance(value, str) else value
        return f'"{text_encoding.CEscape(data, as_utf8=False)}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        # The shorter form, where it is read back as the same number, which strtof() refuses of the smallest
        # (google/protobuf/stubs/strutil.cc, FloatToBuffer).
        if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
            short, exact, same = f"{value:.15g}", f"{value:.17g}", float(f"{value:.15g}") == value
        else:
            short, exact, same = f"{value:.6g}", f"{value:.9g}", np.float32(f"{value:.6g}") == np.float32(value)
            same = same and not 0 < abs(value) < np.finfo(np.float32).tiny
        return short if same else exact  # nan, infinities are the same in both
    return str(value)


def read_binary(path: Path, message_type: type[M]) -> M:
    """Read a binary message. Raises BinaryError when the file is no such message or larger than protobuf's 2 GiB."""
    kind = message_type.DESCRIPTOR.name
    with path.open("rb") as file:
        size, begun = path.stat().st_size, file.read(1)
    if size > MAX_BINARY_BYTES:
        raise BinaryError(
            f"{path}: {size} bytes where a {kind} of at most {MAX_BINARY_BYTES} was expected; it is no file of Caffe's"
        )
    if begun == b"\0":  # as files do whose bytes were never written: not to be read to their end
        raise BinaryError(f"{path}: no {kind}, which begins with a field's number; is the file empty but for its size?")
    try:
        message = message_type.FromString(path.read_bytes())
    except DecodeError:
        raise BinaryError(f"{path}: no whole binary {kind}; is the file truncated, or of another kind?") from None
    with _naming_texts(path):
        if not message.IsInitialized() or not message.ListFields():
            raise BinaryError(f"{path}: an empty {kind}; is the file truncated, or of another kind?")
    return message


def read_weights(path: Path) -> caffe_pb2.NetParameter:
    """Read a .caffemodel, upgraded where it is in an older form. Raises BinaryError when it is none, OSError."""
    net = read_binary(path, caffe_pb2.NetParameter)
    with _naming_texts(path):
        try:
            upgrade_net(net, str(path))
        except UpgradeError as error:
            raise BinaryError(f"{path}: {error}") from None
        for layer in net.layer:
            layer.ListFields()  # reads its name
    return net


@contextmanager
def _naming_texts(path: Path) -> Iterator[None]:
    """Raise BinaryError for a text that is none: protobuf parses it, and finds out where it is asked for."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise BinaryError(
            f"{path}: {error.object[:40]!r} where a text in UTF-8 was expected; is the file damaged?"
        ) from None


def write_binary(path: Path, message: Message) -> None:
    """Write a binary message, its fields in the order of their numbers as Caffe's writer does."""
    with atomic_file(path) as file:
        file.write(binary_bytes(message))


def binary_bytes(message: Message) -> bytes:
    """What write_binary() writes."""
    return message.SerializeToString(deterministic=True)
