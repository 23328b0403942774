"""Where frames come from, each kind by one word: images, videos, cameras, streams."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from pipeline.base.console import log, printable
from pipeline.base.errors import SourceError
from pipeline.media.fetch import StatusError, look, without_credentials
from pipeline.media.frames import FrameSource
from pipeline.media.sources import video
from pipeline.media.sources.camera import Camera
from pipeline.media.sources.images import (
    Entry,
    ImageAddress,
    ImageFile,
    ImageFiles,
    StandardInput,
    decode_base64,
    decode_data_url,
    standard_input,
)
from pipeline.media.sources.paths import IMAGES, VIDEOS, Found, find, passed_over
from pipeline.media.sources.stream import Stream, has_an_end
from pipeline.media.sources.video import VideoAddress, VideoReader

__all__ = [
    "ImageFiles",
    "SourceError",
    "VideoReader",
    "decode_base64",
    "decode_data_url",
    "is_live",
    "open_sources",
]

CAMERA = re.compile(r"cam(?::(?P<number>[0-9]{1,4}))?|(?P<path>/dev/(?:video[0-9]+|v4l/.+))")
ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")
STREAMS = ("rtsp", "rtsps")
PLAYLISTS = ("application/vnd.apple.mpegurl", "application/x-mpegurl", "audio/mpegurl", "audio/x-mpegurl")
# What servers call pages, archives and documents.
NO_PICTURE = (
    "text/html",
    "application/xhtml+xml",
    "application/json",
    "application/pdf",
    "application/zip",
    "application/gzip",
    "application/x-tar",
    "application/x-7z-compressed",
    "application/msword",
    "application/rtf",
    "application/vnd.rar",
)
DOCUMENTS = ("application/vnd.openxmlformats", "application/vnd.ms-", "application/vnd.oasis", "application/x-rar")


def open_sources(inputs: Sequence[str], leave_out: Collection[Path] = ()) -> list[FrameSource]:
    """The sources that words stand for: all images together as the first, then every video, camera and stream.

    cam, cam:N or a device is a camera; rtsp(s)://... a stream; http(s)://... what the server says it is, which is asked
    here; - the images on standard input, or a list of them; everything else a file, a folder with all below it, a
    pattern, or a list of files (.txt, .lst). A file is taken once. What is neither an image nor a video in a folder, a
    pattern or beside other words is passed over, and told once. leave_out: folders and files that no folder or pattern
    stands for, as this run writes them. Raises SourceError or FetchError for a word that stands for nothing.
    """
    passed: list[Path] = []
    entries: list[Entry] = []
    moving: dict[object, FrameSource] = {}
    for word in dict.fromkeys(inputs):
        scheme = ADDRESS.match(word)
        found: Found | StandardInput | None = None
        if word == "-":
            found = standard_input(leave_out)
        elif word.startswith("cam:") or CAMERA.fullmatch(word):
            moving[word] = _camera(word)
        elif scheme:
            source = _address(word, scheme["scheme"].lower())
            if isinstance(source, ImageAddress):
                entries.append(source)
            else:
                moving[word] = source
        else:
            found = find(word, alone=len(inputs) == 1, leave_out=leave_out)
        if isinstance(found, StandardInput):
            entries.append(found)
        elif found is not None:
            passed += found.passed
            entries += [ImageFile(path) for path in found.images]
            moving |= {path: VideoReader(path) for path in found.videos}
    if passed and not entries and not moving:
        raise SourceError(f"{passed_over(passed)}, where at least one image or video was expected")
    if passed:
        log.warning("passed over: %s", passed_over(list(dict.fromkeys(passed))))
    images: list[FrameSource] = [ImageFiles(list(dict.fromkeys(entries)))] if entries else []
    return images + list(moving.values())


def is_live(word: str) -> bool:
    """Whether a word says by itself that it never ends: a camera, a stream, an address that names no kind of file."""
    scheme = ADDRESS.match(word)
    if not scheme:
        return bool(CAMERA.fullmatch(word))
    return scheme["scheme"].lower() in STREAMS or _suffix(word) not in IMAGES + VIDEOS


def _camera(word: str) -> Camera:
    match = CAMERA.fullmatch(word)
    if not match:
        raise SourceError(f"{printable(word)}: no camera; cam, cam:N with N from 0 on, or a device such as /dev/video0")
    return Camera(Path(match["path"]) if match["path"] else int(match["number"] or 0))


def _address(url: str, scheme: str) -> ImageAddress | VideoAddress | Stream:
    """What an address holds, by its scheme and by the type and length that an http server states."""
    if scheme in STREAMS:
        return Stream(url)
    if scheme not in ("http", "https"):
        raise SourceError(f"{without_credentials(url)}: {scheme}:// where rtsp, rtsps, http or https was expected")
    try:
        content = look(url, timeout=video.OPEN_SECONDS)
    except StatusError as error:
        if error.status == 401 and "@" in url:  # a camera that wants a digest of the password, as FFmpeg can make it
            return Stream(url)
        raise
    suffix = _suffix(url)
    kind = content.media_type
    if kind in PLAYLISTS or suffix == ".m3u8":
        return VideoAddress(url) if has_an_end(url) else Stream(url)
    if kind.startswith("image/") or (suffix in IMAGES and not kind.startswith(("video/", "multipart/", "text/"))):
        return ImageAddress(url)
    if kind in NO_PICTURE or kind.startswith(DOCUMENTS):
        raise SourceError(
            f"{without_credentials(url)}: {kind} where an image, video or stream was expected; a page that shows one "
            "has another address than the thing itself"
        )
    return VideoAddress(url) if content.length is not None else Stream(url)


def _suffix(url: str) -> str:
    return PurePosixPath(re.split(r"[?#]", url, maxsplit=1)[0]).suffix.lower()
