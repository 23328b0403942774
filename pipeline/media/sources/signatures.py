"""What a file is by its first bytes, where it is no video: FFmpeg finds pictures in archives and documents, too."""

import struct
from pathlib import Path

# Where a file's kind is told, what stands there, and what it is. From the formats' own specifications.
SIGNATURES = (
    (0, b"PK\x03\x04", "a ZIP archive, or a document that is one,"),
    (0, b"PK\x05\x06", "an empty ZIP archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"\x1f\x8b", "gzip data"),
    (0, b"BZh", "bzip2 data"),
    (0, b"\xfd7zXZ\0", "xz data"),
    (0, b"\x28\xb5\x2f\xfd", "zstd data"),
    (0, b"!<arch>\n", "an ar archive"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"{\\rtf", "an RTF document"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document of Microsoft Office, or Thumbs.db,"),
    (0, b"<", "a page or other text in angle brackets"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program"),
    (0, b"SQLite format 3\0", "an SQLite database"),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5 data"),
    (0, b"\x93NUMPY", "a numpy array"),
    (0, b"8BPS", "a Photoshop picture, which is not read,"),
    (0, b"ID3", "a sound file"),
    (0, b"fLaC", "a sound file"),
    (8, b"WAVE", "a sound file"),
    (0, b"\0\x05\x16\x07", "what macOS keeps beside a file (AppleDouble)"),
)
# Demuxers of pictures or a bare stream, which FFmpeg also takes for what only holds such somewhere: how these begin.
BARE = {
    **dict.fromkeys(("jpeg_pipe", "mjpeg"), (b"\xff\xd8\xff",)),
    **dict.fromkeys(("h264", "hevc", "m4v", "mpegvideo"), (b"\0\0\1", b"\0\0\0\1")),
}
ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # GUID, size, file's GUID, its size


def kind_of(path: Path) -> str | None:
    """What a file is that is no video, None for anything else. Raises OSError."""
    with path.open("rb") as file:
        start = file.read(512)
    return next((kind for at, mark, kind in SIGNATURES if start[at : at + len(mark)] == mark), None)


def begins_as(path: Path, demuxer: str) -> bool:
    """Whether a file begins as what FFmpeg takes it for does. Raises OSError."""
    if demuxer not in BARE:
        return True
    with path.open("rb") as file:
        return file.read(4).startswith(BARE[demuxer])


def cut(path: Path) -> str | None:
    """What is said by a video file that has less than it states, None where it is whole or states nothing.

    AVI and ASF (WMV) state their size; FLV ends with the size of its last tag. Raises OSError.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(4096)
        if start[:4] == b"RIFF" and start[8:12] == b"AVI ":
            return _less(size, _end_of_riff(path, size))
        if start.startswith(ASF) and (at := start.find(ASF_FILE_PROPERTIES)) >= 0 and len(start) >= at + 48:
            return _less(size, struct.unpack_from("<Q", start, at + 40)[0])
        if start.startswith(b"FLV") and size > 13:
            file.seek(-4, 2)
            (last,) = struct.unpack(">I", file.read(4))
            file.seek(max(0, size - 4 - last))
            tag = file.read(4)  # its kind, and the length of what follows its eleven bytes
            whole = 11 <= last <= size - 13 and tag[0] & 0x1F in (8, 9, 18) and int.from_bytes(tag[1:]) + 11 == last
            return None if whole else "its last part is cut"
    return None


def _less(size: int, stated: int) -> str | None:
    return f"has {size:,} of the {stated:,} bytes that it states" if stated > size else None


def _end_of_riff(path: Path, size: int) -> int:
    """Bytes up to where the RIFF chunks of an AVI, one after the other (OpenDML), say that they end."""
    end = 0
    with path.open("rb") as file:
        while end + 8 <= size:
            file.seek(end)
            mark, length = struct.unpack("<4sI", file.read(8))
            if mark != b"RIFF" or length in (0, 0xFFFFFFFF):  # of one that was written without going back, nothing
                break
            end += 8 + length + (length & 1)
    return end - (end - size == 1)  # the last may lack what would make its length even
