"""Record what real Caffe's convert_imageset and compute_image_mean write for a small set, in tests/recorded.

CAFFE_ROOT=DIR PYTHONPATH=.:tests python tests/helpers/record_databases.py
"""

import hashlib
import json
import tempfile
from pathlib import Path

from conformance.caffe_root import CaffeRoot

from helpers.small_set import noise, write_csv
from pipeline.stages.extract import extract
from pipeline.stages.lmdb import lmdb

RECORDED = Path(__file__).parents[1] / "recorded"
IMAGES = 2000  # 1,200 of them Training: more than one commit, and a map that doubles


def make_databases(folder: Path) -> None:
    """Our images and databases of the recorded set, in `folder`/images and `folder`/kaggle."""
    write_csv(folder / "fer2013.csv", noise(IMAGES))
    extract(folder / "fer2013.csv", folder / "images")
    lmdb(folder / "images/manifest.csv", folder / "kaggle", "kaggle", seed=1)


def caffe_answers(caffe: CaffeRoot, folder: Path) -> dict[str, str]:
    """sha256 of the files that Caffe makes of the lists in `folder`, and what it logs of the mean."""
    answers = {}
    (caffe.folder / "images").mkdir()
    for image in (folder / "images").rglob("*.png"):
        copy = caffe.folder / image.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(image.read_bytes())
    for part in ("train", "val", "test"):
        (caffe.folder / f"{part}.txt").write_bytes((folder / f"kaggle/{part}.txt").read_bytes())
        caffe.run("convert_imageset", "--gray", "images/", f"{part}.txt", f"{part}_lmdb")
        answers[f"{part}_lmdb/data.mdb"] = sha256(caffe.folder / f"{part}_lmdb/data.mdb")
    log = caffe.run("compute_image_mean", "train_lmdb", "mean.binaryproto")
    answers["mean.binaryproto"] = sha256(caffe.folder / "mean.binaryproto")
    answers["log"] = log.strip().splitlines()[-1].partition("] ")[2]
    return answers


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    root = CaffeRoot.from_environment()
    if root is None:
        raise SystemExit("CAFFE_ROOT is not set; docker/caffe-root.sh makes a root with real Caffe")
    with root as caffe, tempfile.TemporaryDirectory() as folder:
        make_databases(Path(folder))
        answers = caffe_answers(caffe, Path(folder))
    RECORDED.mkdir(exist_ok=True)
    (RECORDED / "databases.json").write_text(json.dumps(answers, indent=2) + "\n")


if __name__ == "__main__":
    main()
