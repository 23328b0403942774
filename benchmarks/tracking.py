"""Who is who: drawn films of two to six people who stand, cross, or leave and return, followed at several frame rates.

    python benchmarks/tracking.py [--people 2,3,4,5,6] [--rates 25,10,6,4,1] [--seconds 14]

A switch is a person whose number is another than it was when she was last seen. A person is there to be seen while less
than a third of her face is hidden or outside. Every film is drawn from the portrait that comes with matplotlib, tinted,
which leaves less to tell people apart by than their faces do.
"""

import argparse
import sys
import time
from pathlib import Path

from environments import keep_to_two_cores

from pipeline.faces.detector import build_detector
from pipeline.faces.landmarks import Landmarker
from pipeline.faces.tracking import Tracker

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from helpers.films import crossing, film, leaving, score, staying  # the films that the tests draw


def numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=numbers, default=[2, 3, 4, 5, 6])
    parser.add_argument("--rates", type=numbers, default=[25, 10, 6, 4, 1], help="frames a second")
    parser.add_argument("--seconds", type=float, default=14, help="of each film")
    args = parser.parse_args()
    keep_to_two_cores()
    detector, landmarker = build_detector("mtcnn", min_face=40, threads=1), Landmarker()
    print("film      people  frames/s  faces  missed  numbers  switches  ms/frame")
    for walks in (staying, leaving, crossing):
        for people in map(int, args.people):
            for rate in args.rates:
                frames = list(film(walks(people), seconds=args.seconds, rate=rate))
                tracker = Tracker(detector, landmarker)
                start = time.perf_counter()
                result = score(frames, [tracker.update(frame.image, frame.time) for frame in frames])
                took = 1000 * (time.perf_counter() - start) / len(frames)
                print(
                    f"{walks.__name__:8}  {people:6}  {rate:8g}  {result.seen:5}  {result.missed:6}  "
                    f"{result.numbers:7}  {result.switches:8}  {took:8.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
