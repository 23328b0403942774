"""What FFmpeg does not look at in a video file: whether it begins as it should, and has all that it states."""

import struct
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
    with a page that says so; MPEG-TS has whole packets. Raises OSError.
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
    if start[:4] == b"RIFF" and start[8:12] == b"AVI ":
        return _end_of_riff(file, size)
    if start.startswith(ASF) and (at := start.find(ASF_FILE_PROPERTIES)) >= 0 and len(start) >= at + 48:
        return int(struct.unpack_from("<Q", start, at + 40)[0])
    if start[4:8] == b"ftyp":
        return _end_of_boxes(file, size)
    if start.startswith(EBML):
        return _end_of_segment(start)
    return None


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
    return not any(start[at::step][:5] == b"\x47" * 5 and size % step for at, step in TS_PACKETS)


def _end_of_riff(file: BinaryIO, size: int) -> int:
    """Bytes up to where the RIFF chunks of an AVI, one after the other (OpenDML), say that they end."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        mark, length = struct.unpack("<4sI", file.read(8))
        if mark != b"RIFF" or length in (0, 0xFFFFFFFF):  # of one that was written without going back, nothing
            break
        end += 8 + length + (length & 1)
    return end - (end - size == 1)  # the last may lack what would make its length even


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Bytes up to where the boxes of an MP4 that hold pictures say that they end (ISO/IEC 14496-12, 4.2)."""
    end = place = 0
    while place < size:
        file.seek(place)
        header = file.read(16)
        if len(header) < 16:
            break
        length, kind = struct.unpack_from(">I4s", header)
        if length == 1:
            (length,) = struct.unpack_from(">Q", header, 8)
        if length < 8:  # 0: up to the file's end
            break
        place += length
        if kind in (b"moov", b"moof", b"mdat"):
            end = place
    return end


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
