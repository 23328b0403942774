"""Settings by environment variable: each setting of config/config.yaml as EXPRESSIONS_<NAME>.

`snakemake` takes them all, above every file of settings and below the command line; predict, serve and bot take those
that are options of theirs. docs/settings.md has the table.
"""

import argparse
import difflib
from collections.abc import Iterator, Mapping
from contextlib import suppress
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
    """A variable's text as YAML or, where that does not fit the setting, as it stands: a run may be called 5."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    validator = Draft202012Validator({**schema["properties"][name], "$defs": schema.get("$defs", {})})
    for value in _readings(text):
        if validator.is_valid(value):
            return value
    error = best_match(validator.iter_errors(value))
    assert error is not None  # the last reading was not valid
    raise InputError(f"{variable}: {error.message}; config/config.yaml tells what {name} may be")


def _readings(text: str) -> Iterator[Any]:
    import yaml

    with suppress(yaml.YAMLError):
        yield yaml.safe_load(text)
    yield text
