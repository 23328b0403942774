"""Packages of extras: what is said of one that is not installed."""

import tomllib
from pathlib import Path

import pytest

from pipeline.base.extras import _PACKAGES, how_to_install, naming_missing_package

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("module", ["torch", "torch.nn"])
def test_a_missing_package_names_its_extra(module: str) -> None:
    error = ModuleNotFoundError(f"No module named '{module}'", name=module)
    assert how_to_install(error) == ("the package torch is not installed; pip install 'caffe-expressions[engine]'")


def test_a_package_of_no_extra_is_another_fault() -> None:
    assert how_to_install(ModuleNotFoundError("No module named 'pipelin'", name="pipelin")) is None


@pytest.mark.parametrize(("module", "ended"), [("torch", SystemExit), ("pipelin", ModuleNotFoundError)])
def test_a_command_ends_with_one_line_for_a_package_of_an_extra_alone(module: str, ended: type[BaseException]) -> None:
    @naming_missing_package()
    def command() -> None:
        raise ModuleNotFoundError(f"No module named '{module}'", name=module)

    with pytest.raises(ended, match=module):
        command()


def test_every_extra_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(_PACKAGES) <= set(project["optional-dependencies"])
