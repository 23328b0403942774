"""What a server could gain by reading the pictures of several requests together, on one core.

    python benchmarks/batching.py [--model NAME] [--rounds 10] [--batch 8]

Photos with one face each are read one by one and in a batch, in turns, and so are their faces by the net alone. The
seconds are those of the processor, so that other work on the machine counts less. Answers must be equal.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.cbook import get_sample_data

from pipeline.base.image_files import decode_image
from pipeline.media.frames import Frame
from pipeline.predictor import Predictor


def compare(what: str, read: Callable[[Any], Sequence[Any]], items: Any, rounds: int) -> None:
    """Print the median milliseconds an item, alone and in a batch."""
    alone: list[float] = []
    together: list[float] = []
    for _ in range(rounds):
        start = time.thread_time()
        one_by_one = [read(items[index : index + 1])[0] for index in range(len(items))]
        middle = time.thread_time()
        batch = read(items)
        together.append((time.thread_time() - middle) / len(items))
        alone.append((middle - start) / len(items))
        if not all(np.array_equal(one, other) for one, other in zip(one_by_one, batch, strict=True)):
            raise SystemExit(f"{what}: answers depend on the batch")
    one, other = statistics.median(alone), statistics.median(together)
    print(f"{what}: alone {1000 * one:.2f} ms, in a batch {1000 * other:.2f} ms, ratio {one / other:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="accurate", help="a model's name or folder (default accurate)")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    predictor = Predictor(args.model)
    with get_sample_data("grace_hopper.jpg") as file:
        photo = Frame("photo", decode_image(file.read(), "photo"))
    faces = np.random.default_rng(0).integers(0, 256, (args.batch, 1, 48, 48), dtype=np.uint8)
    compare("a face in the net", predictor.classifier, faces, 10 * args.rounds)
    compare("a photo", predictor.read, [photo] * args.batch, args.rounds)


if __name__ == "__main__":
    main()
