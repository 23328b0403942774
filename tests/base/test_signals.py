"""A stage that is ended by a signal leaves nothing half-written, and what it replaces stays."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.stages.extract import extract

# Runs a stage until it has begun to write a folder; then it waits.
STAGE = """if True:
    import sys, time
    import pipeline.base.atomic
    def wait(path):
        print("writing", flush=True)
        time.sleep(60)
    pipeline.base.atomic._sync_file_system = wait
    from pipeline.__main__ import main
    main()
"""


def start(*words: str | Path, before: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([*before, sys.executable, "-c", STAGE, *words], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    return process


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_removes_what_is_half_written(tmp_path: Path, small_csv: Path, number: signal.Signals) -> None:
    extract(small_csv, tmp_path / "images")
    before = everything(tmp_path)
    with start("extract", small_csv, tmp_path / "images") as process:
        process.send_signal(number)
    assert process.returncode == 128 + number
    assert everything(tmp_path) == before
    assert sorted(os.listdir(tmp_path)) == ["fer2013.csv", "images"]


def test_nohup_outlives_its_terminal(tmp_path: Path, small_csv: Path) -> None:
    with start("extract", small_csv, tmp_path / "images", before=("nohup",)) as process:
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
