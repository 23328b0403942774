"""Reading a video: 1280x720 in H.264 with two faces that move, followed from frame to frame; files in, JSON out.

    python benchmarks/video.py [--video FILE] [--seconds 40] [--repeats 3] [--every SECONDS]

Without --video one is made from the portrait that comes with matplotlib. Every run is `python -m pipeline predict` on
two cores, timed from the start of its process to its end; a frame counts as classified when every face in it, of which
the video made here has two at least, has its probabilities. The last line is the best run's classified frames a
second over 60.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from environments import keep_to_two_cores
from pictures import make_video
from processes import run

BAR = 60  # frames a second
SIZE = 1280, 720
FACES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, help="one of your own")
    parser.add_argument("--seconds", type=float, default=40, help="of the video that is made (default 40)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--every", type=float, help="seconds from one detection to the next (default: the command's)")
    args = parser.parse_args()
    keep_to_two_cores()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = args.video or make_video(folder / "video.mp4", SIZE, args.seconds)
        output = folder / "readings.jsonl"
        command = [sys.executable, "-m", "pipeline", "predict", video, "--json", output]
        rates = []
        for _ in range(args.repeats):
            usage = run(command + (["--every", str(args.every)] if args.every is not None else []))
            frames = [json.loads(line)["faces"] for line in output.read_text().splitlines()]
            classified = [faces for faces in frames if faces and all(face["probabilities"] for face in faces)]
            if not args.video:
                classified = [faces for faces in classified if len(faces) >= FACES]
            people = {face["track"] for faces in frames for face in faces}
            rates.append(len(classified) / usage.seconds)
            print(
                f"{len(frames)} frames, {len(classified)} classified, {len(people)} people, {usage}: "
                f"{rates[-1]:.1f} classified frames/s",
                flush=True,
            )
    print(f"ratio {max(rates) / BAR:.2f}")


if __name__ == "__main__":
    main()
