"""seeds: the mean and the spread of what the runs of several seeds measured."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.classifier.metrics import describe_seeds
from pipeline.stages.seeds import SeedsError, seeds

ROOT = Path(__file__).parents[2]


@pytest.fixture
def measured() -> dict[str, Any]:
    """What evaluate measured of a net that the project keeps."""
    found: dict[str, Any] = json.loads((ROOT / "docs/results/small/metrics.json").read_text())
    return found


def write(folder: Path, metrics: dict[str, Any], accuracies: list[float]) -> list[Path]:
    paths = [folder / f"seed_{seed}.json" for seed in range(len(accuracies))]
    for path, accuracy in zip(paths, accuracies, strict=True):
        path.write_text(json.dumps(metrics | {"val": metrics["val"] | {"accuracy": accuracy}}))
    return paths


def test_gives_the_mean_and_the_sample_standard_deviation(tmp_path: Path, measured: dict[str, Any]) -> None:
    joined = seeds(write(tmp_path, measured, [0.64, 0.66, 0.68]), tmp_path / "seeds.json")
    assert joined == json.loads((tmp_path / "seeds.json").read_text())
    assert joined["val"]["n"] == 3589
    assert joined["val"]["accuracy"] == {
        "mean": pytest.approx(0.66),
        "sd": pytest.approx(0.02),
        "values": [0.64, 0.66, 0.68],
    }
    assert joined["val"]["macro_f1"]["sd"] == 0
    assert joined["test"] is None
    assert describe_seeds(joined) == [
        "val accuracy 66.0% (sd 2.0%), macro-F1 0.615 (sd 0.000) over 3 seeds, on 3,589 images each"
    ]


def test_refuses_one_run_and_runs_of_other_images(tmp_path: Path, measured: dict[str, Any]) -> None:
    first, second = write(tmp_path, measured, [0.64, 0.66])
    with pytest.raises(SeedsError, match="1 run where two or more were expected"):
        seeds([first], tmp_path / "seeds.json")
    measured["val"]["n"] = 100
    second.write_text(json.dumps(measured))
    with pytest.raises(SeedsError, match=r"seed_1.json: measured on 100 val images where .*seed_0.json was on 3589"):
        seeds([first, second], tmp_path / "seeds.json")
    assert not (tmp_path / "seeds.json").exists()
