"""Shards: parts of a stage's work, each a job of its own, whose results another job puts together.

A shard's folder holds SHARD_FILE beside its part of the result: which shard it is, of how many, and how it was made.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError
from pipeline.base.text_files import read_json

SHARD_FILE = "shard.json"


@dataclass(frozen=True)
class Shard:
    """One of `count` shards. number: from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def rows(self, total: int, batch: int) -> range:
        """This shard's of `total` rows, in whole batches, so that each batch is the one it is without shards."""
        batches = -(-total // batch)
        first, last = (batches * number // self.count * batch for number in (self.number - 1, self.number))
        return range(min(first, total), min(last, total))


def read_shard(word: str) -> Shard:
    """What 2/4 says: the second of four shards. Raises InputError for anything else."""
    number, _, count = word.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise InputError(f"shard: '{word}', where one such as 2/4 was expected: the second of four shards")
    return Shard(int(number), int(count))


def write_note(folder: Path, stage: str, shard: Shard, made_by: Mapping[str, Any]) -> None:
    """Write SHARD_FILE. made_by: the settings, which must be the same in all shards."""
    note = {"stage": stage, "shard": str(shard), **made_by}
    (folder / SHARD_FILE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")


def in_order(
    stage: str, folders: Sequence[Path], expected: Mapping[str, Any] | None = None
) -> tuple[list[Path], dict[str, Any]]:
    """The folders of all shards of a stage, the first shard first, and the settings that made them.

    expected: those that must have. Raises InputError where a shard is missing, given twice, or was made with other
    settings than the first one given, or than expected.
    """
    found: dict[int, Path] = {}
    made_by, count = None, 0
    for folder in folders:
        note = read_json(folder / SHARD_FILE, "make the shard again") if (folder / SHARD_FILE).is_file() else {}
        if note.pop("stage", None) != stage:
            raise InputError(f"{folder}: no {SHARD_FILE} of {stage}, where a shard was expected; make it with --shard")
        try:
            shard = read_shard(str(note.pop("shard", "")))
        except InputError as error:
            raise InputError(f"{folder / SHARD_FILE}: {error}; make the shard again") from None
        if made_by is None:
            made_by, count = note, shard.count
        if (note, shard.count) != (made_by, count):
            raise InputError(
                f"{folder}: shard {shard} made with {json.dumps(note)}, where one of {count} made with "
                f"{json.dumps(made_by)}, as {folders[0]}, was expected; make all shards with the same settings"
            )
        if shard.number in found:
            raise InputError(f"{folder}: shard {shard} again, after {found[shard.number]}; give each shard once")
        found[shard.number] = folder
    missing = [f"{number}/{count}" for number in range(1, count + 1) if number not in found]
    if missing or made_by is None:
        raise InputError(f"shard {', '.join(missing)} is missing among those given; make it with --shard, and give all")
    if expected is not None and made_by != expected:
        raise InputError(
            f"{folders[0]}: made with {json.dumps(made_by)}, where {json.dumps(expected)} was expected; make the "
            "shards with the same options, of the same files"
        )
    return [found[number] for number in sorted(found)], made_by


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
