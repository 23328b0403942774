"""What the settings of config/config.yaml may be, as config/schema.yaml says, and how their texts are read by it."""

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from jsonschema.validators import extend

NULL_WORDS = ("", "~", "null", "Null", "NULL")  # YAML's


def _is_integer(_: Any, value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(_: Any, value: object) -> bool:
    """NaN is neither below a minimum nor above a maximum, so the schema alone lets it pass."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


# JSON Schema takes 3.0 for an integer, which the commands' options do not.
Validator = extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many({"integer": _is_integer, "number": _is_number}),
)


def read_setting(schema: Mapping[str, Any], name: str, text: str) -> Any:
    """The value of the setting `name` whose text a command line or an environment variable gives.

    It is the first of the text's readings that the schema allows, a text before a number: a run may be called 5. Where
    the schema allows none it is the last, for error_of() to refuse.
    """
    validator = _of_setting(schema, name)
    value = None
    for value in _readings(text):
        if validator.is_valid(value):
            break
    return value


def error_of(schema: Mapping[str, Any], name: str, value: Any) -> str | None:
    """Why the setting `name` may not have this value; None where it may."""
    error = best_match(_of_setting(schema, name).iter_errors(value))
    return error.message if error else None


def _of_setting(schema: Mapping[str, Any], name: str) -> Any:
    return Validator({**schema["properties"][name], "$defs": schema.get("$defs", {})})


def _readings(text: str) -> Iterator[Any]:
    if text in NULL_WORDS:
        yield None
        return
    if text[0] not in "'\"":
        yield text
    if text.lower() in yaml.SafeLoader.bool_values:
        yield yaml.SafeLoader.bool_values[text.lower()]
        return
    with suppress(yaml.YAMLError):
        value = yaml.load(text, yaml.BaseLoader)  # which makes texts, lists and tables alone
        yield value
        yield _with_numbers(value)


def _with_numbers(value: Any) -> Any:
    """The same with numbers in the place of texts that are some."""
    if isinstance(value, list):
        return [_with_numbers(each) for each in value]
    if isinstance(value, dict):
        return {key: _with_numbers(each) for key, each in value.items()}
    for kind in (int, float):
        with suppress(ValueError):
            return kind(value)
    return value
