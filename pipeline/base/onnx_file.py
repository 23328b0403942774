"""ONNX files from outside: read whole, so that what is hashed is what is opened; other files that they name are not."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base.errors import InputError

if TYPE_CHECKING:
    import onnx

MAX_BYTES = (1 << 31) - 1  # of a protobuf message
ORT_FORMAT = b"ORTM"  # at byte 4 of ONNX Runtime's own format, which could name other files too


def read_onnx(path: Path) -> bytes:
    """Read a model that holds all of its weights.

    ONNX Runtime would read weights that a model has in other files (external data) without a word, from wherever the
    model says. Raises InputError for such a model and for one that is too large, OSError when it cannot be read.
    """
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: {path.stat().st_size} bytes, where an ONNX file has at most {MAX_BYTES}")
    data = path.read_bytes()
    if data[4:8] == ORT_FORMAT:
        raise InputError(f"{path}: in ONNX Runtime's own format, where an ONNX file was expected")
    if b"location" not in data:  # the key that tells where external data is; so onnx need not be imported to look
        return data
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_from_string(data)
    except DecodeError as error:
        raise InputError(f"{path}: not an ONNX file ({error})") from None
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            raise InputError(
                f"{path}: the weights '{tensor.name[:80]}' are in another file, {place[:80]!r}, which is "
                "not read; save the model with all of its weights inside"
            )
    return data


def _tensors(message: Any) -> Iterator["onnx.TensorProto"]:
    """All tensors of a message, those in subgraphs and attributes included."""
    import onnx

    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if field.is_repeated else [value]:
                yield from _tensors(each)
