"""Two cores, and an environment of its own for each package that is measured against."""

import os
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path

CORES = 2


def keep_to_two_cores() -> None:
    """This process and those that it starts."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def make_environment(folder: Path, *installs: Sequence[str]) -> Path:
    """Its Python, after a `pip install` of each of `installs` the first time."""
    python, made = folder / "bin" / "python", folder / "made"
    if not made.exists():
        print(f"making {folder} with {', '.join(word for install in installs for word in install)}", flush=True)
        venv.create(folder, with_pip=True)
        for install in installs:
            subprocess.run([python, "-I", "-m", "pip", "install", "--quiet", *install], check=True)
        made.touch()
    return python


def run_side(python: Path, script: str, side: str, folder: Path) -> None:
    """Run `script --measure side folder`, which leaves its result in the folder. Shows what it said if it fails."""
    command = [python, script, "--measure", side, folder]
    result = subprocess.run(
        command, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise SystemExit(f"{side}: status {result.returncode}\n{result.stderr}")
