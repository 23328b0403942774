"""What blur, small size and JPEG compression do to a model's answers on PublicTest.

    python benchmarks/robustness.py MODEL CSV [--detector none] [--views 2] [--class-prior training] [--images 500]

MODEL is a model's name or folder, CSV is fer2013.csv, .xz, .gz or .zip. Every 48x48 picture of PublicTest is
worsened and then read as predict reads it: its largest face is found and aligned, or the whole picture is read
where there is none. A model that learned from whole images reads the whole picture always, unless --detector says more.
The table, in Markdown, has accuracy, macro-F1 and macro-recall, the change of accuracy from the pictures as they are,
the share of pictures in which a face was found, and the mean of the greatest probability.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from sklearn.metrics import f1_score, recall_score

from pipeline.base.errors import InputError
from pipeline.classifier import model_folder
from pipeline.classifier.views import COUNTS
from pipeline.data.fer2013_csv import CsvSource
from pipeline.media.frames import Frame
from pipeline.predictor import Predictor
from pipeline.stages.arguments import prior

BATCH = 64
BLURS = (0.5, 1.0, 1.5, 2.0)  # standard deviations in pixels
SIDES = (32, 24, 16, 12)  # pixels that a picture is made smaller to, and enlarged from again
QUALITIES = (50, 30, 20, 10)  # of JPEG

Change = Callable[[np.ndarray], np.ndarray]  # (48, 48) uint8 to the same


def changes() -> Iterator[tuple[str, Change]]:
    """What is done to the pictures, by name."""
    yield "as they are", lambda image: image
    for sigma in BLURS:
        yield f"blur of {sigma:g} pixels", lambda image, sigma=sigma: cv2.GaussianBlur(image, (0, 0), sigma)
    for side in SIDES:
        yield f"{side}x{side} pixels", lambda image, side=side: _small(image, side)
    for quality in QUALITIES:
        yield f"JPEG of quality {quality}", lambda image, quality=quality: _jpeg(image, quality)


def _small(image: np.ndarray, side: int) -> np.ndarray:
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, image.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)


def public_test(path: Path, limit: int | None) -> tuple[list[np.ndarray], np.ndarray, tuple[str, ...]]:
    """Pictures (48, 48), their labels (N,) and the labels' names."""
    source = CsvSource(path)
    found = [image for batch in source.batches() for image in batch() if image.usage == "PublicTest"][:limit]
    if not found:
        raise InputError(f"{path}: no PublicTest images; give the whole fer2013.csv")
    return [image.pixels for image in found], np.array([image.label for image in found]), source.labels


def read(predictor: Predictor, images: list[np.ndarray]) -> tuple[np.ndarray, int]:
    """Probabilities (N, classes) of the largest faces, and in how many images one was found."""
    rows, found = [], 0
    for start in range(0, len(images), BATCH):
        frames = [
            Frame(str(start + place), np.repeat(image[:, :, None], 3, axis=2))
            for place, image in enumerate(images[start : start + BATCH])
        ]
        for reading in predictor.read(frames):
            face = reading.faces[0]
            found += face.status == "found"
            rows.append(list(face.probabilities.values()))
    return np.array(rows), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model's name or folder")
    parser.add_argument("csv", type=Path, help="fer2013.csv, .xz, .gz or .zip")
    parser.add_argument("--detector", help="default: mtcnn, or none for a model that learned from whole images")
    parser.add_argument("--views", type=int, choices=COUNTS, default=1)
    parser.add_argument("--class-prior", type=prior, metavar="PRIOR", help="default: the model's")
    parser.add_argument("--images", type=int, help="only the first so many")
    args = parser.parse_args()
    folder = model_folder.read(model_folder.find(args.model))
    detector = args.detector or ("none" if folder.preprocessing.faces == "images" else "mtcnn")
    predictor = Predictor(folder, detector=detector, no_face="whole", views=args.views, class_prior=args.class_prior)
    images, labels, names = public_test(args.csv, args.images)
    truth = np.array([folder.labels.index(names[label]) for label in labels])
    print(f"{folder.name} {folder.version}, detector {detector}, {len(images):,} images of PublicTest\n")
    print("| pictures | accuracy | change | macro-F1 | macro-recall | faces found | mean probability |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    first = None
    for name, change in changes():
        probabilities, found = read(predictor, [change(image) for image in images])
        predicted = probabilities.argmax(axis=1)
        accuracy = float((predicted == truth).mean())
        first = accuracy if first is None else first
        f1, recall = (score(truth, predicted, average="macro") for score in (f1_score, recall_score))
        print(
            f"| {name} | {accuracy:.2%} | {100 * (accuracy - first):+.2f} | {f1:.4f} | {recall:.4f} | "
            f"{found / len(images):.1%} | {probabilities.max(axis=1).mean():.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
