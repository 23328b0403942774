"""What the Snakefile needs to know besides its rules: which data set it runs on, and how settings become options."""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from pipeline.errors import InputError
from pipeline.live.sources import is_live
from pipeline.model_folder import DEFAULTS, INDEX, find

SCHEMA = Path("config/schema.yaml")
YAML_WORDS = {"true": True, "false": False, "null": None}
RAW = Path("data/raw")
RAW_NAMES = ("fer2013.csv", "fer2013.csv.xz", "fer2013.csv.gz", "fer2013.csv.zip", "fer2013.zip", "icml_face_data.csv",
             "icml_face_data.csv.xz", "icml_face_data.csv.gz", "icml_face_data.csv.zip", "train")  # fmt: skip
SAMPLE = "sample"
SAMPLE_REMARK = """\
This was the drawn SAMPLE: its figures say nothing about real faces. To train on FER2013 put fer2013.csv (or .xz, .gz,
.zip) into data/raw, or add --config csv=PATH, and run the same command again."""


@dataclass(frozen=True)
class Dataset:
    """A source of labelled faces and the name its folders under data/ go by."""

    name: str
    source: Path

    @property
    def is_sample(self) -> bool:
        return self.name == SAMPLE


def find_dataset(csv: str | None) -> Dataset:
    """The data set that the setting `csv` asks for: a path, "sample", or None for what is in data/raw, else the sample.

    Raises InputError when there is nothing at the path.
    """
    sample = Dataset(SAMPLE, Path("data/sample/sample.csv"))
    if csv in (SAMPLE, str(sample.source)):
        return sample
    if csv is None:
        found = next((RAW / name for name in RAW_NAMES if (RAW / name).exists()), None)
        if found is None:
            return sample
        csv = str(found.parent if found.is_dir() else found)
    path = Path(str(csv)).expanduser()  # check_settings has its say on other types afterwards
    if not path.exists():
        raise InputError(f"csv: {path}: no such file or folder; give fer2013.csv, a folder of class folders or sample")
    name = "folders" if path == RAW else re.sub(r"[^\w-]+", "_", path.name.split(".")[0])
    if name == SAMPLE:
        raise InputError(f"csv: {path}: the name {SAMPLE} is the drawn sample's; rename the file")
    return Dataset(name, path)


def read_words(config: dict[str, Any]) -> None:
    """Read true, false and null in place, as config.yaml writes them; Snakemake takes a command line's for text."""
    for name, value in config.items():
        if isinstance(value, str):
            config[name] = YAML_WORDS.get(value, value)


def check_settings(config: Mapping[str, Any]) -> None:
    """Compare the settings with their JSON schema. Raises InputError naming a setting that is wrong."""
    error = best_match(Draft202012Validator(yaml.safe_load(SCHEMA.read_text())).iter_errors(config))
    if error is not None:
        where = "".join(f"{place}: " for place in error.absolute_path)
        raise InputError(f"settings: {where}{error.message}; config/config.yaml tells what may stand there")


def command_options(config: Mapping[str, Any], *names: str) -> list[str]:
    """The settings `names` as a command's options: base_lr: 0.01 as --base-lr 0.01, true as --mirror, false as
    --no-mirror, a list as --steps 0.6 0.85, a mapping as --class-prior sad=0.1,neutral=0.9; null is left out, so that
    the command's own default holds.
    """
    options = []
    for name in names:
        value, flag = config[name], name.replace("_", "-")
        if isinstance(value, bool):
            options.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, Mapping):
            options += [f"--{flag}", ",".join(f"{key}={each}" for key, each in value.items())]
        elif value is not None:
            options += [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
    return options


def model_files(model: str | None) -> list[str]:
    """The files whose change makes the rule predict run again: those of the setting `model`, or of the default ones."""
    names = [model] if model else DEFAULTS.values()
    return sorted({str(find(name) / INDEX) for name in names})


def members(models: list[str] | None) -> list[str]:
    """The files of the setting `ensemble`. Raises InputError when it is not set or names a model that there is not."""
    if not models:
        raise InputError("ensemble: no models to join; say snakemake ensemble --config ensemble=[RUN,RUN] run=NAME")
    return [str(find(model) / INDEX) for model in models]


@dataclass(frozen=True)
class ToRead:
    """The setting `input`, for the rule predict.

    files: what Snakemake compares with the last run. again: differs from run to run where that says nothing, as of a
    camera.
    """

    word: str
    files: list[str]
    again: str | None
    live: bool

    def annotated(self, folder: str) -> list[str]:
        """Options for annotated images or videos. Nobody is filmed unasked: of a camera there are none."""
        return [] if self.live else ["--annotated", f"{folder}/annotated"]


def what_to_read(word: str | int | list[Any] | None) -> ToRead:
    """Raises InputError when the setting is not set, or asks for what a rule has not."""
    if word is None:
        raise InputError("input: nothing to read; say snakemake predict --config input=FOLDER (or cam, a video)")
    if word == "-" or isinstance(word, list):  # YAML takes a lone - for a list of nothing
        raise InputError("input: one word is read, and not standard input; say python -m pipeline predict -")
    word = str(word)  # a folder may be called 5
    if Path(word).is_file() or Path(word).is_dir():
        return ToRead(word, [word], None, live=False)
    return ToRead(word, [], str(time.time()), live=is_live(word))


def print_closing_words(dataset: Dataset, files: Any, log: str) -> None:
    """Tell a person what a run has come to: the figures that evaluate measured and the files worth opening.

    files: of the rule, by name and in order; among them `metrics`, evaluate's metrics.json, and `model`, a file of the
    exported folder.
    """
    parts = json.loads(Path(files.metrics).read_text(encoding="utf-8"))
    figures = [
        f"{part} accuracy {measured['accuracy']:.1%}, macro-F1 {measured['macro_f1']:.3f} on {measured['n']:,} images"
        for part in ("val", "test")
        if (measured := parts[part])
    ]
    words = "\n".join([
        "",
        *([SAMPLE_REMARK] if dataset.is_sample else []),
        f"{dataset.name}: {'; '.join(figures)}",
        "worth opening:",
        *(f"  {file}" for file in files),
        f"read your own images: snakemake predict --config model={Path(files.model).parent} input=FOLDER",
    ])
    Path(log).write_text(words, encoding="utf-8")
    print(words)
