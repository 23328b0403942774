"""What a spreadsheet may make of a CSV that it saves: its encoding and what stands between its fields."""

import codecs

DELIMITERS = (b",", b";", b"\t")


def is_utf16(start: bytes) -> bool:
    """Whether a file that begins so is UTF-16, by its byte-order mark."""
    return start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def delimiter_of(header: bytes) -> bytes:
    """What stands between the names in a header, in UTF-8: the one of DELIMITERS that is there most often."""
    return max(DELIMITERS, key=header.count)
