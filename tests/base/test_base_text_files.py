"""JSON of the pipeline's own: what Python would read and nobody wrote is refused."""

from pathlib import Path

import pytest

from pipeline.base.errors import InputError
from pipeline.base.text_files import read_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"accuracy": NaN}', "NaN, where a finite number was expected"),
        ('{"accuracy": [-Infinity]}', "-Infinity, where a finite number was expected"),
        ('{"accuracy": 1e999}', "1e999, where a finite number was expected"),
        ('{"val": {"n": 1, "n": 2}}', "'n' twice in one object"),
        ("[" * 100_000, "recursion"),
        ('\ufeff{"n": 1}', "BOM"),
        ('{"n": 1}\0', "Extra data"),
        ('{"n": ', "Expecting value"),
    ],
)
def test_json_that_nobody_wrote_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=rf"metrics\.json: no JSON \(.*{message}.*\); evaluate again") as told:
        read_json(path, "evaluate again")
    assert len(str(told.value).splitlines()) == 1


def test_json_is_read(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"n": 1, "share": 2.5e-3, "more": {"n": null}}')
    assert read_json(tmp_path / "run.json", "") == {"n": 1, "share": 0.0025, "more": {"n": None}}
