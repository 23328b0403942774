"""What a file is by its first bytes, where it is no image."""

HEAD = 512  # bytes, as many as tell a file's kind

# A place in a file, the bytes that stand there, and the kind of file that has them. From the formats' specifications.
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
# The same of videos of the usual kinds.
VIDEO_SIGNATURES = (
    (4, b"ftyp"),
    (0, b"\x1aE\xdf\xa3"),
    (8, b"AVI "),
    (0, b"FLV"),
    (0, b"OggS"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    (0, b"\0\0\1\xba"),
)


def kind_of(start: bytes) -> str | None:
    """What a file is that begins so and holds neither an image nor a video; None for anything else."""
    return next((kind for at, mark, kind in SIGNATURES if start.startswith(mark, at)), None)


def is_video(start: bytes) -> bool:
    """Whether a file that begins so is a video of a usual kind."""
    return any(start.startswith(mark, at) for at, mark in VIDEO_SIGNATURES)
