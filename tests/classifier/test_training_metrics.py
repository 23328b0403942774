"""metrics.csv: rows that are cut or out of order are named, and a test without a number is never the best."""

from pathlib import Path

import pytest

from pipeline.base.errors import InputError
from pipeline.caffe.proto.caffe_pb2 import SolverParameter
from pipeline.classifier.training_metrics import METRICS, TrainingMetrics, read_rows

HEADER = ",".join(METRICS)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("0,0,,,1.9,0.2\n5,1,,,1.8,0.", r"metrics\.csv:3: a line without an end, as where a file is cut"),
        ("5,1,,,1.8,0.3\n5,1,,,1.8,0.4\n", r"metrics\.csv:3: iteration 5 where one above 5 was expected"),
        ("-5,1,,,1.8,0.3\n", r"metrics\.csv:2: iteration -5 where"),
        ("5,1,,,1.8\n", r"metrics\.csv:2: 5 fields where 6 were expected"),
    ],
)
def test_a_damaged_table_is_named(tmp_path: Path, rows: str, message: str) -> None:
    (tmp_path / "metrics.csv").write_text(f"{HEADER}\n{rows}")
    with pytest.raises(InputError, match=message):
        read_rows(tmp_path / "metrics.csv")


def test_a_test_that_gave_no_number_is_not_the_best(tmp_path: Path) -> None:
    param = SolverParameter(snapshot_prefix=str(tmp_path / "net"), test_metric="loss")
    param.net_param.layer.add(type="Input")
    for iteration in (5, 10, 15):
        for ending in ("caffemodel", "solverstate"):
            (tmp_path / f"net_iter_{iteration}.{ending}").touch()
    rows = "5,1,,,nan,0.1\n10,2,,,1.5,0.2\n15,3,,,1.7,0.3\n20,4,,,1.2,0.4\n"
    (tmp_path / "metrics.csv").write_text(f"{HEADER}\n{rows}")
    best = TrainingMetrics(tmp_path / "metrics.csv", param, start=20).best()
    assert best is not None
    assert best.iteration == 10
