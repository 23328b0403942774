"""Files with bytes or words changed, for the tests that read them."""

import os
import re

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))  # of each file

fuzzed = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

Alteration = tuple[str, float, float, bytes]

_PIECES = [
    b"\xff" * 8,
    b"\xff\xff\xff\xff\x07",
    b"\x80" * 12,
    bytes(4),
    b"\n",
    b"-",
    b"{",
    b"}",
    b'"',
    b"[",
    b"#",
    b" ",
    b"9" * 20,
    b"1e999",
    b"nan",
    b"-1",
    b"0",
]
_WORD = re.compile(rb"[\w.+-]+")
_WORDS = [
    b"0",
    b"-1",
    b"1",
    b"7",
    b"2147483647",
    b"4294967295",
    b"9223372036854775807",
    b"1e30",
    b"nan",
    b"inf",
    b"x",
    b'""',
    b"{",
    b"TRAIN",
]


def alterations(*kinds: str) -> st.SearchStrategy[list[Alteration]]:
    """What is done to a file, one after another, at parts of it. kinds: of them, as altered() has them."""
    parts = st.floats(0, 1, exclude_max=True)
    pieces = st.one_of(st.binary(min_size=1, max_size=3), st.sampled_from(_PIECES))
    return st.lists(st.tuples(st.sampled_from(kinds), parts, parts, pieces), min_size=1, max_size=5)


def altered(content: bytes, todo: list[Alteration]) -> bytes:
    """The file's bytes after all alterations."""
    made = bytearray(content)
    for kind, part, other, piece in todo:
        at, end = int(part * len(made)), int(other * len(made))
        if kind == "flip" and made:
            made[at] ^= 1 << piece[0] % 8
        elif kind == "set":
            made[at : at + len(piece)] = piece
        elif kind == "insert":
            made[at:at] = piece
        elif kind == "cut":
            del made[at:]
        elif kind == "copy":
            made[at:at] = made[end : end + 60]
        elif kind == "drop":
            del made[at : at + 1 + int(other * 30)]
        elif kind == "word" and (words := list(_WORD.finditer(made))):
            word = words[int(part * len(words))]
            made[word.start() : word.end()] = _WORDS[int(other * len(_WORDS))]
    return bytes(made)
