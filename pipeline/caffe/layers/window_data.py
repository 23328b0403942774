"""Data from windows of pictures, which a window file names with what they show (Girshick et al., 2014)."""

import math
import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from pipeline.caffe.data_transformer import Transformer, TransformError
from pipeline.caffe.images import ImageFileError, decode_with_opencv, read_image_file
from pipeline.caffe.layers.image_data import ListedData
from pipeline.caffe.layers.layer import Shape, Tensors, register
from pipeline.caffe.proto.caffe_pb2 import TransformationParameter

MAX_LINE_BYTES = 1 << 16
CHANNELS = 3  # pictures are read in colour, whatever the file says

ImageWindow = tuple[int, int, int, int, int]  # the image's index, then x1, y1, x2, y2, the last pixels counted in


class WindowFileError(ImageFileError):
    """A window file that is none, or a window that does not fit its picture."""


class WindowFile:
    """The pictures of a window file and their windows, those of objects and those of the background.

    For each picture it has: "# index", from 0 on; the path; channels, height and width, of which only channels is
    looked at; how many windows follow; and for each of them class, overlap with an object, x1, y1, x2 and y2. What
    overlaps by fg_threshold or more is an object, what does by less than bg_threshold is background, and the rest is
    left out. Raises WindowFileError naming the first line that is not so.
    """

    def __init__(self, path: Path, fg_threshold: float, bg_threshold: float) -> None:
        self.path = path
        self.paths: list[str] = []
        self.labels = array("i")  # of the objects' windows; background is 0
        self.objects, self.background = array("i"), array("i")  # five numbers a window
        try:
            with path.open("rb") as file:
                self._words = _Words(path, file)
                while self._words.more():
                    self._read_picture(fg_threshold, bg_threshold)
        except OSError as error:
            raise WindowFileError(f"{path}: cannot be read: {error.strerror}") from None
        if not self.paths:
            raise WindowFileError(f"{path}: empty, where '# 0' and a picture's windows were expected")

    def _read_picture(self, fg_threshold: float, bg_threshold: float) -> None:
        words = self._words
        index = len(self.paths)
        mark, number = words.take(2)
        if mark != b"#" or words.integer(number) != index:
            raise words.error(f"'# {index}'", [mark, number])
        (name,) = words.take(1)
        self.paths.append(os.fsdecode(name))
        size = words.take(3)
        if words.integer(size[0]) != CHANNELS:
            raise words.error(f"{CHANNELS} channels", size[:1])
        (count,) = words.take(1)
        for _ in range(words.integer(count)):
            label, overlap, *corners = words.take(6)
            share = words.single(overlap)
            window = [index, *map(words.integer, corners)]
            if window[3] < window[1] or window[4] < window[2]:
                raise words.error("a window x1 y1 x2 y2 of at least one pixel", corners)
            if share >= fg_threshold:
                if words.integer(label) < 1:
                    raise words.error("the class of an object, above 0", [label])
                self.labels.append(words.integer(label))
                self.objects.extend(window)
            elif share < bg_threshold:
                self.background.extend(window)

    def window(self, windows: "array[int]", place: int) -> ImageWindow:
        """One of the objects' or the background's windows."""
        index, x1, y1, x2, y2 = windows[5 * place : 5 * place + 5]
        return index, x1, y1, x2, y2


class _Words:
    """The words of a text file, wherever its lines break; errors name the line."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.file = file
        self.number = 0
        self.words: list[bytes] = []

    def more(self) -> bool:
        """Whether there is another word."""
        while not self.words:
            line = self.file.readline(MAX_LINE_BYTES)
            if not line:
                return False
            if len(line) == MAX_LINE_BYTES:
                raise WindowFileError(
                    f"{self.path}:{self.number + 1}: a line of more than {MAX_LINE_BYTES} bytes, "
                    "where a window file's was expected"
                )
            self.number += 1
            self.words = line.split()
        return True

    def take(self, count: int) -> list[bytes]:
        """The next words."""
        taken: list[bytes] = []
        while len(taken) < count:
            if not self.more():
                raise WindowFileError(
                    f"{self.path}:{self.number}: the file ends in the middle of a picture's windows; is it truncated?"
                )
            wanted = count - len(taken)
            taken += self.words[:wanted]
            self.words = self.words[wanted:]
        return taken

    def integer(self, word: bytes) -> int:
        """A word as an integer of 32 bits."""
        try:
            value = int(word)
        except ValueError:
            raise self.error("an integer", [word]) from None
        if not -(2**31) <= value < 2**31:
            raise self.error("an integer of 32 bits", [word])
        return value

    def single(self, word: bytes) -> np.float32:
        """A word as a number of single precision, in which Caffe compares it."""
        try:
            return np.float32(float(word))
        except ValueError:
            raise self.error("a number", [word]) from None

    def error(self, expected: str, words: Sequence[bytes]) -> WindowFileError:
        """An error about words of the line that was last read; raise it."""
        found = os.fsdecode(b" ".join(words)[:200])
        return WindowFileError(f"{self.path}:{self.number}: {found!r} where {expected} was expected")


@dataclass
class Region:
    """A part of a picture, and where it goes in the crop: pixels x1 to x2 and y1 to y2, the last ones counted in."""

    x1: int
    y1: int
    x2: int
    y2: int
    width: int
    height: int
    left: int = 0
    top: int = 0


def region_around(
    window: Sequence[int], picture: tuple[int, int], size: int, *, context_pad: int, square: bool, mirrored: bool
) -> Region:
    """A window (x1, y1, x2, y2) with its surroundings, as far as a picture of (width, height) has them.

    In single precision, since that decides where a half is rounded to.
    """
    single = np.float32
    scale = single(size) / single(size - 2 * context_pad)
    halves = [single((last - first + 1) / 2) for first, last in zip(window[:2], window[2:], strict=True)]
    centres = [single(first) + half for first, half in zip(window[:2], halves, strict=True)]
    if square:
        halves = [max(halves)] * 2
    parts = []
    for centre, half, room in zip(centres, halves, picture, strict=True):
        first, last = rounded(centre - half * scale), rounded(centre + half * scale)
        before, behind = max(0, -first), max(0, last - room + 1)
        shrink = single(size) / single(last - first + 1)
        first, last = first + before, last - behind
        extent = rounded(single(last - first + 1) * shrink)
        parts.append((first, last, extent, rounded(single(before) * shrink), rounded(single(behind) * shrink)))
    (x1, x2, width, left, right), (y1, y2, height, top, _) = parts
    if mirrored:
        left = right
    return Region(x1, y1, x2, y2, min(width, size - left), min(height, size - top), left, top)


def rounded(value: np.float32) -> int:
    """The nearest integer, halves away from 0."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), value))


@register("WindowData")
class WindowData(ListedData):
    """Windows of pictures, drawn anew for every batch -> data (batch, 3, crop_size, crop_size), label (batch,).

    First batch - floor(batch fg_fraction) windows of the background, label 0, then objects, WindowFile says which are.
    A window is warped to the crop's size, with crop_mode "square" after it was widened to a square; context_pad is how
    many of the crop's pixels on each side show what surrounds it. What of that lies beyond the picture is 0; the rest
    is (pixel - mean) * scale, `scale` window_data_param's own, the mean file read from its middle. cache_images keeps
    the pictures' files in memory (caffe/layers/window_data_layer.cpp).
    """

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param, transform = self.param.window_data_param, self.param.transform_param
        size = transform.crop_size
        if size < 1:
            raise self.error(f"transform_param's crop_size {size} where at least 1 was expected")
        self.check_batch(param.batch_size, CHANNELS, size, size)
        if param.crop_mode not in ("warp", "square"):
            raise self.error(f"crop_mode '{param.crop_mode}' where warp or square was expected")
        if 2 * param.context_pad >= size:
            raise self.error(f"context_pad {param.context_pad} on both sides leaves nothing of a crop_size of {size}")
        if not 0 <= param.fg_fraction <= 1:
            raise self.error(f"fg_fraction {param.fg_fraction:g} where 0 to 1 was expected")
        self.note_ignored("window_data_param", ("mean_file", "crop_size", "mirror"))
        self.note_ignored("transform_param", ("scale", "force_color", "force_gray"))
        self.mean = self.mean_of(transform, size)
        self.file = WindowFile(Path(param.source), param.fg_threshold, param.bg_threshold)
        self.object_count = int(np.float32(param.batch_size) * np.float32(param.fg_fraction))
        for name, wanted, windows in (
            ("objects", self.object_count, self.file.objects),
            ("background", param.batch_size - self.object_count, self.file.background),
        ):
            if wanted and not windows:
                raise self.error(
                    f"{param.source} has no windows of {name}, of which a batch takes {wanted}; look at "
                    "fg_threshold, bg_threshold and fg_fraction"
                )
        self.cached: dict[int, bytes] = {}
        self.random = np.random.Generator(np.random.PCG64(self.draw_seed()))
        self.shapes = [(param.batch_size, CHANNELS, size, size), (param.batch_size,)]
        return self.shapes

    def mean_of(self, transform: TransformationParameter, size: int) -> np.ndarray:
        """What is subtracted from a crop, (3, 1, 1) or (3, size, size): of a mean file the part that Caffe takes."""
        try:
            mean = Transformer(transform, self.param.phase).mean
        except TransformError as error:
            raise self.error(str(error)) from None
        if mean is None:
            return np.zeros((CHANNELS, 1, 1), np.float32)
        if not transform.mean_file:
            if len(mean) not in (1, CHANNELS):
                raise self.error(f"{len(mean)} mean_value where 1 or {CHANNELS} were expected")
            return np.broadcast_to(mean, (CHANNELS, 1, 1))
        start = (mean.shape[2] - size) // 2  # down as well: Caffe takes means to be square
        middle = mean[:, start : start + size, start : start + size]
        if start < 0 or middle.shape != (CHANNELS, size, size):
            raise self.error(
                f"{transform.mean_file}: a mean of shape {mean.shape} where {size}x{size} pixels of "
                f"{CHANNELS} channels from {start} on were expected"
            )
        return middle

    def forward(self, bottom: Tensors) -> Tensors:
        batch, size = self.param.window_data_param.batch_size, self.param.transform_param.crop_size
        data, labels = np.zeros((batch, CHANNELS, size, size), np.float32), np.zeros(batch, np.float32)
        for item in range(batch):
            is_object = item >= batch - self.object_count
            windows = self.file.objects if is_object else self.file.background
            place = int(self.random.integers(len(windows) // 5))
            mirrored = self.param.transform_param.mirror and bool(self.random.integers(2))
            self.crop(self.file.window(windows, place), mirrored, data[item])
            if is_object:
                labels[item] = self.file.labels[place]
        return [torch.from_numpy(data), torch.from_numpy(labels)]

    def crop(self, window: ImageWindow, mirrored: bool, top: np.ndarray) -> None:
        """Put a window of its picture into `top` (3, size, size), which is 0."""
        import cv2

        param = self.param.window_data_param
        index, *corners = window
        name = f"{self.file.path}: {self.file.paths[index]}"
        image = decode_with_opencv(self.file_of(index, name), name, color=True)
        height, width = image.shape[:2]
        square = param.crop_mode == "square"
        if param.context_pad or square:
            region = region_around(
                corners, (width, height), top.shape[1], context_pad=param.context_pad, square=square, mirrored=mirrored
            )
        else:
            region = Region(*corners, *top.shape[1:])
        within = 0 <= region.x1 <= region.x2 < width and 0 <= region.y1 <= region.y2 < height
        if not within or min(region.width, region.height) < 1:
            raise WindowFileError(
                f"{name}: window {' '.join(map(str, corners))} where one within its {width}x{height} "
                "pixels was expected"
            )
        part = image[region.y1 : region.y2 + 1, region.x1 : region.x2 + 1]
        pixels = cv2.resize(part, (region.width, region.height))[:, :: -1 if mirrored else 1]
        place = np.s_[:, region.top : region.top + region.height, region.left : region.left + region.width]
        mean = np.broadcast_to(self.mean, top.shape)[place]
        top[place] = (pixels.transpose(2, 0, 1) - mean) * np.float32(param.scale)

    def file_of(self, index: int, name: str) -> bytes:
        """The bytes of a picture's file."""
        param = self.param.window_data_param
        if index in self.cached:
            return self.cached[index]
        data = read_image_file(param.root_folder + self.file.paths[index], name)
        if param.cache_images:
            self.cached[index] = data
        return data

    def state(self) -> dict[str, Any]:
        return dict(self.random.bit_generator.state)

    def restore(self, state: dict[str, Any]) -> None:
        self.random.bit_generator.state = state
