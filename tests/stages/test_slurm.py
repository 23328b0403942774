"""The workflow on a Slurm cluster: every stage is a job, and what comes out is what one machine makes, bit for bit."""

import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers.slurm_cluster import missing_programs, slurm_cluster

ROOT = Path(__file__).parents[2]
LINKED = ("Snakefile", "config", "environment.yml", "profiles", "prototxt", "report")
STAGES = ["sample", "extract", "align", "lmdb", "mean", "render", "solve", "evaluate", "export"]
SHARDED = ["extract", "align", "lmdb", "evaluate"]
SETTINGS = ("--config", "csv=sample", "epochs=3", "threads=1", "shards=2")
# This cluster keeps no accounts, so squeue is asked, and often: its jobs are short.
STATUS = ("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2")
SAME = ("*.csv", "data.mdb", "*.png", "*.txt", "*.binaryproto", "*.caffemodel", "*.onnx", "*.safetensors")
PATIENCE = 1800  # seconds

if missing_programs():
    pytest.skip(f"no {', '.join(missing_programs())}; bash .ci/slurm installs it", allow_module_level=True)
if os.geteuid() != 0:
    pytest.skip("only root can start a cluster", allow_module_level=True)
if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
    pytest.skip("pip install -c constraints.txt -e '.[slurm]'", allow_module_level=True)


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start snakemake in a folder of its own, which has the project's files."""
    folder.mkdir(exist_ok=True)
    for name in LINKED:
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", *words, "train", *SETTINGS],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(run: subprocess.Popen[str]) -> str:
    said, _ = run.communicate(timeout=PATIENCE)
    return said


def wait_for(what: Callable[[], object], run: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + PATIENCE
    while not what():
        assert run.poll() is None, finish(run)
        assert time.monotonic() < limit
        time.sleep(0.2)


class Job(NamedTuple):
    """What squeue says of a job."""

    number: str
    rule: str
    node: str
    state: str


def jobs() -> list[Job]:
    """All that the cluster has had, in the order in which they were submitted."""
    command = ["squeue", "--states=all", "--noheader", "--sort=i", "--format=%i|%k|%N|%T"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [line.split("|") for line in lines]
    return [
        Job(number, comment.removeprefix("rule_").partition("_wildcards")[0], node, state)
        for number, comment, node, state in rows
    ]


def results(folder: Path) -> dict[str, bytes]:
    """What the stages made; what else there is tells times."""
    paths = [path for top in ("data", "results") for kind in SAME for path in (folder / top).rglob(kind)]
    # A run that was killed has snapshots of its own.
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if "snapshots" not in path.parts}


def test_a_cluster_makes_what_one_machine_makes_though_a_node_drains_and_a_job_is_killed(tmp_path: Path) -> None:
    profile = ("--workflow-profile", "profiles/slurm", *STATUS)
    local = start(tmp_path / "local", "-j1")
    cluster = tmp_path / "cluster"
    with slurm_cluster():
        run = start(cluster, *profile)
        wait_for(lambda: any(job.state == "RUNNING" for job in jobs()), run)
        first = jobs()[0]
        drain = ["scontrol", "update", f"NodeName={first.node}", "State=DRAIN", "Reason=test"]
        subprocess.run(drain, check=True)
        wait_for(lambda: list(cluster.glob("results/sample/snapshots/*.solverstate")), run)
        (training,) = (job.number for job in jobs() if job.state == "RUNNING")
        subprocess.run(["scancel", "--signal=KILL", "--full", training], check=True)
        said = finish(run)
        assert run.returncode != 0
        assert re.search(r"Error in rule solve:\n +message: SLURM-job '\d+' failed", said), said

        run = start(cluster, *profile)
        said = finish(run)
        assert run.returncode == 0, said
        done = jobs()
    assert [job.node for job in done].count(first.node) == 1, done  # a node that drains ends what it has, no more
    assert [job.rule for job in done if job.state != "COMPLETED"] == ["solve"], done
    expected_jobs = [*STAGES, *(f"{stage}_shard" for stage in SHARDED for _ in range(2))]
    assert sorted(job.rule for job in done if job.state == "COMPLETED") == sorted(expected_jobs)
    assert (cluster / "results/sample/train.log").read_text().count("Resuming at iteration") == 1
    assert local.wait(PATIENCE) == 0, finish(local)
    expected = results(tmp_path / "local")
    assert {"data/sample/aligned/manifest.csv", "results/sample/final.caffemodel"} <= set(expected)
    assert results(cluster) == expected
