"""The workflow's descriptions agree with one another, and unfit settings are refused in one line."""

import argparse
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from pipeline.__main__ import STAGES
from pipeline.base.errors import InputError
from pipeline.caffe.real_caffe import CaffeError
from pipeline.classifier.model_folder import FILES, MODELS, WEIGHTS
from pipeline.stages import predict
from pipeline.stages.workflow import (
    Dataset,
    check_settings,
    command_options,
    find_dataset,
    find_net_settings,
    find_weights,
    members,
    parse_input,
    require_engine,
    watch_store,
)

ROOT = Path(__file__).parents[2]
SNAKEFILE = (ROOT / "Snakefile").read_text()
CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "config/config.yaml").read_text())
SCHEMA: dict[str, Any] = yaml.safe_load((ROOT / "config/schema.yaml").read_text())
DVC: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
RULES = {match[1]: match[2] for match in re.finditer(r"^rule (\w+):\n(.*?)(?=^rule |\Z)", SNAKEFILE, re.M | re.S)}

# new makes the Snakefile itself, web is made of any model folder, and the others make nothing.
NO_RULES = {"new", "web", "doctor", "serve", "bot"}
# What the rule predict is told: its readings are no part of the way that DVC keeps.
PREDICT = {
    "model",
    "input",
    "output",
    "detector",
    "detector_model",
    "min_face",
    "uncertain",
    "providers",
    "class_prior",
    "no_face",
    "every",
    "rotations",
    "summary",
    "faces",
    "draw",
    "blur",
    "window",
}
# What train writes as it goes is no declared output: Snakemake would delete it before a run that is to go on.
UNDECLARED = {"results/sample/run.json", "results/sample/metrics.csv"}


def snakemake(*arguments: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=os.environ | variables)


@pytest.fixture(scope="module")
def outputs() -> dict[str, set[str]]:
    """By rule, the files that Snakemake expects of it on the sample."""
    done = snakemake("train", "--dry-run", "--forceall", "--config", "csv=sample")
    assert done.returncode == 0, done.stderr
    jobs = re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", done.stdout + done.stderr, re.M)
    found = {rule: re.search(r"^    output: (.*)$", text, re.M) for rule, text in jobs}
    return {rule: set(match[1].split(", ")) if match else set() for rule, match in found.items()}


def test_the_stages_own_error_is_the_last_line(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("emotion,pixels,Usage\n9,1 2 3,Training\n")
    for name in ("Snakefile", "config", "environment.yml", "profiles", "prototxt", "report"):
        (tmp_path / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "snakemake", "extract", "--config", "csv=bad.csv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.returncode == 1
    last = done.stderr.rstrip().splitlines()[-1]
    assert re.fullmatch(r"error: .*bad\.csv:2: emotion '9' where .* \(logs/data/.*/extract\.log\)", last), done.stderr


def resolve(text: str) -> str:
    """Fill dvc.yaml's variables in."""
    values = CONFIG | {name: value for part in DVC["vars"] if isinstance(part, dict) for name, value in part.items()}
    return re.sub(r"\$\{(\w+)\}", lambda match: str(values[match[1]]), text)


def entries(stage: dict[str, Any], *kinds: str) -> Iterator[str]:
    for kind in kinds:
        for entry in stage.get(kind, []):
            yield resolve(entry if isinstance(entry, str) else next(iter(entry)))


def test_each_stage_is_the_command_of_one_rule() -> None:
    called = re.findall(r"python -m pipeline --log \{log\} (\w+)", SNAKEFILE)
    assert sorted(called) == sorted(set(STAGES) - NO_RULES)


@pytest.mark.parametrize("rule", RULES)
def test_rules_are_documented_and_logged(rule: str) -> None:
    assert RULES[rule].startswith('    """')
    assert "    log:\n" in RULES[rule]
    assert "    benchmark:\n" in RULES[rule] or rule == "train"  # which only says what the run has come to


def test_every_setting_is_described_and_used() -> None:
    assert list(CONFIG) == list(SCHEMA["properties"]) == SCHEMA["required"]
    unused = {name for name in CONFIG if f'"{name}"' not in SNAKEFILE and f"'{name}'" not in SNAKEFILE}
    assert unused == {"csv"}  # which find_dataset reads


def test_the_settings_fit_their_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    check_settings(CONFIG)
    check_settings(CONFIG | yaml.safe_load((ROOT / "config/sample.yaml").read_text()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, r"'epoch' was unexpected"),
        ({"epochs": "many"}, r"epochs: 'many' is not of type 'integer'"),
        ({"epochs": 0}, r"epochs: 0 is less than the minimum of 1"),
        ({"epochs": 10**10}, r"epochs: 10000000000 is greater than the maximum of 2147483647"),
        ({"display": 1 << 31}, r"display: 2147483648 is greater than the maximum of 2147483647"),
        ({"snapshot": "9999999999 epochs"}, r"snapshot: '9999999999 epochs' does not match"),
        ({"epochs": 3.0}, r"epochs: 3.0 is not of type 'integer'"),
        ({"base_lr": float("nan")}, r"base_lr: nan is not of type 'number', 'null'"),
        ({"classes": [True, "no"]}, r"classes: 0: True is .* put a text that YAML reads as something else in quotes"),
        ({"class_names": {True: "happy"}}, r"class_names: True is not of type 'string', 'integer'"),
        ({"class_prior": "unifrom"}, r"class_prior: 'unifrom' does not match"),
        ({"epochs": True}, r"epochs: True is not of type 'integer'"),
        ({"protocol": "kagle"}, r"protocol: 'kagle' is not one of \['kaggle', 'merged'\]"),
        ({"steps": [0.6, 1.2]}, r"steps: 1: 1.2 is greater than or equal to the maximum of 1"),
        ({"base_lr": -0.01}, r"base_lr: -0.01 is less than or equal to the minimum of 0"),
        ({"momentum": 1}, r"momentum: 1 is greater than or equal to the maximum of 1"),
        ({"net": "../net"}, r"net: '../net' does not match"),
        ({"run": "a b"}, r"run: 'a b' does not match"),
        ({"run": ".."}, r"run: '..' does not match"),
        ({"device": "gpu"}, r"device: 'gpu' is not one of"),
        ({"classes": ["happy"]}, r"classes: \['happy'\] is too short"),
        ({"held_out": 0.5}, r"held_out: 0.5 is greater than or equal to the maximum of 0.5"),
        ({"class_names": {"1": None}}, r"class_names: 1: None is not of type"),
        ({"seed": -1}, r"seed: -1 is less than the minimum of 0"),
        ({"seeds": 0}, r"seeds: 0 is less than the minimum of 1"),
        ({"seeds": 2, "head_of": "small"}, r"head_of: takes one run where seeds is 2; say seeds=1"),
        ({"seeds": 2, "export_path": "model"}, r"export_path: takes one run where seeds is 2; say seeds=1"),
        ({"teacher": ["big"], "soft_targets": ["labels=1"]}, r"teacher: changes nothing .* soft_targets=\[labels=0.3"),
        ({"teacher": ["big", "big"]}, r"teacher: \['big', 'big'\] has non-unique elements"),
        ({"ensemble": ["big", "big"]}, r"ensemble: \['big', 'big'\] has non-unique elements"),
        ({"teacher_temperature": 2}, r"teacher_temperature: changes nothing by itself; it needs teacher"),
        ({"out_of_fold": True}, r"out_of_fold: changes nothing by itself; it needs teacher"),
        ({"auxiliary_weight": 1}, r"auxiliary_weight: changes nothing by itself; it needs auxiliary=votes"),
        (
            {"label_smoothing": 0.1, "soft_targets": ["votes=1"]},
            r"label_smoothing: .* a share of labels in soft_targets",
        ),
        ({"missing": "drop", "train_on": "images"}, r"missing: changes nothing .* train_on=aligned or train_on=both"),
        ({"head_of": "two", "weights": "fast"}, r"weights: changes nothing with head_of, which trains nothing"),
        ({"class_prior": 1.5}, r"class_prior: 1.5 is greater than the maximum of 1"),
        ({"class_prior": {"happy": 2}}, r"class_prior: happy: 2 is greater than or equal to the maximum of 1"),
    ],
)
def test_unfit_settings_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match=message) as caught:
        check_settings(CONFIG | settings)
    assert "\n" not in str(caught.value)


def test_a_command_line_is_read_by_the_schema() -> None:
    dry = ("--dry-run", "--printshellcmds", "--forceall", "--config", "csv=sample")
    read = snakemake("predict", *dry, f"input={ROOT}", "class_prior={neutral: 0.7, 3: 0.2}")
    assert "--class-prior neutral=0.7,3=0.2 " in read.stdout, read.stderr
    rendered = snakemake("render", *dry, "steps=[0.5, 0.8]")
    assert "--steps 0.5 0.8 " in rendered.stdout, rendered.stderr
    named = snakemake("render", *dry, "run=007", "classes=[yes, 1e3]")
    assert "extract.log extract data/sample/sample.csv data/sample-2_classes-" in named.stdout, named.stderr
    assert " results/007 --epochs" in named.stdout
    assert "--classes yes 1e3 " in named.stdout
    wrong = snakemake("render", *dry, "steps=[0.5, late]")
    assert "steps: 1: 'late' is not of type 'number'" in wrong.stdout + wrong.stderr


def test_snakemake_says_what_is_wrong_with_a_setting() -> None:
    done = snakemake("train", "--dry-run", "--config", "batch=3")
    assert done.returncode != 0
    assert "settings: Additional properties are not allowed ('batch' was unexpected)" in done.stdout + done.stderr


def test_real_caffe_that_is_not_there_ends_the_workflow_before_its_first_stage(tmp_path: Path) -> None:
    done = snakemake("train", "--dry-run", "--config", "csv=sample", "engine=caffe", f"caffe={tmp_path}")
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert f"engine caffe: {tmp_path}/usr/bin/caffe does not exist; get it by: sudo sh docker/caffe-root.sh" in said
    assert "rule extract" not in said


def test_real_caffe_is_looked_for_only_where_it_is_to_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAFFE_ROOT", raising=False)
    assert require_engine(CONFIG | {"engine": "torch"}) == []
    with pytest.raises(CaffeError, match="nothing says where real Caffe is"):
        require_engine(CONFIG | {"engine": "caffe"})
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/caffe").touch()
    assert require_engine(CONFIG | {"engine": "caffe", "caffe": str(tmp_path)}) == []


def test_the_environment_stands_between_the_files_and_the_command_line() -> None:
    done = snakemake(
        "render",
        "--dry-run",
        "--forceall",
        "--config",
        "csv=sample",
        "seed=6",
        EXPRESSIONS_EPOCHS="3",
        EXPRESSIONS_SEED="5",
        EXPRESSIONS_DISPLAY="7",
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"pipeline --log \S+ render .* --epochs 3 .* --seed 6 .*--display 7 ", done.stdout + done.stderr)


def test_shards_are_jobs_that_one_puts_together() -> None:
    done = snakemake("align", "--dry-run", "--forceall", "--printshellcmds", "--config", "csv=sample", "shards=3")
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert {f"--shard {number}/3" for number in (1, 2, 3)} == set(re.findall(r"extract \S+ \S+ .*(--shard ./3)", said))
    assert re.search(r"extract \S+ data/sample/images .*--gather (data/sample/images_shards/[123]_of_3 ?){3}", said)
    commands = set(re.findall(r"align data/sample/images/manifest\.csv (\S+) +(.*?) --threads", said))
    folders = [f"data/sample/aligned_shards/{number}_of_3" for number in (1, 2, 3)]
    assert commands == {
        ("data/sample/aligned", f"--gather {' '.join(folders)}"),
        *((folder, f"--detector mtcnn --missing keep --shard {number}/3") for number, folder in enumerate(folders, 1)),
    }


@pytest.mark.parametrize(
    ("stage", "folder"),
    [("lmdb", "data/sample/databases/aligned_kaggle_shards"), ("evaluate", "results/sample/evaluate_shards")],
)
def test_databases_and_measuring_are_shared_by_jobs_as_well(stage: str, folder: str) -> None:
    words = ("--dry-run", "--forceall", "--printshellcmds", "--config", "csv=sample", "shards=3")
    done = snakemake(stage, *words)
    assert done.returncode == 0, done.stderr
    commands = re.findall(rf"^Shell command: python -m pipeline .* {stage} (.*)$", done.stdout + done.stderr, re.M)
    folders = [f"{folder}/{number}_of_3" for number in (1, 2, 3)]
    (gathers,) = (command for command in commands if f"--gather {' '.join(folders)}" in command)
    shards = [command for command in commands if command != gathers]
    assert sorted(re.findall(r"--shard \S+", " ".join(shards))) == [f"--shard {number}/3" for number in (1, 2, 3)]
    assert all(place in " ".join(shards) for place in folders)


def test_real_caffe_measures_whole_databases(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    words = ("--dry-run", "--forceall", "--config", "csv=sample", "shards=3", "engine=caffe", f"caffe={root}")
    assert "evaluate_shard" not in snakemake("evaluate", *words).stdout


def test_snakemake_names_a_variable_that_is_wrong() -> None:
    done = snakemake("train", "--dry-run", EXPRESSIONS_EPOCH="3")
    assert done.returncode != 0
    assert "EXPRESSIONS_EPOCH: no such setting; did you mean EXPRESSIONS_EPOCHS" in done.stdout + done.stderr


def test_an_average_of_snapshots_is_what_is_measured() -> None:
    done = snakemake("train", "--dry-run", "--forceall", "--config", "csv=sample", "average=3", "warmup=2 epochs")
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert re.search(r"rule evaluate:\n    input: .*results/sample/averaged\.caffemodel", said)
    assert not re.search(r"rule evaluate:\n    input: .*results/sample/best\.caffemodel", said)


@pytest.mark.parametrize(
    ("setting", "file"),
    [
        ("soft_targets=[labels=1]", "targets/targets_lmdb/data.mdb"),
        ("label_smoothing=0.1", "infogain.binaryproto"),
        ("class_weights=balanced", "infogain.binaryproto"),
    ],
)
def test_training_declares_the_targets_that_it_reads(setting: str, file: str) -> None:
    """From object storage only what a rule declares is there."""
    done = snakemake("solve", "--dry-run", "--forceall", "--config", "csv=sample", setting)
    assert re.search(rf"rule solve:\n    input: .*results/sample/{re.escape(file)}", done.stdout + done.stderr)


def test_a_setting_that_changes_makes_its_rule_run_again(tmp_path: Path) -> None:
    """Snakemake does not compare params that are functions of a rule's files."""
    for name in ("Snakefile", "config", "environment.yml", "profiles", "prototxt", "report"):
        (tmp_path / name).symlink_to(ROOT / name)
    for label in ("happy", "sad"):
        for number in range(10):
            path = tmp_path / f"faces/{label}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((48, 48), 10 * number + len(label), np.uint8))
    words = ("lmdb", "-j1", "--config", "csv=faces", "train_on=images")
    done = snakemake(*words, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    again = snakemake(*words, "--dry-run", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert "Nothing to be done" in again.stdout + again.stderr
    other = snakemake("extract", *words[1:], "seed=2", "--dry-run", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert "rule extract:" in other.stdout + other.stderr


def test_settings_are_in_params_that_snakemake_compares() -> None:
    of_files = re.findall(r"lambda wildcards, (?:input|output):.*?(?=\n +\w+=|\n +\w+:|\n\n)", SNAKEFILE, re.DOTALL)
    assert len(of_files) > 5
    assert not [function for function in of_files if "command_options" in function or "_OPTIONS" in function]


def test_each_of_several_seeds_has_a_run_of_its_own() -> None:
    done = snakemake(
        "train", "--dry-run", "--forceall", "--printshellcmds", "--config", "csv=sample", "seed=4", "seeds=2"
    )
    assert done.returncode == 0, done.stderr
    commands = re.findall(r"python -m pipeline --log \S+ (.*)", done.stdout + done.stderr)
    assert len([command for command in commands if command.startswith("lmdb")]) == 1
    for seed in (4, 5):
        (render,) = [command for command in commands if re.match(rf"render .* results/sample/seed_{seed} ", command)]
        assert f"--seed {seed} " in render
        assert any(command.startswith(f"train results/sample/seed_{seed}/solver.prototxt") for command in commands)
    assert (
        "seeds results/sample/seeds.json results/sample/seed_4/metrics.json results/sample/seed_5/metrics.json"
        in commands
    )


def test_faces_that_are_not_aligned_are_read_as_they_are() -> None:
    words = ["export", "--dry-run", "--forceall", "--printshellcmds", "--config", "csv=sample", "align_detector=none"]
    assert "--faces images" in snakemake(*words).stdout
    assert "--faces aligned" in snakemake(*words[:-1]).stdout
    ensemble = ("ensemble", *words[1:-1], "ensemble=[fast,accurate]")
    assert "--train-on both " in snakemake(*ensemble, "train_on=both").stdout
    assert "--train-on images " in snakemake(*ensemble, "train_on=both", "align_detector=none").stdout


def test_weights_are_a_file_or_a_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_weights(None) is None
    assert find_weights("fast") == str(MODELS / "fast" / "weights.caffemodel")
    assert find_weights("accurate") == str(MODELS / "accurate" / "weights.safetensors")
    (run := Path("results/mine/model")).mkdir(parents=True)
    for name in ("model.json", "model.onnx"):
        (run / name).touch()
    with pytest.raises(InputError, match=r"^weights: mine: .* no model with weights\.caffemodel or weights"):
        find_weights("mine")
    for name in ("weights.safetensors", "weights.caffemodel"):
        (run / name).touch()
        assert find_weights("mine") == find_weights(f"{run}/") == str(run / name)
    assert find_weights(f"{run}/weights.caffemodel") == f"{run}/weights.caffemodel"
    for name in ("fsat", "results/mine", "no/weights.caffemodel"):
        with pytest.raises(InputError, match=f"^weights: {name}: no such file, or no model with"):
            find_weights(name)


def test_settings_become_options() -> None:
    assert command_options({"class_names": {"1": "a b"}}, "class_names") == ["--class-names", "1=a b"]
    config = {"base_lr": 0.01, "steps": [0.6, 0.85], "mirror": False, "crop_size": None, "seed": 1}
    options = command_options(config, *config)
    assert options == ["--base-lr", "0.01", "--steps", "0.6", "0.85", "--no-mirror", "--seed", "1"]
    assert command_options({"class_prior": {"happy": 0.2, "sad": 0.1}}, "class_prior") == [
        "--class-prior",
        "happy=0.2,sad=0.1",
    ]
    assert command_options({"providers": ["cuda", "cpu"]}, "providers") == ["--providers", "cuda,cpu"]


def found(csv: str | None = None, **settings: Any) -> Dataset:
    return find_dataset(CONFIG | {"csv": csv} | settings)


def test_finds_the_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert found().is_sample
    raw = tmp_path / "data/raw"
    (raw / "train").mkdir(parents=True)
    assert (found().name, found().source) == ("folders", Path("data/raw"))
    (raw / "fer2013.csv.xz").touch()
    assert (found().name, found().source) == ("fer2013", Path("data/raw/fer2013.csv.xz"))
    assert found("data/raw/fer2013.csv.xz") == found()
    assert found("sample") == found("data/sample/sample.csv")
    assert found("sample").is_sample
    (tmp_path / "my faces.csv.gz").touch()
    assert re.fullmatch(r"my_faces-\w{8}", found("my faces.csv.gz").name)  # names of folders go into shell commands
    with pytest.raises(InputError, match=r"csv: other\.csv: no such file"):
        found("other.csv")


@pytest.mark.parametrize(
    ("files", "source"),
    [
        (["FER2013.csv"], "FER2013.csv"),
        (["fer2013new.csv", "README.md", "icml_face_data.csv.zip"], "icml_face_data.csv.zip"),
        (["archive.zip"], "archive.zip"),
        (["fer2013.tar.gz"], "fer2013.tar.gz"),
        (["archive/train/happy/1.jpg", "archive/test/happy/1.jpg"], "archive"),
        (["fer2013/fer2013.csv", "fer2013/README"], "fer2013/fer2013.csv"),
        (["Train/happy/1.jpg", "Test/happy/1.jpg"], ""),
        ([".gitkeep", "README.md"], None),
    ],
)
def test_knows_the_names_in_data_raw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], source: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in files:
        path = tmp_path / "data/raw" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert found().source == (Path("data/sample/sample.csv") if source is None else Path("data/raw") / source)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["faces.csv"], r"data/raw/faces\.csv: not one of the names .* say csv=data/raw/faces\.csv"),
        (["pictures/1.png"], "data/raw/pictures: not one of the names"),
        (["a/fer2013.csv", "b/train/happy/1.png"], r"two data sets, data/raw/a/fer2013\.csv and data/raw/b"),
    ],
)
def test_what_it_does_not_know_in_data_raw_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in files:
        (tmp_path / "data/raw" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data/raw" / file).touch()
    with pytest.raises(InputError, match=message):
        found()
    assert found("sample").is_sample


def test_settings_of_class_folders_are_refused_beside_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fer2013.csv").touch()
    (tmp_path / "faces").mkdir()
    for csv in ("fer2013.csv", "sample", "s3://faces/fer2013.csv"):
        for settings in ({"held_out": 0.2}, {"groups": "_"}):
            with pytest.raises(InputError, match=f"{next(iter(settings))}: changes nothing, since the data set is no"):
                found(csv, **settings)
    assert found("faces", held_out=0.2, groups="_").is_folder
    assert found("faces", classes=[1, 2]) == found("faces", classes=["1", "2"])


def test_data_that_differs_has_folders_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b", "data/raw"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "fer2013.csv").touch()
    names = [
        found().name,
        found("a/fer2013.csv").name,
        found("b/fer2013.csv").name,
        *(found(ferplus="votes.csv", ferplus_policy=policy).name for policy in ("majority", "plurality", "shares")),
        found(ferplus="votes.csv", labels="fer2013").name,
        found(classes=["happy", "sad"]).name,
        found(classes=["sad", "happy"]).name,
        found(class_names={"happy": "glad"}).name,
        found("a").name,
        found("a", held_out=0.2).name,
        found("a", groups="none").name,
        found(missing="drop").name,
        found(align_detector="haar").name,
        found("sample").name,
        found("sample", classes=["happy", "sad"]).name,
    ]
    assert len(set(names)) == len(names)
    assert names[0] == "fer2013"
    assert re.fullmatch(r"fer2013-ferplus_plurality-\w{8}", names[4])
    assert re.fullmatch(r"sample-2_classes-\w{8}", names[-1])
    assert found("a/../a/fer2013.csv").name == names[1]
    assert found("sample", classes=["happy", "sad"]).is_sample
    assert found(ferplus_policy="plurality").name == "fer2013"  # that nothing hangs on without votes


def test_folders_that_change_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "faces/happy"
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(b"1")
    dataset = found("faces")
    prints = [dataset.fingerprint()]
    assert prints[0] == dataset.fingerprint()
    (folder / "2.png").write_bytes(b"1")
    prints.append(dataset.fingerprint())
    (folder / "2.png").write_bytes(b"2")
    os.utime(folder / "2.png", (1, 1))
    prints.append(dataset.fingerprint())
    (folder / "1.png").unlink()
    prints.append(dataset.fingerprint())
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/3.png").write_bytes(b"3")
    (tmp_path / "faces/sad").symlink_to(tmp_path / "elsewhere")
    prints.append(dataset.fingerprint())
    (tmp_path / "elsewhere/4.png").write_bytes(b"4")
    prints.append(dataset.fingerprint())
    assert len(set(prints)) == 6
    assert "fingerprint=dataset.fingerprint()" in RULES["extract"]


def test_pictures_of_one_size_and_time_that_change_places_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = [tmp_path / f"faces/{label}/1.png" for label in ("happy", "sad")]
    for number, path in enumerate(files):
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes([number]) * 10_000)
        os.utime(path, (1, 1))
    before = found("faces").fingerprint()
    files[0].rename(tmp_path / "1.png")
    files[1].rename(files[0])
    (tmp_path / "1.png").rename(files[1])
    assert found("faces").fingerprint() != before


def test_what_is_no_picture_of_a_class_does_not_train_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "faces/happy"
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(b"1")
    before = found("faces").fingerprint()
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
        (folder / name).write_bytes(b"x")
    (folder / "again").symlink_to(tmp_path / "faces")
    os.mkfifo(folder / "pipe")
    assert found("faces").fingerprint() == before


def test_an_ensemble_without_members_says_how() -> None:
    with pytest.raises(InputError, match=r"snakemake ensemble --config ensemble=\[RUN,RUN\]"):
        members(None)
    done = snakemake("ensemble", "--dry-run", "--config", "csv=sample", "ensemble=[accurate,nobody]")
    assert done.returncode != 0
    assert "model nobody: no model of that name" in done.stdout + done.stderr


def test_other_runs_are_read_from_the_disk(tmp_path: Path) -> None:
    """All of them by their model folders, in float32 and in int8; a run goes before a model of its name that ships."""
    for name in ("Snakefile", "config", "environment.yml", "profiles", "prototxt", "report"):
        (tmp_path / name).symlink_to(ROOT / name)
    for run, files in (("big", FILES), ("fast", set(FILES) - {WEIGHTS})):
        (tmp_path / f"results/{run}/model").mkdir(parents=True)
        for file in files:
            (tmp_path / f"results/{run}/model" / file).touch()
    for target, settings, command in (
        ("train", ("teacher=[big,fast]", "soft_targets=[teacher=1]"), "--teacher results/big/model results/fast/model"),
        ("train", ("head_of=big",), "second_head results/big/model data/sample"),
        ("ensemble", ("ensemble=[big,accurate]",), f"results/big/model {MODELS}/accurate"),
    ):
        words = ("--dry-run", "--printshellcmds", "--config", "csv=sample", "run=new", *settings)
        done = snakemake(target, *words, cwd=tmp_path, PYTHONPATH=str(ROOT))
        assert done.returncode == 0, done.stdout + done.stderr
        assert command in done.stdout + done.stderr


def test_an_object_store_that_never_answers_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as stalled:
        url = f"http://127.0.0.1:{stalled.getsockname()[1]}"
        with pytest.raises(InputError, match=f"^{url}: the object store has not answered for 0.1 seconds"):
            watch_store(url, 0.1)


def test_an_object_store_that_stops_answering_is_named_in_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        program = f"from pipeline.stages.workflow import watch_store; watch_store('{url}', 2); print('in')"
        command = [sys.executable, "-c", program]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
            said, errors = running.communicate(timeout=60)
    assert said == "in\n"
    assert errors.startswith(f"\nerror: {url}: the object store has not answered for 2 seconds;")


def test_an_object_store_at_which_nothing_listens_is_left_to_snakemake() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    program = f"from pipeline.stages.workflow import watch_store; watch_store('{url}')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not done.stderr


def test_predict_without_input_says_how() -> None:
    with pytest.raises(InputError, match="snakemake predict --config input=FOLDER"):
        parse_input(None)
    for word in ("-", [""]):
        with pytest.raises(InputError, match="python -m pipeline predict -"):
            parse_input(word)


def test_files_are_compared_with_the_last_run_and_what_is_live_is_read_again(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.touch()
    known = parse_input(str(film))
    assert (known.word, known.files, known.again, known.live) == (str(film), [str(film)], None, False)
    assert known.annotated("out") == ["--annotated", "out/annotated"]
    for word in ("cam", "cam:1", "rtsp://camera.local/1"):
        live = parse_input(word)
        assert (live.word, live.files, live.live) == (word, [], True)
        assert live.again != parse_input(word).again
        assert live.annotated("out") == []
    assert not parse_input(f"{tmp_path}/*.mp4").live
    list_file = tmp_path / "list.txt"
    list_file.write_text("film.mp4\n")
    assert parse_input(str(list_file)).again != parse_input(str(list_file)).again


def test_a_picture_that_is_written_over_in_a_folder_is_read_again(tmp_path: Path) -> None:
    picture = tmp_path / "deep/a.png"
    picture.parent.mkdir()
    picture.write_bytes(b"1")
    before = parse_input(str(tmp_path))
    assert before.again == parse_input(str(tmp_path)).again is not None
    picture.write_bytes(b"2")
    assert parse_input(str(tmp_path)).again != before.again


def test_dvc_calls_snakemake_with_targets_that_are_rules() -> None:
    targets = [re.fullmatch(r"snakemake (\w+) --config .*", stage["cmd"]) for stage in DVC["stages"].values()]
    assert all(target and target[1] in RULES for target in targets)


def test_dvc_keeps_what_the_rules_make(outputs: dict[str, set[str]]) -> None:
    made = set().union(*outputs.values())
    kept = {entry for stage in DVC["stages"].values() for entry in entries(stage, "outs", "metrics")}
    unmade = {out for out in kept if out not in made and not any(path.startswith(f"{out}/") for path in made)}
    assert unmade == UNDECLARED
    missed = {path for path in made if not any(path == out or path.startswith(f"{out}/") for out in kept)}
    assert not missed


def test_dvc_depends_on_what_is_there() -> None:
    made = {entry for stage in DVC["stages"].values() for entry in entries(stage, "outs", "metrics")}
    for stage in DVC["stages"].values():
        assert all(dep in made or (ROOT / dep).exists() for dep in entries(stage, "deps"))
        for file in stage["params"]:
            ((path, names),) = file.items()
            assert set(names) <= set(yaml.safe_load((ROOT / path).read_text()))
    told = {name for stage in DVC["stages"].values() for file in stage["params"] for name in next(iter(file.values()))}
    # dvc.yaml's commands say these, and shards change no byte.
    assert told == set(CONFIG) - {"csv", "run", "export_path", "ensemble", "shards"} - PREDICT


def test_conda_gives_the_versions_of_pip() -> None:
    constraints = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text().lower(), re.M))
    *_, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    versions = dict(line.split("==") for line in pip["pip"] if not line.startswith("--"))
    assert versions == {name: constraints.get(name) for name in versions}


def test_the_readme_tells_every_stage() -> None:
    table = re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text(), re.M)
    assert table == list(STAGES)


def own_settings(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> Path | None:
    """What find_net_settings says of a net `mine` whose config.yaml is `text`, in a folder of its own."""
    (folder / "prototxt/mine").mkdir(parents=True)
    (folder / "prototxt/mine/train_val.prototxt").touch()
    (folder / "prototxt/mine/config.yaml").write_text(text)
    (folder / "config").mkdir()
    (folder / "config/schema.yaml").write_text((ROOT / "config/schema.yaml").read_text())
    monkeypatch.chdir(folder)
    return find_net_settings("mine")


def test_a_net_may_have_settings_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_settings(tmp_path, "epochs: 3", monkeypatch) == Path("prototxt/mine/config.yaml")
    Path("prototxt/mine/config.yaml").unlink()
    assert find_net_settings("mine") is None
    with pytest.raises(InputError, match="net: min: no such net under prototxt/; there are mine"):
        find_net_settings("min")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 0", "epochs: 0 is less than the minimum of 1"),
        ("epoch: 3", "'epoch' was unexpected"),
        ("net: small", "a net's own settings cannot choose another net"),
        ("epochs: [", "not YAML"),
        ("3", "3 is not of type 'object'"),
    ],
)
def test_a_nets_own_settings_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        own_settings(tmp_path, text, monkeypatch)
    assert str(caught.value).startswith("prototxt/mine/config.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", sorted((ROOT / "prototxt").glob("*/config.yaml")), ids=lambda path: path.parent.name)
def test_the_settings_of_the_nets_are_sound(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert find_net_settings(path.parent.name) == path.relative_to(ROOT)


def test_a_net_overrides_the_file_the_sample_the_net_and_the_command_line_all(tmp_path: Path) -> None:
    (tmp_path / "faces.csv").touch()
    dry = ("render", "--dry-run", "--forceall", "--printshellcmds", "--config", "net=gudi")
    told = [snakemake(*dry, *words).stdout for words in ([f"csv={tmp_path}/faces.csv"], ["csv=sample", "batch_size=9"])]
    assert "--epochs 100 --batch-size 50" in told[0]
    assert "--epochs 20 --batch-size 9" in told[1]


def test_the_settings_of_predict_are_options_that_its_command_takes() -> None:
    """As the rule passes them on: a default that the command refuses would stop every reading."""
    parser = argparse.ArgumentParser()
    predict.add_arguments(parser)
    names = re.findall(r'^            "(\w+)",$', RULES["predict"], re.M)
    assert {"every", "rotations", "views"} <= set(names)
    args = parser.parse_args([*command_options(CONFIG, *names), "--", "photo.jpg"])
    assert args.every == CONFIG["every"]
