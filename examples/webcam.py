"""Say whose expression changes in a camera, a video or a stream: python examples/webcam.py cam

Ctrl-C ends it. `cam:1` is another camera; film.mp4 and rtsp:// addresses work as well.
"""

import sys

from pipeline import InputError, Predictor, open_sources


def main(word: str) -> None:
    session = Predictor().session()  # keeps each face's number, and smooths its probabilities
    (source,) = open_sources([word])
    shown: dict[int | None, str] = {}
    with source:
        for frame in source:
            for face in session.read(frame).faces:
                label = "uncertain" if face.uncertain else face.label
                if shown.get(face.track) != label:
                    shown[face.track] = label
                    print(f"{frame.time or 0:7.2f} s  face {face.track}: {label}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        pass
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
