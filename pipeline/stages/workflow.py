"""What the Snakefile needs to know besides its rules: which data set it runs on, and how settings become options."""

import atexit
import hashlib
import json
import os
import re
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonschema.exceptions import best_match

from pipeline.base.errors import InputError
from pipeline.base.text_files import read_text
from pipeline.caffe.real_caffe import require_caffe, root_from_environment
from pipeline.classifier.metrics import describe_seeds, read_metrics
from pipeline.classifier.model_folder import (
    CARD,
    DEFAULTS,
    FILES,
    INDEX,
    NEEDED,
    TENSORS,
    WEIGHTS,
    ModelError,
    find,
)
from pipeline.data.class_folders import SIDECARS
from pipeline.data.spreadsheet import SUFFIXES
from pipeline.media.sources import is_live
from pipeline.media.sources.paths import LISTS
from pipeline.stages.settings import Validator

SCHEMA = Path("config/schema.yaml")
NETS = Path("prototxt")
RAW = Path("data/raw")
# The files that hold FER2013 as Kaggle publishes it, the likeliest first, in small letters.
RAW_NAMES = (
    *(f"{name}{suffix}" for name in ("fer2013", "icml_face_data") for suffix in SUFFIXES),
    "challenges-in-representation-learning-facial-expression-recognition-challenge.zip",
    "archive.zip",
)
# What may lie beside them: of Kaggle's archives, and of FER+.
RAW_COMPANIONS = (
    *("readme", "readme.md", "readme.txt", "fer2013.bib", "example_submission.csv"),
    *(f"fer2013new{suffix}" for suffix in SUFFIXES),
)
# What settings leave the data as the source has it. Others put a mark of theirs into the name of the data's folder.
PLAIN_DATA = {
    "ferplus": None,
    "classes": None,
    "class_names": None,
    "held_out": 0.1,
    "groups": "auto",
    "missing": "keep",
    "align_detector": "mtcnn",
    "align_detector_model": None,
}
LAST_BYTES = 4096  # of a picture: its pixels, not its header
SAMPLE = "sample"
SAMPLE_CSV = Path("data/sample/sample.csv")
ADDRESS = re.compile(r"^(\w+)://")
STORE_SECONDS = 20.0
ENSEMBLE_FILES = (INDEX, *NEEDED)  # of the model folder that ensemble writes
FAILED_LOG = re.compile(
    r"^    log: (\S+)(?: \(send to storage\))? \(check log", re.MULTILINE
)  # in Snakemake's log, of a job that failed
SAID_ERROR = re.compile(r"^\S+ \S+ ERROR (error: .*)$", re.MULTILINE)  # in a stage's
SAMPLE_REMARK = """\
This was the drawn SAMPLE: its figures say nothing about real faces. To train on FER2013 put fer2013.csv (or .xz, .gz,
.zip) into data/raw, or add --config csv=PATH, and run the same command again."""


@dataclass(frozen=True)
class Dataset:
    """A source of labelled faces and the name its folders under data/ go by."""

    name: str
    source: Path | str  # text where it is an address in object storage

    @property
    def is_folder(self) -> bool:
        return isinstance(self.source, Path) and self.source.is_dir()

    @property
    def is_sample(self) -> bool:
        return self.source == SAMPLE_CSV

    @property
    def description(self) -> str:
        """What a run says first."""
        return f"data set {self.name}: {'the drawn sample' if self.is_sample else self.source}"

    def fingerprint(self) -> str | None:
        """Of a folder; Snakemake compares files itself."""
        return fingerprint(self.source) if isinstance(self.source, Path) and self.source.is_dir() else None


def fingerprint(folder: Path) -> str:
    """What changes with the files of a folder and of those below it: their names, sizes, times and last bytes.

    Files that are exchanged may have the same size and time.
    """
    digest = hashlib.sha256()
    for path in _files_below(folder, set()):
        line = f"{path.relative_to(folder)}\0"
        with suppress(OSError), path.open("rb") as file:  # who reads them tells of what cannot be read
            status = os.fstat(file.fileno())
            file.seek(max(0, status.st_size - LAST_BYTES))
            line += f"{status.st_size}\0{status.st_mtime_ns}\0{file.read(LAST_BYTES).hex()}"
        digest.update(f"{line}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _files_below(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Symbolic links are followed, each folder once; what file managers leave there is passed over."""
    seen.add(folder.resolve())
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.lower() in SIDECARS:
            continue
        if path.is_file():  # of a pipe nothing comes
            yield path
        elif path.is_dir() and path.resolve() not in seen:
            yield from _files_below(path, seen)


def is_address(text: str) -> bool:
    """Whether this names a file in object storage, such as s3://faces/fer2013.csv."""
    return "://" in text


def find_dataset(config: Mapping[str, Any]) -> Dataset:
    """The data set that the setting `csv` asks for: a path, an address, "sample", or None for what is in data/raw.

    Where that is empty it is the sample.

    Its name is the file's or folder's, and a mark of the settings that make other data of it, and of its folder where
    that is not data/raw. Raises InputError when there is nothing at the path, nothing known in a data/raw that is not
    empty, or a setting of class folders where there are none.
    """
    csv = config["csv"]
    address = csv if csv is not None and is_address(str(csv)) else None
    path = Path(str(csv)).expanduser() if csv is not None else _in_raw(RAW) or SAMPLE_CSV
    made = {name: _in_texts(config[name]) for name, plain in PLAIN_DATA.items() if config[name] != plain}
    if config["ferplus"]:
        made |= {name: config[name] for name in ("ferplus_policy", "labels")}
    is_sample = csv == SAMPLE or path == SAMPLE_CSV
    if not is_sample and not address and not path.exists():
        raise InputError(f"csv: {path}: no such file or folder; give fer2013.csv, a folder of class folders or sample")
    for name in ("held_out", "groups"):
        if name in made and (is_sample or not path.is_dir()):
            raise InputError(f"{name}: changes nothing, since the data set is no folder of class folders; leave it out")
    if is_sample:
        return Dataset(_marked(SAMPLE, made), SAMPLE_CSV)
    name = "folders" if path == RAW else re.sub(r"[^\w-]+", "_", path.resolve().name.split(".")[0]) or "folders"
    if address:
        made["csv"] = address
    elif path.resolve().parent != RAW.resolve() and path != RAW:
        made["csv"] = str(path.resolve())
    elif path != RAW and path.is_file() and path.name.lower() not in RAW_NAMES:
        made["csv"] = path.name
    return Dataset(_marked(name, made), address or path)


def _marked(name: str, made: dict[str, Any]) -> str:
    """A name with what tells data made by these settings from others: words for the reader, and a hash of it all."""
    if not made:
        return name
    words = []
    if "ferplus" in made:
        words.append(f"ferplus_{made['ferplus_policy']}" if made["labels"] == "ferplus" else "votes")
    if isinstance(made.get("classes"), list):
        words.append(f"{len(made['classes'])}_classes")
    text = json.dumps(made, sort_keys=True, default=str)
    return "-".join([name, *words, hashlib.sha256(text.encode()).hexdigest()[:8]])


def _in_texts(value: Any) -> Any:
    """A list or table of classes, which may be numbers in a file, as texts: those of a command line are."""
    if isinstance(value, list):
        return list(map(str, value))
    if isinstance(value, Mapping):
        return {str(old): str(new) for old, new in value.items()}
    return value


def _in_raw(folder: Path, depth: int = 1) -> Path | None:
    """The data set in data/raw or, an archive being unpacked there, in a folder of it; None where there is nothing.

    Raises InputError naming what lies there and is not known.
    """
    entries = (
        {path.name.lower(): path for path in sorted(folder.iterdir()) if not path.name.startswith(".")}
        if folder.is_dir()
        else {}
    )
    for name in RAW_NAMES:
        if name in entries and entries[name].is_file():
            return entries[name]
    if "train" in entries and entries["train"].is_dir():
        return folder
    found = [path for entry in entries.values() if depth and entry.is_dir() and (path := _in_raw(entry, depth - 1))]
    if len(found) > 1:
        raise InputError(f"{folder}: two data sets, {found[0]} and {found[1]}; say which by csv={found[0]}")
    unknown = [path for name, path in entries.items() if name not in RAW_COMPANIONS]
    if unknown and not found and folder == RAW:
        raise InputError(
            f"{unknown[0]}: not one of the names that FER2013 goes by; if it is the data set say "
            f"csv={unknown[0]}, else csv=sample, or move it out of {RAW} (data/README.md has the names)"
        )
    return found[0] if found else None


def find_net_settings(net: str) -> Path | None:
    """The config.yaml in the folder of the net that the setting `net` names; None where the net has none.

    Raises InputError when there is no such net, or naming the net's setting that is wrong.
    """
    nets = sorted(path.parent.name for path in NETS.glob("*/train_val.prototxt"))
    if net not in nets:
        raise InputError(f"net: {net}: no such net under {NETS}/; there are {', '.join(nets)}")
    path = NETS / net / "config.yaml"
    if not path.exists():
        return None
    try:
        settings = yaml.safe_load(read_text(path, "save it as UTF-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if isinstance(settings, dict) and "net" in settings:
        raise InputError(f"{path}: net: a net's own settings cannot choose another net; remove the line")
    _check(settings, str(path), required=())
    return path


def find_weights(weights: str | None) -> str | None:
    """The file of the setting `weights`: of a model, given by its name or folder, what it holds of its weights.

    Raises InputError when there is none.
    """
    if weights is None or Path(weights).is_file():
        return weights
    with suppress(ModelError):
        folder = find(weights)
        for name in (WEIGHTS, TENSORS):
            if (folder / name).is_file():
                return str(folder / name)
    raise InputError(
        f"weights: {weights}: no such file, or no model with {WEIGHTS} or {TENSORS}; give a .caffemodel, a "
        ".safetensors or a model's name, as accurate"
    )


def check_settings(config: Mapping[str, Any]) -> None:
    """Compare the settings with their JSON schema and with each other. Raises InputError naming a wrong setting."""
    _check(config, "settings")
    if config["seeds"] > 1:
        for name in ("head_of", "export_path"):
            if config[name]:
                raise InputError(f"{name}: takes one run where seeds is {config['seeds']}; say seeds=1")
    _check_effect(config)


def _check_effect(config: Mapping[str, Any]) -> None:
    """Raise InputError naming a setting that changes nothing beside the others."""
    shares = {share.partition("=")[0] for share in config["soft_targets"] or ()}
    # What each is where nobody sets it, whether it has what it needs, and what that is.
    needed: dict[str, tuple[Any, bool, str]] = {
        "teacher": (None, "teacher" in shares, "a share in soft_targets, as soft_targets=[labels=0.3,teacher=0.7]"),
        "teacher_temperature": (1, bool(config["teacher"]), "teacher"),
        "out_of_fold": (False, bool(config["teacher"]), "teacher"),
        "label_smoothing": (0, not shares or "labels" in shares, "a share of labels in soft_targets"),
        "auxiliary_weight": (0.4, bool(config["auxiliary"]), "auxiliary=votes"),
        "missing": ("keep", config["train_on"] != "images", "train_on=aligned or train_on=both"),
    }
    for name, (unset, has_it, what) in needed.items():
        if config[name] != unset and not has_it:
            raise InputError(f"{name}: changes nothing by itself; it needs {what}")
    for name in ("weights", "freeze", "teacher", "soft_targets", "auxiliary"):
        if config["head_of"] and config[name]:
            raise InputError(f"{name}: changes nothing with head_of, which trains nothing; leave one of them out")


def _check(settings: Any, name: str, **changes: Any) -> None:
    """Compare settings with their JSON schema, in which `changes` replace keywords."""
    schema = yaml.safe_load(SCHEMA.read_text()) | changes
    error = best_match(Validator(schema).iter_errors(settings))
    if error is not None:
        where = "".join(f"{place}: " for place in error.absolute_path)
        text = error.validator == "type" and "string" in error.validator_value and error.instance is not None
        hint = "put a text that YAML reads as something else in quotes; " if text else ""
        raise InputError(f"{name}: {where}{error.message}; {hint}config/config.yaml tells what may stand there")


def require_engine(config: Mapping[str, Any]) -> list[str]:
    """No files: an input function of the rules that compute, so that Snakemake calls it before the first stage runs.

    Raises CaffeError when the settings choose real Caffe and it is not there.
    """
    if config["engine"] == "caffe":
        require_caffe(config["caffe"] or root_from_environment())
    return []


def command_options(config: Mapping[str, Any], *names: str) -> list[str]:
    """The settings `names` as a command's options: base_lr: 0.01 as --base-lr 0.01, true as --mirror, false as
    --no-mirror, a list as --steps 0.6 0.85, a table as --class-names 1=fear 2=sad, but class_prior and providers as one
    word; null is left out, so that the command's own default holds.
    """
    options = []
    for name in names:
        value, flag = config[name], name.replace("_", "-")
        if isinstance(value, bool):
            options.append(f"--{flag}" if value else f"--no-{flag}")
        elif name == "providers":
            options += [f"--{flag}", ",".join(value)]
        elif isinstance(value, Mapping):
            words = [f"{key}={each}" for key, each in value.items()]
            options += [f"--{flag}", *([",".join(words)] if name == "class_prior" else words)]
        elif value is not None:
            options += [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
    return options


def model_files(model: str | None) -> list[str]:
    """The files whose change makes the rule predict run again: those of the setting `model`, or of the default ones."""
    names = [model] if model else DEFAULTS.values()
    return sorted({str(find(name) / INDEX) for name in names})


def exported_files(precision: str) -> list[str]:
    """The files of the model folder that export writes, its card first."""
    left_out = (WEIGHTS,) if precision == "int8" else ()
    return [CARD, *(name for name in FILES if name not in (CARD, *left_out))]


def members(models: list[str] | None) -> list[str]:
    """The setting `ensemble`. Raises InputError when it is not set."""
    if not models:
        raise InputError("ensemble: no models to join; say snakemake ensemble --config ensemble=[RUN,RUN] run=NAME")
    return models


def watch_store(url: str, seconds: float = STORE_SECONDS) -> None:
    """Raise InputError where an object store of one's own never answers; say so last where it does not in the end.

    Snakemake would wait for minutes, and then seldom say why. What else may be wrong it says itself.
    """
    _check_store(url, seconds)

    def check_again() -> None:  # nothing else is called at every end: onerror is not where Snakemake reaches no file
        try:
            _check_store(url, seconds)
        except InputError as error:
            print("", f"error: {error}", sep="\n", file=sys.stderr, flush=True)

    atexit.register(check_again)


def _check_store(url: str, seconds: float) -> None:
    try:
        urllib.request.urlopen(url, timeout=seconds).close()
    except OSError as error:
        if isinstance(getattr(error, "reason", error), TimeoutError):
            raise InputError(
                f"{url}: the object store has not answered for {seconds:g} seconds; is it running, and does the "
                "network reach it?"
            ) from None


@dataclass(frozen=True)
class ToRead:
    """The setting `input`, for the rule predict.

    files: what Snakemake compares with the last run. again: what it compares besides, of a folder its fingerprint; of
    what may be different each time, as a camera or the files of a list, it differs from run to run.
    """

    word: str
    files: list[str]
    again: str | None
    live: bool

    def annotated(self, folder: str) -> list[str]:
        """Options for annotated images or videos. Nobody is filmed unasked: of a camera there are none."""
        return [] if self.live else ["--annotated", f"{folder}/annotated"]


def parse_input(word: str | int | list[Any] | None) -> ToRead:
    """Raises InputError when the setting is not set, or asks for what a rule has not."""
    if word is None:
        raise InputError("input: nothing to read; say snakemake predict --config input=FOLDER (or cam, a video)")
    if word == "-" or isinstance(word, list):  # YAML takes a lone - for a list of nothing
        raise InputError("input: one word is read, and not standard input; say python -m pipeline predict -")
    word = str(word)  # a folder may be called 5
    path = Path(word)
    if path.is_dir():
        return ToRead(word, [word], fingerprint(path), live=False)
    if path.is_file() and path.suffix.lower() not in LISTS:
        return ToRead(word, [word], None, live=False)
    return ToRead(word, [], str(time.time()), live=is_live(word))


def print_errors_last(snakemake_logs: Iterable[str]) -> None:
    """Tell a person, below all of Snakemake's own words, what the stages that failed said was wrong."""
    text = "\n".join(Path(path).read_text(encoding="utf-8", errors="replace") for path in snakemake_logs)
    lines = []
    for name in dict.fromkeys(FAILED_LOG.findall(text)):
        path = ADDRESS.sub(r".snakemake/storage/\1/", name)  # where Snakemake has its copy
        said = Path(path).read_text(encoding="utf-8", errors="replace") if Path(path).is_file() else ""
        lines += [f"{line} ({path})" for line in SAID_ERROR.findall(said)[-1:]]
    if lines:  # when the process ends: Snakemake has more to say after onerror
        atexit.register(print, "", *lines, sep="\n", file=sys.stderr, flush=True)


def print_closing_words(dataset: Dataset, files: Any, log: str) -> None:
    """Tell a person what a run has come to: the figures that evaluate measured and the files worth opening.

    files: of the rule, by name and in order; among them `metrics`, evaluate's metrics.json of every seed's run,
    `seeds`, the file that joins them where there are several, and `model`, a file of each run's exported folder.
    """
    if files.seeds:
        figures = describe_seeds(json.loads(Path(files.seeds).read_text(encoding="utf-8")))
    else:
        parts = read_metrics(Path(files.metrics[0]))
        figures = [
            f"{part} accuracy {found['accuracy']:.1%}, macro-F1 {found['macro_f1']:.3f} on {found['n']:,} images"
            for part in ("val", "test")
            if (found := parts[part])
        ]
    words = "\n".join(
        [
            "",
            *([SAMPLE_REMARK] if dataset.is_sample else []),
            f"{dataset.name}: {'; '.join(figures)}",
            "worth opening:",
            *(f"  {file}" for file in files),
            f"read your own images: snakemake predict --config model={Path(files.model[0]).parent} input=FOLDER",
        ]
    )
    Path(log).write_text(words, encoding="utf-8")
    print(words)
