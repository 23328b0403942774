"""The project's own files: what CI runs is what `.ci/run` runs, and facts stand in one place."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import pipeline
from pipeline.stages.working_folder import FILES

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
SCRIPT = re.compile(r"bash \.ci/(\w+)")


def scripts_of(workflow: Path) -> set[str]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    steps = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    return {name for step in steps for name in SCRIPT.findall(step)}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_scripts_that_are_there(workflow: Path) -> None:
    found = scripts_of(workflow)
    assert found
    assert all((ROOT / ".ci" / name).is_file() for name in found), found


def test_every_step_of_ci_is_in_a_workflow() -> None:
    beside, here = re.findall(r"run_steps ((?:\w+ ?)+)", (ROOT / ".ci/run").read_text())
    steps = beside.split() + here.split()
    assert len(steps) == len(set(steps)) == 8
    assert set(steps) <= set.union(*map(scripts_of, WORKFLOWS))


def test_the_templates_for_issues_are_yaml() -> None:
    for path in (ROOT / ".github").rglob("*.yml"):
        assert isinstance(yaml.safe_load(path.read_text()), dict), path


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "pipeline.__version__"}
    assert "\nversion:" not in (ROOT / "CITATION.cff").read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="the script checks a release on Linux")
def test_a_tag_that_is_not_the_version_is_no_release(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    (folder / "pipeline").mkdir(parents=True)
    (folder / ".ci").mkdir()
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/activate").touch()
    for name in ("environment", "release"):
        (folder / ".ci" / name).write_text((ROOT / ".ci" / name).read_text())
    (folder / "pipeline/__init__.py").write_text((ROOT / "pipeline/__init__.py").read_text())
    changes, project = folder / "CHANGELOG.md", folder / "pyproject.toml"
    changes.write_text("## [Unreleased]\n")
    project.write_text('Homepage = "https://caffe-expressions.example.org"\n')

    def check(tag: str) -> str:
        done = subprocess.run(["bash", ".ci/release", tag], cwd=folder, capture_output=True, text=True, check=False)
        return done.stderr if done.returncode else "may be released"

    tag = f"v{pipeline.__version__}"
    assert "tag v9.9.9 where" in check("v9.9.9")
    assert "has no section" in check(tag)
    changes.write_text(f"## [{pipeline.__version__}] - 2026-12-01\n")
    assert "placeholder" in check(tag)
    project.write_text('Homepage = "https://host.test/project"\n')
    assert check(tag) == "may be released"


def test_uvs_lock_has_the_versions_of_pip_from_public_hosts() -> None:
    text = (ROOT / "uv.lock").read_text()
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.M))
    locked = {package["name"]: package.get("version") for package in tomllib.loads(text)["package"]}
    other = {name: locked.get(name) for name, version in pinned.items() if locked.get(name) != version}
    assert not other, "run bash .ci/lock"
    assert set(re.findall(r"https?://[^/\"]*", text)) == {"https://pypi.org", "https://files.pythonhosted.org"}


def test_the_source_archive_holds_the_files_of_a_working_folder() -> None:
    """setup.py puts them into a wheel, which may be built from the archive."""
    lines = (ROOT / "MANIFEST.in").read_text().splitlines()
    included = {word for line in lines if not line.startswith("#") for word in line.split()[1:]}
    assert set(FILES) <= included
