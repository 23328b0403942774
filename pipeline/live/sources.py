"""Where frames come from: image files and folders."""

import glob
import os
import struct
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from pipeline.console import log
from pipeline.live.frames import Frame, SourceError

SUFFIXES = (".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif",
            ".tiff", ".webp")  # fmt: skip
MAX_PIXELS = 1 << 27  # 134 megapixels, 400 MB as RGB: above any phone's picture, below what empties a machine
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error)  # all of them raised by Pillow's readers


class ImageFiles:
    """The images that paths, folders (with all below them) and glob patterns stand for, each file once.

    A file that cannot be read is one line in the log and one more in `failed`; the others go on.
    Raises SourceError when an input stands for no image at all. root: the folder that all of them lie under.
    """

    def __init__(self, inputs: Sequence[str]) -> None:
        self.paths = list(dict.fromkeys(path for name in inputs for path in _image_paths(name)))
        self.failed = 0

    @property
    def root(self) -> Path:
        return Path(os.path.commonpath([path.absolute().parent for path in self.paths]))

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Frame]:
        for path in self.paths:
            try:
                image = read_image(path)
            except SourceError as error:
                self.failed += 1
                log.error("error: %s", error)
            else:
                yield Frame(str(path), image)


def _image_paths(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        paths = sorted(
            Path(folder, file)
            for folder, _, files in os.walk(path)
            for file in files
            if Path(file).suffix.lower() in SUFFIXES
        )
        if not paths:
            raise SourceError(
                f"{name}: no image in this folder or below it where at least one was expected ({' '.join(SUFFIXES)})"
            )
        return paths
    if path.exists():
        return [path]
    paths = sorted(Path(match) for match in glob.glob(name, recursive=True) if os.path.isfile(match))
    if not paths:
        raise SourceError(f"{name}: no such file, folder or pattern of image files; check the path")
    return paths


def read_image(path: Path) -> np.ndarray:
    """Read an image file to (H, W, 3) uint8 RGB.

    Turned upright as its EXIF orientation says; grey and palette spread to RGB; 16 bits cut to the upper 8;
    transparency laid on white; CMYK converted; of an animation the first frame. Raises SourceError naming the file
    when it is no image, is damaged or truncated, or has more than MAX_PIXELS pixels.
    """
    try:
        # Pillow warns of metadata that does not matter here.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise SourceError(
                    f"{path}: {image.width}x{image.height} pixels where at most {MAX_PIXELS} are read; "
                    "scale the image down"
                )
            return _rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError:
        raise SourceError(f"{path}: more than {MAX_PIXELS} pixels; scale the image down") from None
    except Image.UnidentifiedImageError:
        reason = "an empty file" if path.stat().st_size == 0 else "no image of a known format"
        raise SourceError(f"{path}: {reason} where an image was expected") from None
    except UNREADABLE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SourceError(f"{path}: cannot be read as an image: {reason}") from None


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16-bit grey; "I" is 32 bits wide but holds 16 where files have them
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("floating-point pixels where 8 or 16 bits were expected")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))
