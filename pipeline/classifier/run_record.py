"""run.json, the record of a training: what it ran on, and the hashes of what decided its result."""

from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError
from pipeline.base.text_files import read_json


def read_run_record(path: Path, remedy: str = "train again, which makes it anew") -> dict[str, Any]:
    """Read run.json.

    Returns:
        What train wrote: under "sha256" the hashes by file, and in a run that changed engines a list "earlier" of the
        records before it.

    Raises:
        InputError: it is missing or damaged; the message ends in the remedy.
    """
    if not path.exists():
        raise InputError(f"{path}: missing; {remedy}")
    record = read_json(path, remedy)
    if not is_run_record(record):
        raise InputError(f"{path}: not what train writes; {remedy}")
    return record


def is_run_record(record: Any) -> bool:
    """Whether it has the form of what train writes."""
    if not isinstance(record, dict):
        return False
    hashes, earlier = record.get("sha256"), record.get("earlier", [])
    return (
        isinstance(hashes, dict)
        and all(isinstance(value, str) for value in hashes.values())
        and isinstance(earlier, list)
        and all(isinstance(run, dict) for run in earlier)
    )
