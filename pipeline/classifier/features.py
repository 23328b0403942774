"""A net's feature vector: what its last fully connected layer is given, found in the ONNX file and made an output.

The file is read without onnx, which is a package for those who export: its messages' numbers are those of onnx.proto.
"""

from collections.abc import Iterator

from google.protobuf.empty_pb2 import Empty
from google.protobuf.unknown_fields import UnknownFieldSet

GRAPH = 7  # of ModelProto
NODE, OUTPUT = 1, 12  # of GraphProto
INPUTS, OUTPUTS, OPERATOR = 1, 2, 4  # of NodeProto
NAME = 1  # of ValueInfoProto
FULLY_CONNECTED = ("Gemm", "MatMul")


def find_features(model: bytes, output: str) -> str | None:
    """The name of what the last fully connected layer before an output is given, in an ONNX model's bytes.

    None where the output is not made from one such layer alone, as an ensemble's is not.
    """
    made: dict[str, tuple[str, list[str]]] = {}
    for graph in _fields(model, GRAPH):
        for node in _fields(graph, NODE):
            inputs, outputs, (operator,) = (_texts(node, field) for field in (INPUTS, OUTPUTS, OPERATOR))
            made |= dict.fromkeys(outputs, (operator, inputs))
    name = output
    while name in made:
        operator, inputs = made[name]
        if operator in FULLY_CONNECTED:
            return inputs[0]
        following = [each for each in inputs if each in made]  # not the constants
        if len(following) != 1:
            return None
        (name,) = following
    return None


def with_output(model: bytes, name: str) -> bytes:
    """The model with one more output: bytes of the same message that follow one another are one message."""
    return model + _message(GRAPH, _message(OUTPUT, _message(NAME, name.encode())))


def _fields(message: bytes, number: int) -> Iterator[bytes]:
    """The values of a field of a message, in their order."""
    found = UnknownFieldSet(Empty.FromString(message))
    for place in range(len(found)):
        if found[place].field_number == number:
            yield found[place].data


def _texts(message: bytes, number: int) -> list[str]:
    return [value.decode() for value in _fields(message, number)]


def _message(number: int, value: bytes) -> bytes:
    """A field that holds bytes: its number and kind, its length as a varint, its value."""
    length, digits = len(value), bytearray()
    while length > 0x7F:
        digits.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([number << 3 | 2, *digits, length]) + value
