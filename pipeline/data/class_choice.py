"""Which classes of a data set are used, and what they are called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.base.errors import SourceError

MAX_NAME = 60  # characters; a name is a folder, too


@dataclass(frozen=True)
class ClassChoice:
    """labels: the classes, in index order. index_of: for each class of the source its index there, None if left out."""

    labels: tuple[str, ...]
    index_of: tuple[int | None, ...]


def choose_classes(
    names: tuple[str, ...], classes: Sequence[str] | None = None, class_names: Mapping[str, str] | None = None
) -> ClassChoice:
    """Rename the classes `names` of a source by `class_names`, old to new, and keep `classes`, in their order.

    classes: by their new names; None keeps them all in the source's order. Case does not count when names are compared.
    Raises SourceError for a class that there is not, a name that no folder can have, and fewer than two classes.
    """
    by_old = {name.casefold(): name for name in names}
    renamed = {name: name for name in names}
    for old, new in (class_names or {}).items():
        if old.casefold() not in by_old:
            raise SourceError(f"class_names: {old}: no such class; there are {', '.join(names)}")
        renamed[by_old[old.casefold()]] = new
    for name in renamed.values():
        _check_name(name)
    by_new: dict[str, str] = {}  # new name, without case, to old one
    for old, new in renamed.items():
        if new.casefold() in by_new:
            raise SourceError(
                f"class_names: {by_new[new.casefold()]} and {old} would both be called {new}; give each "
                "class a name of its own"
            )
        by_new[new.casefold()] = old
    for name in classes or ():
        if name.casefold() not in by_new:
            raise SourceError(f"classes: {name}: no such class; there are {', '.join(renamed.values())}")
    kept = list(dict.fromkeys(by_new[name.casefold()] for name in classes)) if classes else list(names)
    if len(kept) < 2:
        raise SourceError(
            f"{len(kept)} class ({', '.join(kept)}) where two or more were expected: a net can only tell "
            "one from another"
        )
    return ClassChoice(
        tuple(renamed[name] for name in kept), tuple(kept.index(name) if name in kept else None for name in names)
    )


def _check_name(name: str) -> None:
    if not name.isprintable() or name != name.strip() or not 0 < len(name) <= MAX_NAME or name[0] == "." or "/" in name:
        raise SourceError(
            f"class {name[:MAX_NAME]!r}: a class name of 1 to {MAX_NAME} printable characters, without / "
            "and not beginning with a dot, was expected; rename it with class_names"
        )
