"""Settings by environment variable: each setting of config/config.yaml as EXPRESSIONS_<NAME>.

`snakemake` takes them all, above every file of settings and below the command line, whose words are read likewise;
predict, serve and bot take those that are options of theirs. docs/settings.md has the table.
"""

import argparse
import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError
from pipeline.stages.working_folder import SOURCE

SCHEMA = SOURCE / "config/schema.yaml"
PREFIX = "EXPRESSIONS_"
ALIASES_VARIABLE = "EXPRESSIONS_ALIASES"
# Words that scripts for other systems set: the setting each means, and how its value is read. They are common words
# that may be there for any program's sake, so they count only where ALIASES_VARIABLE is true.
ALIASES: dict[str, tuple[str, Mapping[str, str] | str]] = {
    "DATASET": ("csv", "{}"),
    "MODEL_EXPORT_PATH": ("export_path", "{}"),
    "EPOCHS": ("epochs", "{}"),
    "PATIENCE": ("early_stopping", "{}"),
    "OPTIMISE": ("export_precision", {"0": "float32", "1": "int8"}),
    "DEVICE_ID": ("input", "cam:{}"),
    "MODEL_PATH": ("model", "{}"),
}


def read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings that variables give. Raises InputError naming a variable that is unknown or whose value is unfit."""
    given = {name: text for name, text in environ.items() if name.startswith(PREFIX) and name != ALIASES_VARIABLE}
    words = {name: environ[name] for name in ALIASES if name in environ} if _takes_aliases(environ) else {}
    if not given and not words:
        return {}
    import yaml

    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    settings = {}
    for variable, text in sorted(given.items()):
        name = variable.removeprefix(PREFIX).lower()
        if name not in schema["properties"] or variable != variable.upper():
            close = difflib.get_close_matches(name, schema["properties"], 1)
            hint = f"did you mean {variable_of(close[0])}? " if close else ""
            raise InputError(f"{variable}: no such setting; {hint}config/config.yaml has them all")
        settings[name] = _value(schema, name, variable, text)
    for variable, text in words.items():
        name, meaning = ALIASES[variable]
        if name in settings:
            raise InputError(f"{variable}: {variable_of(name)} says the same; set one of them")
        if not isinstance(meaning, str) and text not in meaning:
            raise InputError(f"{variable}: {text!r} where {' or '.join(meaning)} was expected")
        settings[name] = _value(
            schema, name, variable, meaning.format(text) if isinstance(meaning, str) else meaning[text]
        )
    return settings


def read_command_line(words: Iterable[str]) -> dict[str, Any]:
    """The settings that words such as run=5 give `snakemake --config`, which itself would take this run for a number.

    Unknown ones are left out, and unfit values are as they stand: who checks all settings names them.
    """
    import yaml

    from pipeline.stages.settings import read_setting

    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    given = dict(word.split("=", 1) for word in words)
    return {name: read_setting(schema, name, text) for name, text in given.items() if name in schema["properties"]}


def variable_of(setting: str) -> str:
    return PREFIX + setting.upper()


def add_defaults(parser: argparse.ArgumentParser, settings: tuple[str, ...], environ: Mapping[str, str]) -> None:
    """Have the environment give the defaults of a command's options that are `settings`, and --help say so."""
    if not settings:
        return
    parser.epilog = f"Defaults by environment variable: {', '.join(map(variable_of, settings))}; see docs/settings.md"
    given = read_environment(environ)
    for action in parser._actions:
        if action.dest in settings and action.dest in given:
            value = given[action.dest]
            action.default = Path(value) if action.type is Path and value is not None else value


def _takes_aliases(environ: Mapping[str, str]) -> bool:
    text = environ.get(ALIASES_VARIABLE, "false")
    if text not in ("true", "false"):
        raise InputError(f"{ALIASES_VARIABLE}: {text!r} where true or false was expected")
    return text == "true"


def _value(schema: dict[str, Any], name: str, variable: str, text: str) -> Any:
    from pipeline.stages.settings import error_of, read_setting

    value = read_setting(schema, name, text)
    if error := error_of(schema, name, value):
        raise InputError(f"{variable}: {error}; config/config.yaml tells what {name} may be")
    return value
