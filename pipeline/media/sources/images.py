"""Images: from files, from an address, from standard input."""

import binascii
import codecs
import io
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

import numpy as np

from pipeline.base.console import log, printable
from pipeline.base.errors import SourceError
from pipeline.base.file_kinds import HEAD
from pipeline.base.image_files import IMAGE_HEAD, MAX_BYTES, decode_image, read_image
from pipeline.base.text_files import encoding_of
from pipeline.media.fetch import FetchError, fetch, without_credentials
from pipeline.media.frames import Frame
from pipeline.media.sources.image_pipe import split_images
from pipeline.media.sources.paths import MAX_LIST_BYTES, Found, lines_of, named_in

FETCH_SECONDS = 30.0
NETPBM = re.compile(rb"P[1-7]\s")
DATA_URL = re.compile(r"data:(?P<type>[^;,]*)(?:;[^;,]+)*?;base64,", re.IGNORECASE)

Load = Callable[[], np.ndarray]


class Entry(Protocol):
    """One of the inputs of ImageFiles: names of images, each with what reads it, raising SourceError or FetchError."""

    @property
    def name(self) -> str: ...

    @property
    def count(self) -> int | None: ...

    def images(self) -> Iterator[tuple[str, Load]]: ...


@dataclass(frozen=True)
class ImageFile:
    path: Path
    count: int | None = 1

    @property
    def name(self) -> str:
        return str(self.path)

    def images(self) -> Iterator[tuple[str, Load]]:
        yield self.name, partial(read_image, self.path)


@dataclass(frozen=True)
class ImageAddress:
    """An image behind an http(s) address; its name leaves out what may be secret in that."""

    url: str
    count: int | None = 1

    @property
    def name(self) -> str:
        return without_credentials(self.url)

    def images(self) -> Iterator[tuple[str, Load]]:
        yield self.name, self._read

    def _read(self) -> np.ndarray:
        return decode_image(fetch(self.url, private=True, max_bytes=MAX_BYTES, timeout=FETCH_SECONDS), self.name)


@dataclass(frozen=True)
class StandardInput:
    """The images that come on standard input one behind the other, called stdin-1, stdin-2, ..."""

    stream: BinaryIO = field(compare=False)
    name: str = "stdin"
    count: int | None = None

    def images(self) -> Iterator[tuple[str, Load]]:
        number = 0
        for number, data in enumerate(split_images(self.stream, MAX_BYTES), 1):
            name = f"{self.name}-{number}"
            yield name, partial(decode_image, data, name)
        if not number:
            raise SourceError("-: nothing on standard input where the bytes of an image were expected")


def standard_input(leave_out: Collection[Path] = ()) -> StandardInput | Found:
    """The images on standard input, or the files that a list names there. Waits until there is anything.

    leave_out: as in find(). Raises SourceError when standard input is closed or a terminal, or the list is none.
    """
    stream = _standard_input()
    buffered = stream if hasattr(stream, "peek") else io.BufferedReader(stream)  # type: ignore[type-var]
    head = buffered.peek(1)[:HEAD]
    # Of the images that are read only Netpbm's may have no zero byte, and none looks like a text in UTF-16. What comes
    # slowly may have no more than the first bytes here.
    image = not head or IMAGE_HEAD.match(head) or NETPBM.match(head)
    if image or (b"\0" in head and encoding_of(head) == "utf-8-sig" and not head.startswith(codecs.BOM_UTF8)):
        return StandardInput(buffered)
    return named_in(lines_of(buffered.read(MAX_LIST_BYTES + 1), "-"), Path(), "-", leave_out)


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise SourceError("-: standard input is closed; pipe the bytes of an image into it")
    if sys.stdin.isatty():
        raise SourceError("-: standard input is the terminal; pipe the bytes of an image into it")
    return sys.stdin.buffer


class ImageFiles:
    """A source of images that have nothing to do with one another, each read when its turn comes.

    One that cannot be read is a line in the log and one more in `failed`; the others go on. root: the folder that all
    files among them lie under, the current one where there are others.
    """

    moving = False
    live = False
    dropped = 0

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        counts = [entry.count for entry in entries]
        self.total = None if None in counts else sum(count or 0 for count in counts)
        self.name = entries[0].name if len(entries) == 1 else f"{len(entries)} images"
        self.failed = 0

    @property
    def paths(self) -> list[Path]:
        """Those of the images that are files."""
        return [entry.path for entry in self.entries if isinstance(entry, ImageFile)]

    @property
    def root(self) -> Path:
        paths = [entry.path if isinstance(entry, ImageFile) else Path("image") for entry in self.entries]
        return Path(os.path.commonpath([path.absolute().parent for path in paths]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def __iter__(self) -> Iterator[Frame]:
        for index, (name, load) in enumerate(image for entry in self.entries for image in entry.images()):
            try:
                image = load()
            except (SourceError, FetchError) as error:
                self.failed += 1
                log.error("error: %s", error)
            else:
                yield Frame(name, image, index)


def decode_data_url(text: str, name: str = "data URL", *, max_bytes: int = MAX_BYTES) -> bytes:
    """The image file within data:image/...;base64,... (RFC 2397), of at most `max_bytes`.

    Raises SourceError for another form, another type than an image's, and anything among the base64 that does not
    belong there.
    """
    start = DATA_URL.match(text[:1024])
    if not start:
        raise SourceError(f"{name}: data:image/...;base64,... was expected, an image's bytes in base64")
    media_type = start["type"].lower()
    if media_type and not media_type.startswith("image/"):
        raise SourceError(f"{name}: {printable(media_type[:80])} where an image was expected")
    return decode_base64(text[start.end() :], name, max_bytes=max_bytes)


def decode_base64(text: str, name: str, *, max_bytes: int = MAX_BYTES) -> bytes:
    """At most `max_bytes` in base64. Raises SourceError for more, and for a character that is no digit of it."""
    if len(text) // 4 * 3 > max_bytes + 2:
        raise SourceError(f"{name}: more than the {max_bytes} bytes that are read; give a smaller image")
    try:
        if len(text) % 4 or text.endswith("==="):
            raise ValueError("digits come in fours, the last padded")  # Python lets too many = pass
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # binascii's, and that of characters beyond ASCII
        raise SourceError(f"{name}: what was given is not base64 (RFC 4648); was it cut or re-coded?") from None
    if len(data) > max_bytes:
        raise SourceError(f"{name}: {len(data)} bytes where at most {max_bytes} are read; give a smaller image")
    return data
