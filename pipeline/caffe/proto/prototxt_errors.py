"""Where things stand in a prototxt's text: what errors say beyond protobuf's own parser, which keeps no places."""

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.text_format import ParseError

from pipeline.base.console import printable
from pipeline.caffe.forks import FOREIGN_FIELDS

MAX_QUOTED = 60  # characters of the text in an error

_TOKEN = re.compile(
    r"""
    \#[^\n]* | "(?:\\.|[^"\\\n])*"? | '(?:\\.|[^'\\\n])*'?  # a comment, texts
    | [A-Za-z_][\w+-]* | [-+.\d][\w.+-]* | \S  # a name, a number, a sign
    """,
    re.VERBOSE,
)
_NO_FIELD = re.compile(r'Message type "([\w.]+)" has no field named "(.*)"\.')
_TWICE = re.compile(r'Message type "[\w.]+" should not have multiple "(\w+)" fields\.')
_OPEN = re.compile(r'Expected "([}>])"\.')
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: f"an integer from {-(2**31)} to {2**31 - 1}",
    FieldDescriptor.CPPTYPE_INT64: f"an integer from {-(2**63)} to {2**63 - 1}",
    FieldDescriptor.CPPTYPE_UINT32: f"an integer from 0 to {2**32 - 1}",
    FieldDescriptor.CPPTYPE_UINT64: f"an integer from 0 to {2**64 - 1}",
    FieldDescriptor.CPPTYPE_FLOAT: "a number",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_STRING: "a text in quotes",
}


@dataclass(frozen=True)
class Item:
    """A value or, as "{", the beginning of a message. path: the names of the fields around it and its own."""

    path: tuple[str, ...]
    start: int  # where in the text its field is named
    value: str
    value_start: int


@dataclass
class LayerBlock:
    """A `layer { ... }` or `layers { ... }`. line: that of its name, or where it has none that of its beginning."""

    line: int
    name: str = ""


def read_items(text: str) -> Iterator[Item]:
    """What a prototxt says, in its order, as far as it can be told from brackets, whether or not it parses."""
    around: list[tuple[str, int]] = []
    name, start, in_value, in_list = "", 0, False, False
    for token in _TOKEN.finditer(text):
        word, place = token[0], token.start()
        if word[0] == "#":
            continue
        if word in "{<":
            around.append((name, start))
            yield Item(tuple(field for field, _ in around), start, "{", place)
            in_value = in_list = False
        elif word in "}>":
            name, _ = around.pop() if around else ("", 0)
            in_value = False
        elif word == ":":
            in_value = True
        elif word in "[]":
            in_list = word == "["
        elif word in ",;":
            start = place + 1
        elif in_value or in_list:
            yield Item((*(field for field, _ in around), name), start, word, place)
            in_value = False
        else:
            name, start = word, place


def find_layers(text: str) -> list[LayerBlock]:
    """The blocks of a net's layers in a prototxt, or of the nets' inside a solver's."""
    blocks: list[LayerBlock] = []
    line, counted = 1, 0
    for item in read_items(text):
        *outer, last = item.path
        if outer and outer[0].endswith("net_param"):
            outer = outer[1:]
        is_layer = last in ("layer", "layers") and not outer and item.value == "{"
        if is_layer or (last == "name" and outer in (["layer"], ["layers"], ["layers", "layer"]) and blocks):
            line += text.count("\n", counted, item.start)
            counted = max(counted, item.start)
            if is_layer:
                blocks.append(LayerBlock(line))
            elif not blocks[-1].name:
                blocks[-1].line, blocks[-1].name = line, item.value[1:-1]
    return blocks


def find_line(blocks: list[LayerBlock], name: str, place: int | None = None) -> int | None:
    """The line of the layer `name`, the one at `place` in the net where there are several; None when it is not there.

    The net's own `input` is a layer of the net as it was read, and none in its text.
    """
    if place is not None:
        for index in (place, place - 1):
            if 0 <= index < len(blocks) and blocks[index].name == name:
                return blocks[index].line
    return next((block.line for block in blocks if block.name == name), None) if name else None


def describe_parse_error(text: str, error: ParseError, message_type: type[Message]) -> str:
    """An error of protobuf's parser as "line:column: what is there, what was expected"."""
    line, column = error.GetLine(), error.GetColumn()
    lines = text.split("\n")
    reason = str(error).removeprefix(f"{line}:{column} : ")
    if line is None or column is None or line > len(lines):
        return f" {shorten(reason)}"
    reason = reason.removeprefix(f"'{lines[line - 1]}': ")
    offset = sum(len(before) + 1 for before in lines[: line - 1]) + column - 1
    return f"{line}:{column}: {_explain(text, offset, reason, cast('Descriptor', message_type.DESCRIPTOR))}"


def _explain(text: str, offset: int, reason: str, message: Descriptor) -> str:
    if found := _NO_FIELD.fullmatch(reason):
        owner = message.file.pool.FindMessageTypeByName(found[1])
        if owner.name == "LayerParameter" and found[2] in FOREIGN_FIELDS:
            return f"'{found[2]}' {FOREIGN_FIELDS[found[2]]}"
        names = [field.name for field in owner.fields]
        return f"'{shorten(found[2])}' is no field of {owner.name}{suggest(found[2], names) or _see(owner)}"
    if found := _TWICE.fullmatch(reason):
        return f"'{found[1]}' is given a second time, where it may be once"
    if found := _OPEN.fullmatch(reason):
        return f"the text ends where a {found[1]} for this was expected; is it truncated?"
    item = next((item for item in read_items(text) if item.value_start >= offset), None)
    field = None if item is None or item.value_start != offset else _find_field(message, item.path)
    if item is None or field is None:
        return shorten(reason.rstrip(".")) + _see(message)
    wanted, hint = _RANGES.get(field.cpp_type, "a {"), ""
    if reason.startswith("String missing ending quote"):
        wanted = "a text with a quote at its end"
    elif field.enum_type is not None:
        names = list(field.enum_type.values_by_name)
        wanted, hint = f"{', '.join(names[:-1])} or {names[-1]}", suggest(item.value, names)
    return f"{field.name} {shorten(item.value)} where {wanted} was expected{hint}"


def _find_field(message: Descriptor, path: tuple[str, ...]) -> FieldDescriptor | None:
    field: FieldDescriptor | None = None
    for name in path:
        if field is not None:
            if field.message_type is None:
                return None
            message = field.message_type
        field = message.fields_by_name.get(name)
        if field is None:
            return None
    return field


def _see(message: Descriptor) -> str:
    return f"; see {message.name} in pipeline/caffe/proto/caffe.proto"


def suggest(wrong: str, right: Iterable[str]) -> str:
    """ "; did you mean 'x'?" for the name that is most alike, or nothing where none is."""
    # Slow for long names, of which none is meant.
    by_lower = {name.lower(): name for name in right}
    near = difflib.get_close_matches(wrong[:MAX_QUOTED].lower(), by_lower, n=1, cutoff=0.7)
    return f"; did you mean '{by_lower[near[0]]}'?" if near else ""


def shorten(text: str) -> str:
    """A text of at most MAX_QUOTED characters, of one line that can be printed."""
    cut = text[:MAX_QUOTED]
    return printable(cut) + "…" * (len(text) > len(cut))
