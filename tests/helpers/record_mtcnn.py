"""Record what the PyPI package mtcnn 1.0.0 finds in tests/recorded/mtcnn.png, a sheet of 8x5 drawn faces of 48x48: in
each face for itself, in batch mode; in the sheet as one image; and in the sheet with TINT, which tells RGB from BGR. In
the environment that benchmarks/align.py makes:

    FOLDER/bin/python tests/helpers/record_mtcnn.py
"""

import json
from pathlib import Path

import numpy as np
from mtcnn import MTCNN
from skimage.io import imread

RECORDED = Path(__file__).parents[1] / "recorded"
SIDE = 48
TINT = np.array([1, 0.6, 0.3])  # of red, green and blue


def main() -> None:
    sheet = np.repeat(imread(RECORDED / "mtcnn.png")[:, :, None], 3, axis=2)
    tinted = (sheet * TINT).astype(np.uint8)
    rows, columns = sheet.shape[0] // SIDE, sheet.shape[1] // SIDE
    faces = [face for band in np.vsplit(sheet, rows) for face in np.hsplit(band, columns)]
    detector = MTCNN()
    # A row is image, left, top, right, bottom, score, x of the five landmarks, y of the five landmarks.
    answers = {
        name: np.round(detector.detect_faces(images, output_type="numpy", box_format="xyxy"), 3).tolist()
        for name, images in (("faces", faces), ("sheet", [sheet]), ("tinted", [tinted]))
    }
    lines = (f'"{name}": [\n' + ",\n".join(map(json.dumps, answer)) + "\n]" for name, answer in answers.items())
    (RECORDED / "mtcnn.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
