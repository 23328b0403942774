"""What FFmpeg does not look at in a video file: whether it begins as it should, and has all that it states."""

import re
import struct
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

# Demuxers of pictures or a bare stream, which FFmpeg also takes for what only holds such somewhere: how these begin.
BARE = {
    **dict.fromkeys(("jpeg_pipe", "mjpeg"), (b"\xff\xd8\xff",)),
    **dict.fromkeys(("h264", "hevc", "m4v", "mpegvideo"), (b"\0\0\1", b"\0\0\0\1")),
}
ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # GUID, size, file's GUID, its size

EBML, SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")  # elements of Matroska (RFC 8794, RFC 9559)
OGG_PAGE = 27 + 255 + 255 * 255  # bytes of the longest one (RFC 3533, 6)
JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
JPEG_TAIL = 1 << 24  # bytes at a file's end, in which the last picture of Motion JPEG begins
PACK, PACKS_TAIL = b"\0\0\1\xba", 1 << 18  # of MPEG-PS: what a pack begins with; bytes that hold several packs
Y4M, Y4M_FRAME = b"YUV4MPEG2 ", b"FRAME"
# Of Y4M's colour spaces (mjpegtools, yuv4mpeg.5), how many columns and rows share a sample of each colour.
Y4M_COLOURS = {b"420": (2, 2), b"411": (4, 1), b"422": (2, 1), b"444": (1, 1)}
IVF_HEAD, IVF_FRAME_HEAD = 32, 12  # bytes (wiki.multimedia.cx/index.php/Duck_IVF)
DV = b"\x1f\x07\0"
DV_SEQUENCE = 12_000  # bytes of DV: ten make a frame of NTSC, twelve of PAL (IEC 61834-2)
MAX_PARTS = 1 << 19  # of a file that are looked at, some seconds' work: two for each of 250,000 fragments
TS_PACKETS = ((0, 188), (4, 192))  # where MPEG-TS's mark stands in a packet, and the bytes of one


def begins_as(path: Path, demuxer: str) -> bool:
    """Whether a file begins as what FFmpeg takes it for does. Raises OSError."""
    if demuxer not in BARE:
        return True
    with path.open("rb") as file:
        return file.read(4).startswith(BARE[demuxer])


def cut(path: Path) -> str | None:
    """What is said by a video file that has less than it states, None where it is whole or states nothing.

    AVI, ASF (WMV), MP4 and Matroska (WebM) state the size of their parts; FLV ends with the size of its last tag, Ogg
    with a page that says so; MPEG-TS has whole packets, MPEG-PS packets that state their size; Motion JPEG, Y4M, IVF
    and DV have whole pictures. Raw H.264 and its like say nothing of their end. Raises OSError.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(4096)
        stated = _stated(file, start, size)
        if stated is not None:
            return f"has {size:,} of the {stated:,} bytes that it states" if stated > size else None
        return None if _has_its_end(file, start, size) else "its last part is cut"


def _stated(file: BinaryIO, start: bytes, size: int) -> int | None:
    """The bytes that a file which begins so says it has, None for one of a kind that does not say it."""
    if start.startswith(ASF) and (at := start.find(ASF_FILE_PROPERTIES)) >= 0 and len(start) >= at + 48:
        return int(struct.unpack_from("<Q", start, at + 40)[0])
    if start.startswith(EBML):
        return _end_of_segment(start)
    ends = next((ends for at, mark, ends in PARTS if start.startswith(mark, at)), None)
    return None if ends is None else _end_of_parts(ends(file, size), size)


def _has_its_end(file: BinaryIO, start: bytes, size: int) -> bool:
    """Whether a file that begins so ends as its kind does; True for a kind that may end anywhere."""
    if start.startswith(b"FLV") and size > 13:
        file.seek(-4, 2)
        (last,) = struct.unpack(">I", file.read(4))
        file.seek(max(0, size - 4 - last))
        tag = file.read(4)  # its kind, and the length of what follows its eleven bytes
        return 11 <= last <= size - 13 and tag[0] & 0x1F in (8, 9, 18) and int.from_bytes(tag[1:]) + 11 == last
    if start.startswith(b"OggS"):
        file.seek(max(0, size - OGG_PAGE))
        tail = file.read()
        page = tail[max(0, tail.rfind(b"OggS")) :]  # whether it is the last one stands in its sixth byte
        parts = page[27 : 27 + page[26]] if len(page) > 26 else b""
        return len(page) >= 27 + len(parts) + sum(parts) and bool(page[5] & 4)
    if start.startswith(JPEG_START):
        file.seek(max(0, size - JPEG_TAIL))
        tail = file.read()
        return tail.rfind(JPEG_START) < tail.rfind(JPEG_END)
    if start.startswith(DV) and len(start) > 3:
        return size % (DV_SEQUENCE * (12 if start[3] & 0x80 else 10)) == 0
    return not any(start[at::step][:5] == b"\x47" * 5 and size % step for at, step in TS_PACKETS)


def _end_of_parts(ends: Iterator[int], size: int) -> int | None:
    """The last of the places where the parts of a file say that they end, 0 without any.

    None for a file of more than MAX_PARTS: it is not looked at to its end.
    """
    end = 0
    for end in islice(ends, MAX_PARTS):
        if end >= size:
            return end
    return end if next(ends, None) is None else None


def _ends_of_riff(file: BinaryIO, size: int) -> Iterator[int]:
    """Of an AVI: of its RIFF chunks, one after the other (OpenDML)."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        mark, length = struct.unpack("<4sI", file.read(8))
        if mark != b"RIFF" or length in (0, 0xFFFFFFFF):  # of one that was written without going back, nothing
            return
        end += 8 + length + (length & 1)
        yield end - (end - size == 1)  # the last may lack what would make its length even


def _ends_of_boxes(file: BinaryIO, size: int) -> Iterator[int]:
    """Of an MP4: of the boxes that hold pictures (ISO/IEC 14496-12, 4.2), of each other one that of those before."""
    end = place = 0
    while place < size:
        file.seek(place)
        header = file.read(16)
        if len(header) < 16:
            return
        length, kind = struct.unpack_from(">I4s", header)
        if length == 1:
            (length,) = struct.unpack_from(">Q", header, 8)
        if length < 8:  # 0: up to the file's end
            return
        place += length
        if kind in (b"moov", b"moof", b"mdat"):
            end = place
        yield end


def _ends_of_pictures(file: BinaryIO, size: int) -> Iterator[int]:
    """Of a Y4M: of its frames, each of the length that the header gives all of them."""
    file.seek(0)
    header = file.readline(256)
    fields = {field[:1]: field[1:] for field in header.split()[1:]}
    colour = re.fullmatch(rb"(mono|4[0-4][0-4])(alpha|.*?)(p?[0-9]+)?", fields.get(b"C", b"420jpeg"))
    if colour is None or not (fields.get(b"W", b"").isdigit() and fields.get(b"H", b"").isdigit()):
        return
    width, height = int(fields[b"W"]), int(fields[b"H"])
    samples = width * height * (2 if colour[2] == b"alpha" else 1)
    if colour[1] in Y4M_COLOURS:
        columns, rows = Y4M_COLOURS[colour[1]]
        samples += 2 * -(-width // columns) * -(-height // rows)
    deep = colour[3] is not None and int(colour[3].removeprefix(b"p")) > 8
    place = len(header)
    while place < size:
        file.seek(place)
        line = file.readline(256)
        if not line.startswith(Y4M_FRAME[: len(line)]):
            return
        place += max(len(line), len(Y4M_FRAME) + 1) + samples * (2 if deep else 1)
        yield place


def _ends_of_ivf(file: BinaryIO, size: int) -> Iterator[int]:
    place = IVF_HEAD
    while place < size:
        file.seek(place)
        place += IVF_FRAME_HEAD + int.from_bytes(file.read(4), "little")
        yield place


def _ends_of_packs(file: BinaryIO, size: int) -> Iterator[int]:
    """Of an MPEG-PS: of what its last packs hold (ISO/IEC 13818-1, 2.5.3; of MPEG-1, ISO/IEC 11172-1, 2.4.3)."""
    file.seek(max(0, size - PACKS_TAIL))
    tail = file.read()
    at = tail.find(PACK)
    while 0 <= at < len(tail) and tail.startswith(b"\0\0\1", at):
        kind = tail[at + 3 : at + 4]
        if kind == PACK[3:]:
            at += 12 if tail[at + 4 : at + 5] < b"\x40" else 14 + (int.from_bytes(tail[at + 13 : at + 14]) & 7)
        elif kind == b"\xb9":  # the end
            at += 4
        else:
            at += 6 + int.from_bytes(tail[at + 4 : at + 6])
        yield size - len(tail) + at


# How files of parts begin: where which bytes stand, and where the parts say that they end.
PARTS: tuple[tuple[int, bytes, Callable[[BinaryIO, int], Iterator[int]]], ...] = (
    (8, b"AVI ", _ends_of_riff),
    (4, b"ftyp", _ends_of_boxes),
    (0, Y4M, _ends_of_pictures),
    (0, b"DKIF", _ends_of_ivf),
    (0, PACK, _ends_of_packs),
)


def _end_of_segment(start: bytes) -> int:
    """Bytes up to where the segment of a Matroska that begins so says that it ends, 0 where it does not say."""
    header, at = _vint(start, 4)
    at += header or 0
    if start[at : at + 4] != SEGMENT:
        return 0
    length, at = _vint(start, at + 4)
    return 0 if length is None else at + length


def _vint(data: bytes, at: int) -> tuple[int | None, int]:
    """A number of as many bytes as its leading zero bits say, and where it ends; None for "unknown" or no data."""
    if at >= len(data):
        return None, at
    more = 8 - data[at].bit_length()
    value = int.from_bytes(data[at : at + 1 + more]) & ((1 << 7 * (1 + more)) - 1)
    return (None if value == (1 << 7 * (1 + more)) - 1 else value), at + 1 + more
