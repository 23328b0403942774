"""new: lay out a working folder, with the Snakefile, the settings and the nets, in which `snakemake train` works."""

import argparse
import shutil
from pathlib import Path

from pipeline.base.atomic import atomic_file
from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.stages.working_folder import FILES, SOURCE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="the folder to lay out; other files may be in it")


def run(args: argparse.Namespace) -> None:
    new(args.folder)
    log.info("%s is ready; train with: cd %s && snakemake -j4 train", args.folder, args.folder)


def new(folder: Path) -> list[Path]:
    """Copy what Snakemake needs to train into a folder.

    Args:
        folder: where to; it is made if it does not exist.

    Returns:
        The files, relative to the folder.

    Raises:
        InputError: when one of them exists already. Then nothing is written.
    """
    names = [path.relative_to(SOURCE) for name in FILES for path in _files(SOURCE / name)]
    for name in names:
        if (folder / name).exists():
            raise InputError(f"{folder / name}: exists already and would be overwritten; give a new folder")
    for name in names:
        with open(SOURCE / name, "rb") as source, atomic_file(folder / name) as target:
            shutil.copyfileobj(source, target)
    return names


def _files(path: Path) -> list[Path]:
    """The files of a folder, or a file itself."""
    return sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
