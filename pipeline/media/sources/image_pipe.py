"""Images that come one behind the other in one stream of bytes, as FFmpeg's image2pipe writes them."""

import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

from pipeline.base.console import log
from pipeline.base.errors import SourceError

PNG = b"\x89PNG\r\n\x1a\n"
CHUNK = 1 << 16


def split_images(stream: BinaryIO, max_bytes: int) -> Iterator[bytes]:
    """The bytes of each image, as soon as they are there.

    JPEG, PNG, BMP and WebP, of which the bytes tell the end, may follow one another in any order; an image of another
    format is the rest of the stream, and so is a JPEG that says it holds several pictures (MPF). What is cut off is
    given as it is. Bytes behind an image that start none belong to it (phones put such there) and are told in the log.
    Raises SourceError where an image has more than `max_bytes`.
    """
    reader = _Reader(stream, max_bytes)
    number = 0
    while start := reader.peek(12):
        number += 1
        reader.begin(number)
        take = next((take for matches, take in FORMATS if matches(start)), None)
        if take is None and number > 1:
            log.warning("-: what follows image %d starts no image and is left out", number - 1)
            return
        (take or _Reader.rest)(reader)
        yield reader.image()


class _Reader:
    """Bytes of a stream, of which those of the image at hand are kept."""

    def __init__(self, stream: BinaryIO, max_bytes: int) -> None:
        self.stream = stream
        self.max_bytes = max_bytes
        self.ahead = b""
        self.kept = bytearray()
        self.number = 0

    def begin(self, number: int) -> None:
        self.number = number
        self.kept = bytearray()

    def image(self) -> bytes:
        return bytes(self.kept)

    def _fill(self, size: int) -> None:
        """Have `size` bytes ahead, less at the end of the stream."""
        parts = [self.ahead]
        missing = size - len(self.ahead)
        while missing > 0 and (part := self._read(max(missing, CHUNK))):
            parts.append(part)
            missing -= len(part)
        self.ahead = b"".join(parts)

    def _read(self, size: int) -> bytes:
        read1 = getattr(self.stream, "read1", self.stream.read)  # what is there, not waiting for more
        return read1(size)

    def peek(self, size: int) -> bytes:
        self._fill(size)
        return self.ahead[:size]

    def take(self, size: int) -> bytes:
        """The next `size` bytes, less at the end of the stream, which the image then has too."""
        if len(self.kept) + size > self.max_bytes:
            raise SourceError(
                f"-: image {self.number} on standard input has more than the {self.max_bytes} bytes that are read"
            )
        self._fill(size)
        taken, self.ahead = self.ahead[:size], self.ahead[size:]
        self.kept += taken
        return taken

    def rest(self) -> None:
        while self.peek(1):
            self.take(len(self.ahead))


def _png(reader: _Reader) -> None:
    """Chunks of length, type, data and checksum up to IEND (PNG specification, 5.3)."""
    reader.take(8)
    while len(head := reader.take(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if len(reader.take(length + 4)) < length + 4 or kind == b"IEND":
            return


def _jpeg(reader: _Reader) -> None:
    """Segments of a marker and a length, and after a scan's header the scan, up to EOI (ITU-T T.81, B.1)."""
    reader.take(2)
    while len(marker := reader.take(2)) == 2 and marker[0] == 0xFF:
        if marker[1] == 0xD9:
            return
        if marker[1] in (0x01, 0xFF, *range(0xD0, 0xD9)):  # no length follows
            continue
        length = reader.take(2)
        if len(length) < 2:
            return
        body = reader.take(max(0, int.from_bytes(length) - 2))
        if marker[1] == 0xE2 and body.startswith(b"MPF\0"):  # CIPA DC-007: further pictures lie behind the first
            reader.rest()
            return
        if marker[1] == 0xDA:
            _scan(reader)


def _scan(reader: _Reader) -> None:
    """Coded data up to the next marker other than a restart; in it FF is followed by 00."""
    while ahead := reader.peek(CHUNK if len(reader.ahead) < 2 else len(reader.ahead)):
        place = ahead.find(b"\xff")
        while 0 <= place < len(ahead) - 1 and (ahead[place + 1] == 0 or 0xD0 <= ahead[place + 1] <= 0xD7):
            place = ahead.find(b"\xff", place + 2)
        if 0 <= place < len(ahead) - 1:
            reader.take(place)
            return
        if place < 0:
            reader.take(len(ahead))
        else:  # the last byte here: what follows it decides
            reader.take(place)
            if len(reader.peek(2)) < 2:
                reader.take(1)
                return


def _sized(offset: int, extra: int) -> Callable[[_Reader], None]:
    """A format whose header holds, as 4 bytes from `offset` on, the file's size less `extra`."""

    def take(reader: _Reader) -> None:
        size = struct.unpack("<I", reader.peek(12)[offset : offset + 4].ljust(4, b"\0"))[0] + extra
        reader.take(size + (size & 1 if extra else 0))

    return take


FORMATS: list[tuple[Callable[[bytes], bool], Callable[[_Reader], None]]] = [
    (lambda start: start.startswith(PNG), _png),
    (lambda start: start.startswith(b"\xff\xd8\xff"), _jpeg),
    (lambda start: start.startswith(b"BM") and len(start) == 12, _sized(2, 0)),
    (lambda start: start.startswith(b"RIFF") and start[8:12] == b"WEBP", _sized(4, 8)),
]
