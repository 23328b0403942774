"""Flags in the forms of gflags, which Caffe's commands use: -solver x, --solver=x, -gray, --gray=true, --nogray."""

import argparse
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn

# Of `caffe` itself, whose four actions all take all of them (caffe/tools/caffe.cpp), and one that Caffe does not need:
# it runs whatever its nets name.
CAFFE_FLAGS: dict[str, tuple[str | int | bool, str]] = {
    "gpu": ("", "the GPU to run on, by its number, or of train several: 0,1 or all; without it the CPU"),
    "solver": ("", "the solver's prototxt"),
    "model": ("", "the net's prototxt"),
    "phase": ("", "TRAIN or TEST: the phase that the net is timed in"),
    "level": (0, "the level that the net's rules compare"),
    "stage": ("", "the stages that the net's rules ask for, commas between them"),
    "snapshot": ("", "the .solverstate to resume from, or latest: the newest one, if there is any"),
    "weights": ("", "the .caffemodels to start from, commas between them"),
    "iterations": (50, "how many batches to run"),
    "sigint_effect": ("stop", "what SIGINT does: snapshot, stop or none"),
    "sighup_effect": ("snapshot", "what SIGHUP does: snapshot, stop or none"),
    "allow_python_layers": (False, "run the classes that the net's Python layers name: for nets that you trust"),
}


class FlagParser(argparse.ArgumentParser):
    """An argparse parser for flags of gflags' forms; a flag may stand before, between and after other arguments.

    Commands declare flags with add_flag() and other arguments with add_argument().
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, add_help=False, **options)
        self.flags: dict[str, bool] = {"help": True}  # whether it is boolean
        self.add_argument("--help", action="help", help="show this and exit")
        self.set_defaults(unused=[])

    def add_flag(self, name: str, default: str | int | float | bool, about: str) -> None:
        """Declare a flag of its default's type."""
        self.flags[name] = isinstance(default, bool)
        kind = _KINDS[type(default)]
        shown = str(default).lower() if isinstance(default, bool) else default
        suffix = f" (default {shown})" if default != "" else ""
        self.add_argument(
            f"--{name}", type=kind, default=default, metavar=type(default).__name__.upper(), help=about + suffix
        )

    def add_caffe_flags(self, used: Collection[str]) -> None:
        """Declare all flags of `caffe`; those that are not `used` are accepted, and named in `unused`."""
        for name in used:
            self.add_flag(name, *CAFFE_FLAGS[name])
        for name in CAFFE_FLAGS.keys() - set(used):
            default, _ = CAFFE_FLAGS[name]
            self.flags[name] = isinstance(default, bool)
            self.add_argument(
                f"--{name}", dest="unused", type=_KINDS[type(default)], action=_Unused, help=argparse.SUPPRESS
            )

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Read a command line. Ends the process with status 1, as gflags does, where it cannot be read."""
        flags, words = self.split(arguments)
        args, surplus = self.parse_known_args([*flags, "--", *words] if words else flags)
        if surplus:
            self.error(f"nothing takes the words {' '.join(word for word in surplus if word != '--')}")
        return args

    def split(self, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
        """The flags of a command line, each as --name=value, and its other words."""
        flags, words, unknown = [], [], []
        left = list(arguments)
        while left:
            argument = left.pop(0)
            if argument == "--":
                words += left
                break
            if not argument.startswith("-") or argument == "-":
                words.append(argument)
                continue
            given, equals, value = argument.removeprefix("-").removeprefix("-").partition("=")
            name = given.replace("-", "_")
            if name not in self.flags and self.flags.get(name.removeprefix("no")) and not equals:
                name, value = name.removeprefix("no"), "false"
            elif name not in self.flags:
                unknown.append(given)
                continue
            elif not equals and self.flags[name]:
                value = "true"
            elif not equals:
                if not left:
                    self.error(f"flag '{argument}' is missing its argument")
                value = left.pop(0)
            flags.append("--help" if name == "help" else f"--{name}={value}")
        if unknown:
            self.error("\nERROR: ".join(f"unknown command line flag '{name}'" for name in unknown))
        return flags, words

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with a command line, and exit with status 1."""
        print(f"ERROR: {message}\n{self.prog} --help tells of every flag", file=sys.stderr)
        raise SystemExit(1)


class _Unused(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: object, option: str | None = None
    ) -> None:
        namespace.unused = [*namespace.unused, self.option_strings[0]]


def _boolean(text: str) -> bool:
    if text.lower() in ("1", "t", "true", "y", "yes"):
        return True
    if text.lower() in ("0", "f", "false", "n", "no"):
        return False
    raise argparse.ArgumentTypeError(f"illegal value '{text}' where true or false was expected")


def _integer(text: str) -> int:
    try:
        value = int(text, 16 if text.lower().startswith("0x") else 10)
    except ValueError:
        value = None
    if value is None or not -(2**31) <= value < 2**31:
        raise argparse.ArgumentTypeError(f"illegal value '{text}' where an int32 was expected")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"illegal value '{text}' where a number was expected") from None


_KINDS: dict[type, Callable[[str], Any]] = {bool: _boolean, int: _integer, float: _number, str: str}
