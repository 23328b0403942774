"""Folds of the training images, for a teacher that answers on images it was not trained on."""

from pipeline.base.errors import InputError
from pipeline.data.manifest import ManifestRow


def fold_of(sha256: str, folds: int) -> int:
    """Which of `folds` folds an image is in, by the hash of its pixels: copies of an image are in one fold."""
    return int(sha256[:8], 16) % folds


def read_fold(word: str) -> tuple[int, int]:
    """What 2/5 says: the fold left out, from 1, and how many there are. Raises InputError for anything else."""
    fold, _, folds = word.partition("/")
    if not (fold.isdecimal() and folds.isdecimal() and 1 <= int(fold) <= int(folds) and int(folds) >= 2):
        raise InputError(f"fold: '{word}', where one such as 2/5 was expected: the second of five folds is left out")
    return int(fold), int(folds)


def fold_mark(word: str | None) -> str:
    """What the name of databases ends with that leave a fold out, such as 2/5."""
    return f"_without_{word.replace('/', '_of_')}" if word else ""


def is_left_out(row: ManifestRow, fold: int, folds: int) -> bool:
    """Whether a row is a Training one of a fold, counted from 1, of so many."""
    return row.usage == "Training" and fold_of(row.sha256, folds) == fold - 1
