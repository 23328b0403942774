"""The files of a working folder, in which Snakemake trains: a checkout is one, and a wheel carries copies of them."""

from pathlib import Path

# Files and folders, by their paths in the checkout. setup.py puts them into the wheel, the stage `new` into a folder.
FILES = (
    "Snakefile",
    "config",
    "data/README.md",
    "docker/caffe-environment.yml",
    "docker/caffe-root.sh",
    "docker/caffe.Dockerfile",
    "environment.yml",
    "profiles",
    "prototxt",
    "report",
)
PACKAGED = Path(__file__).resolve().parents[1] / "workflow"  # exists in a wheel alone
SOURCE = PACKAGED if PACKAGED.is_dir() else PACKAGED.parents[1]
