"""Train on your own folders, stage by stage: python examples/own_folders.py my_pictures/ out/

my_pictures/ has a folder for each class, with at least ten pictures of one face each. `snakemake train --config
csv=my_pictures` does the same in parallel, remembers what is done, and takes every setting.
"""

import sys
from pathlib import Path

from pipeline import InputError, Predictor
from pipeline.faces.detector import build_detector
from pipeline.stages.align import align
from pipeline.stages.evaluate import evaluate
from pipeline.stages.export import export
from pipeline.stages.extract import extract
from pipeline.stages.lmdb import lmdb
from pipeline.stages.mean import mean
from pipeline.stages.render import render
from pipeline.stages.train import train

NET = Path(__file__).resolve().parents[1] / "prototxt/small"


def main(pictures: Path, out: Path, epochs: int = 30, detector: str = "mtcnn", threads: int = 2) -> None:
    extract(pictures, out / "images")
    align(out / "images/manifest.csv", out / "aligned", build_detector(detector))
    manifest, databases = out / "aligned/manifest.csv", out / "databases"
    lmdb(manifest, databases, "kaggle", seed=1)
    mean(databases / "train_lmdb", databases / "mean.binaryproto")
    run = out / "run"
    render(NET, databases, run, epochs=epochs, batch_size=16, steps=[0.6, 0.85], seed=1)
    train(run / "solver.prototxt", threads=threads)

    net, weights = run / "deploy.prototxt", run / "best.caffemodel"
    belong = {"databases": databases, "mean": databases / "mean.binaryproto"}
    measured = evaluate(net, weights, run, manifest_path=manifest, **belong)
    faces = "images" if detector == "none" else "aligned"  # without a detector, align leaves pictures whole
    export(net, weights, out / "model", faces=faces, metrics=run / "metrics.json", **belong)
    print(f"accuracy on held-out pictures: {measured['test']['accuracy']:.2f}")
    print(f"the model in {out / 'model'} tells apart: {', '.join(Predictor(out / 'model').labels)}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except (InputError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
