"""new: a folder in which Snakemake trains, beside whatever lies in it already."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.base.errors import InputError
from pipeline.stages.new import new
from pipeline.stages.working_folder import FILES

ROOT = Path(__file__).parents[2]


def plan(folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "train", "--dry-run", "--config", "csv=sample", "net=small"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def test_the_snakefile_of_a_new_folder_plans_the_whole_way(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    names = new(tmp_path)
    assert {name.parts[0] for name in names} == {Path(name).parts[0] for name in FILES}
    for name in names:
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    done = plan(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "rule export:" in done.stdout + done.stderr


def test_a_pipeline_py_of_the_folder_is_not_run_in_place_of_the_package(tmp_path: Path) -> None:
    new(tmp_path)
    (tmp_path / "pipeline.py").write_text("raise SystemExit('the wrong pipeline')")
    done = plan(tmp_path)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "pipeline.py in this folder would run in place of the package pipeline; rename it" in said
    assert "the wrong pipeline" not in said


def test_a_file_that_is_there_is_kept_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("epochs: 3\n")
    with pytest.raises(InputError, match=r"config/config\.yaml: exists already"):
        new(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["config", "config.yaml"]
    assert (tmp_path / "config/config.yaml").read_text() == "epochs: 3\n"
