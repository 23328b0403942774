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


def test_the_snakefile_of_a_new_folder_plans_the_whole_way(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    names = new(tmp_path)
    assert {name.parts[0] for name in names} == {Path(name).parts[0] for name in FILES}
    for name in names:
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "train", "--dry-run", "--config", "csv=sample", "net=small"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert "rule export:" in done.stdout + done.stderr


def test_a_file_that_is_there_is_kept_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("epochs: 3\n")
    with pytest.raises(InputError, match=r"config/config\.yaml: exists already"):
        new(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["config", "config.yaml"]
    assert (tmp_path / "config/config.yaml").read_text() == "epochs: 3\n"
