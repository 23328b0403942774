"""Settings' texts are read by their schema."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.stages.settings import error_of, read_setting

SCHEMA: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "config/schema.yaml").read_text())


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("run", "1", "1"),
        ("run", "007", "007"),
        ("run", "1e3", "1e3"),
        ("run", "true", "true"),
        ("run", "2026-11-30", "2026-11-30"),
        ("run", "'5'", "5"),
        ("run", "null", None),
        ("head_of", "1", "1"),
        ("output", "5", "5"),
        ("input", "010", "010"),
        ("csv", "/faces #2/fer2013.csv", "/faces #2/fer2013.csv"),
        ("teacher", "[1, 2024-01-01]", ["1", "2024-01-01"]),
        ("ensemble", "[1, 2]", ["1", "2"]),
        ("classes", "[yes, no, 1e3, 007]", ["yes", "no", "1e3", "007"]),
        ("class_names", "{yes: no, 1: 007}", {"yes": "no", "1": "007"}),
        ("class_prior", "{no: 0.7, 3: 0.2}", {"no": 0.7, "3": 0.2}),
        ("class_prior", "1", 1),
        ("class_prior", "uniform", "uniform"),
        ("epochs", "3", 3),
        ("base_lr", "1e-3", 0.001),
        ("base_lr", "", None),
        ("steps", "[0.5, 0.9]", [0.5, 0.9]),
        ("mirror", "yes", True),
        ("blur", "false", False),
        ("views", "10", 10),
        ("display", "5", 5),
        ("display", "5 epochs", "5 epochs"),
        ("fold", "2/5", "2/5"),
    ],
)
def test_a_text_is_what_the_schema_allows(name: str, text: str, value: Any) -> None:
    read = read_setting(SCHEMA, name, text)
    assert (read, type(read)) == (value, type(value))
    assert error_of(SCHEMA, name, read) is None


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("epochs", "many", "'many' is not of type 'integer'"),
        ("epochs", "3.0", "3.0 is not of type 'integer'"),
        ("epochs", "1:30", "'1:30' is not of type 'integer'"),
        ("epochs", "true", "True is not of type 'integer'"),
        ("base_lr", "nan", "nan is not of type 'number', 'null'"),
        ("weight_decay", "inf", "inf is not of type 'number', 'null'"),
        ("groups", "null", "None is not of type 'string'"),
        ("steps", "[0.5", r"'[0.5' is not of type 'array'"),
        ("class_prior", "unifrom", "'unifrom' does not match '^training$|^uniform$|='"),
    ],
)
def test_a_text_that_is_no_value_is_refused(name: str, text: str, error: str) -> None:
    assert error_of(SCHEMA, name, read_setting(SCHEMA, name, text)) == error
