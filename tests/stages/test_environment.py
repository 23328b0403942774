"""Settings by environment variable."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.base.errors import InputError
from pipeline.stages import bot, predict, serve
from pipeline.stages.environment import ALIASES, SCHEMA, add_defaults, read_environment

SETTINGS = yaml.safe_load(SCHEMA.read_text())["properties"]


def test_every_setting_is_a_variable_read_as_yaml() -> None:
    given = {
        "EXPRESSIONS_EPOCHS": "3",
        "EXPRESSIONS_STEPS": "[0.5, 0.9]",
        "EXPRESSIONS_MIRROR": "false",
        "EXPRESSIONS_RUN": "5",
        "EXPRESSIONS_CLASS_NAMES": "{1: fear, no: 007}",
        "EXPRESSIONS_BASE_LR": "",
        "EPOCHS": "9",
        "PATH": "/bin",
    }
    assert read_environment(given) == {
        "epochs": 3,
        "steps": [0.5, 0.9],
        "mirror": False,
        "run": "5",
        "class_names": {"1": "fear", "no": "007"},
        "base_lr": None,
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"EXPRESSIONS_EPOCH": "3"}, r"EXPRESSIONS_EPOCH: no such setting; did you mean EXPRESSIONS_EPOCHS"),
        ({"EXPRESSIONS_Epochs": "3"}, r"EXPRESSIONS_Epochs: no such setting; did you mean EXPRESSIONS_EPOCHS"),
        ({"EXPRESSIONS_ZZ": "3"}, "EXPRESSIONS_ZZ: no such setting; config/config.yaml has them all"),
        (
            {"EXPRESSIONS_EPOCHS": "many"},
            "EXPRESSIONS_EPOCHS: 'many' is not of type 'integer'; config/config.yaml tells",
        ),
        ({"EXPRESSIONS_DEVICE": "gpu"}, "EXPRESSIONS_DEVICE: 'gpu' is not one of"),
        ({"EXPRESSIONS_STEPS": "[0.5"}, "EXPRESSIONS_STEPS: "),
        ({"EXPRESSIONS_ALIASES": "yes"}, "EXPRESSIONS_ALIASES: 'yes' where true or false"),
        ({"EXPRESSIONS_ALIASES": "true", "OPTIMISE": "2"}, "OPTIMISE: '2' where 0 or 1 was expected"),
        ({"EXPRESSIONS_ALIASES": "true", "EPOCHS": "x"}, "EPOCHS: 'x' is not of type 'integer'"),
        (
            {"EXPRESSIONS_ALIASES": "true", "EPOCHS": "1", "EXPRESSIONS_EPOCHS": "2"},
            "EPOCHS: EXPRESSIONS_EPOCHS says the",
        ),
    ],
)
def test_a_variable_that_is_wrong_is_named(given: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_environment(given)


def test_words_of_other_systems_count_where_they_are_asked_for() -> None:
    words = {
        "DATASET": "faces",
        "MODEL_EXPORT_PATH": "out",
        "EPOCHS": "3",
        "OPTIMISE": "0",
        "DEVICE_ID": "1",
        "MODEL_PATH": "model",
    }
    assert read_environment(words) == {}
    assert read_environment(words | {"EXPRESSIONS_ALIASES": "true"}) == {
        "csv": "faces",
        "export_path": "out",
        "epochs": 3,
        "export_precision": "float32",
        "input": "cam:1",
        "model": "model",
    }
    assert {name for name, _ in ALIASES.values()} <= set(SETTINGS)
    table = Path("docs/settings.md").read_text(encoding="utf-8")
    for word, (setting, _) in ALIASES.items():
        assert f"| `{word}` | `{setting}`" in table


@pytest.mark.parametrize("module", [predict, serve, bot])
def test_commands_take_their_defaults_from_it(module: Any) -> None:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    other = {"csv", "summary", "processes"}  # settings that mean something else than these options
    assert set(module.SETTINGS) == set(SETTINGS) & {action.dest for action in parser._actions} - other
    given = {
        "EXPRESSIONS_MODEL": "my model",
        "EXPRESSIONS_UNCERTAIN": "0.3",
        "EXPRESSIONS_PROVIDERS": "[cuda, cpu]",
        "EXPRESSIONS_EPOCHS": "3",
    }
    add_defaults(parser, module.SETTINGS, given)
    arguments = ["photo.png"] if module is predict else []
    args = parser.parse_args(arguments)
    assert (args.model, args.uncertain, args.providers) == ("my model", 0.3, ["cuda", "cpu"])
    assert parser.parse_args([*arguments, "--providers", "coreml"]).providers == ["coreml"]
    add_defaults(parser, module.SETTINGS, {"EXPRESSIONS_CLASS_PRIOR": "happy=0.2", "EXPRESSIONS_VIEWS": "2"})
    args = parser.parse_args(arguments)
    assert (args.class_prior, args.views) == ({"happy": 0.2}, 2)
    with pytest.raises(SystemExit):
        parser.parse_args([*arguments, "--providers", "gpu"])
    assert parser.parse_args([*arguments, "--uncertain", "0.4"]).uncertain == 0.4
    assert "EXPRESSIONS_MODEL" in parser.format_help()
