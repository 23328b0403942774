"""Read drawn faces with every model folder on emulated processors, and fail where a label is not the one read natively.

    python tests/helpers/labels.py            # needs qemu-x86_64 of Debian's qemu-user, on an x86-64 processor

Emulation takes seconds an image, so not all IMAGES are emulated: those are whose two greatest probabilities are nearest
to each other, CLOSEST of them. That no other label can differ is then checked by the margins: a label changes only
where probabilities differ by half of the margin between the two greatest.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PROCESSORS = ("Haswell", "Nehalem")  # AVX2 without VNNI; SSE4.2 alone
IMAGES, CLOSEST, SEED = 400, 8, 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="*", help="model folders (default: all under pipeline/weights/)")
    parser.add_argument("--closest", type=int, default=CLOSEST, help=f"images that are emulated (default {CLOSEST})")
    parser.add_argument("--read", nargs=2, type=Path, metavar=("IMAGES", "OUTPUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if args.read:
        images, output = args.read
        np.save(output, read(args.models[0], np.load(images)))
        return
    if platform.machine() != "x86_64" or not shutil.which("qemu-x86_64"):
        raise SystemExit("qemu-x86_64 on an x86-64 processor is needed: apt-get install qemu-user")
    models = args.models or sorted(path.parent for path in ROOT.glob("pipeline/weights/*/model.json"))
    if not models:
        raise SystemExit("no model folder under pipeline/weights")
    differing = [
        f"{model.name} on {processor}"
        for model in models
        for processor in PROCESSORS
        if not agrees(model, processor, args.closest)
    ]
    if differing:
        raise SystemExit(f"labels differ: {', '.join(differing)}")


def read(model: Path, images: np.ndarray) -> np.ndarray:
    """Probabilities (N, classes) that a model folder gives images (N, C, H, W)."""
    from pipeline.classifier.model_folder import Classifier
    from pipeline.classifier.model_folder import read as read_folder

    return Classifier(read_folder(model), threads=2)(images)


def agrees(model: Path, processor: str, closest: int) -> bool:
    """Whether an emulated processor reads the same labels off all IMAGES drawn faces; prints what was found."""
    images = draw(model)
    native = read(model, images)
    second, first = np.sort(native, axis=1)[:, -2:].T
    order = np.argsort(first - second)
    emulated = emulate(model, processor, images[order[:closest]])
    difference = float(np.abs(emulated - native[order[:closest]]).max())
    changed = int((emulated.argmax(axis=1) != native[order[:closest]].argmax(axis=1)).sum())
    margin = float((first - second)[order[closest:]].min(initial=np.inf))
    print(
        f"{model.name} on {processor}: {changed} labels differ on the {closest} closest of {len(images)} images, "
        f"probabilities by at most {difference:.1e}; the others' margins are at least {margin:.1e}",
        flush=True,
    )
    return not changed and difference < margin / 2


def draw(model: Path) -> np.ndarray:
    """Drawn faces (IMAGES, C, H, W) uint8 of the size that a model folder takes."""
    import cv2

    from pipeline.classifier.model_folder import read as read_folder
    from pipeline.data.synthetic.sample import draw_faces

    taken = read_folder(model).preprocessing
    faces = [cv2.resize(face.pixels, (taken.width, taken.height)) for face in draw_faces(IMAGES, SEED)]
    return np.stack(faces)[:, None].repeat(taken.channels, axis=1)


def emulate(model: Path, processor: str, images: np.ndarray) -> np.ndarray:
    """What read() gives in a process on an emulated processor."""
    with tempfile.TemporaryDirectory() as name:
        given, answers = Path(name, "images.npy"), Path(name, "answers.npy")
        np.save(given, images)
        # OPENBLAS_CORETYPE names a processor's code to run, whatever processor there is.
        environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
        subprocess.run(
            [
                "qemu-x86_64",
                "-cpu",
                processor,
                sys.executable,
                __file__,
                str(model),
                "--read",
                str(given),
                str(answers),
            ],
            check=True,
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        return np.load(answers)


if __name__ == "__main__":
    main()
