"""The expression net alone: one face at a time on one core, from a face's 48x48 pixels to calibrated probabilities.

    python benchmarks/face.py [--model NAME] [--rounds 10] [--runs 500]

A round is so many calls of model_folder.Classifier, each with one face; the median round counts. Batches of 16 are
timed too, for comparison. The last line is 1 ms over the time that a face takes.
"""

import argparse
import os
import statistics
import time

import numpy as np

from pipeline.classifier import model_folder

BAR = 1e-3  # seconds
BATCH = 16


def seconds_a_face(classifier: model_folder.Classifier, batch: int, rounds: int, runs: int) -> list[float]:
    """Of each round."""
    wanted = classifier.preprocessing
    shape = (runs, batch, wanted.channels, wanted.height, wanted.width)
    faces = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)  # the time does not depend on the picture
    measured = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        for face in faces:
            classifier(face)
        measured.append((time.perf_counter() - start) / runs / batch)
    return measured[1:]  # the first warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fast", help="a model's name or folder (default fast)")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--runs", type=int, default=500)
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    classifier = model_folder.Classifier(model_folder.read(model_folder.find(args.model)))
    for batch in (BATCH, 1):
        measured = seconds_a_face(classifier, batch, args.rounds, max(1, args.runs // batch))
        median = statistics.median(measured)
        print(
            f"batches of {batch}: {median * 1000:.3f} ms a face in the median round, {min(measured) * 1000:.3f} at "
            f"best, {max(measured) * 1000:.3f} at worst"
        )
    print(f"ratio {BAR / median:.2f}")


if __name__ == "__main__":
    main()
