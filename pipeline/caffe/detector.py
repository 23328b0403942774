"""Detector: a deploy net that scores windows of images, as R-CNN has it (Girshick et al., 2014) and caffe.Detector."""

from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any, NoReturn

import numpy as np

from pipeline.caffe import io
from pipeline.caffe.classifier import ImageNet


class Detector(ImageNet):
    """Detector(model_file, pretrained_file): detect_windows() crops windows, resizes and scores them.

    context_pad: how many pixels of the net's input are to show what surrounds a window; the mean stands where there is
    nothing. The others are ImageNet's.
    """

    def __init__(  # noqa: PLR0917
        self,
        model_file: str,
        pretrained_file: str,
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ) -> None:
        super().__init__(
            model_file,
            pretrained_file,
            mean=mean,
            input_scale=input_scale,
            raw_scale=raw_scale,
            channel_swap=channel_swap,
        )
        self.context_pad = context_pad or 0

    def detect_windows(
        self, images_windows: Iterable[tuple[str | PathLike[str], Iterable[Sequence[int]]]]
    ) -> list[dict[str, Any]]:
        """Score the windows (ymin, xmin, ymax, xmax) of image files.

        Returns a dict for each, in their order: `window`, `prediction` (the net's first output) and `filename`.
        """
        found = []
        crops = []
        for filename, windows in images_windows:
            image = io.load_image(filename).astype(np.float32)
            for window in windows:
                crops.append(self.crop(image, window))
                found.append({"window": window, "prediction": None, "filename": filename})
        for detection, scores in zip(found, self.scores(crops) if crops else (), strict=True):
            detection["prediction"] = scores
        return found

    def detect_selective_search(self, image_fnames: Iterable[str]) -> NoReturn:
        """Caffe asks a MATLAB package for the windows; here they are given to detect_windows()."""
        raise io.ImageError(
            "selective search is a MATLAB package that Caffe calls; find the windows by other means "
            "and give them to detect_windows"
        )

    def crop(self, im: np.ndarray, window: Sequence[int]) -> np.ndarray:
        """A window of an image (H, W, K), with what surrounds it where there is a context_pad."""
        top, left, bottom, right = window
        if not self.context_pad:
            crop = im[top:bottom, left:right]
            if not crop.size or min(top, left) < 0:
                raise io.ImageError(
                    f"window {tuple(window)} where (ymin, xmin, ymax, xmax) within an image of "
                    f"{im.shape[0]}x{im.shape[1]} was expected"
                )
            return crop
        size = self.blobs[self.inputs[0]].width
        scale = size / (size - 2 * self.context_pad)
        half = np.array([bottom - top + 1, right - left + 1]) / 2
        centre = np.array([top, left]) + half
        first, last = np.round(centre - scale * half), np.round(centre + scale * half)
        ratio = size / (last - first + 1)
        pad = np.round(np.maximum(0, -first) * ratio).astype(int)
        limits = np.array(im.shape[:2])
        first, last = (np.clip(place, 0, limits).astype(int) for place in (first, last))
        shown = np.minimum(np.round((last - first + 1) * ratio).astype(int), size - pad)
        if (last <= first).any() or (shown < 1).any():
            raise io.ImageError(
                f"window {tuple(window)} where (ymin, xmin, ymax, xmax) within an image of "
                f"{limits[0]}x{limits[1]} was expected"
            )
        crop = self.surroundings(im.shape[2])
        crop[pad[0] : pad[0] + shown[0], pad[1] : pad[1] + shown[1]] = io.resize_image(
            im[first[0] : last[0], first[1] : last[1]], tuple(shown)
        )
        return crop

    def surroundings(self, channels: int) -> np.ndarray:
        """An input (H, W, K) of nothing but the mean, as an image before it is prepared."""
        name = self.inputs[0]
        height, width = self.blobs[name].shape[2:]
        empty = np.zeros((height, width, channels), np.float32)
        if name not in self.transformer.mean:
            return empty
        mean = self.transformer.mean[name] / self.transformer.raw_scale.get(name, 1)
        if name in self.transformer.channel_swap:
            mean = mean[np.argsort(self.transformer.channel_swap[name])]
        return empty + mean.transpose(1, 2, 0)
