"""A folder that makes `import caffe` mean this engine, for scripts that are not to be edited.

python -m pipeline.caffe.shim train.py ARGUMENTS        runs a script so
export PYTHONPATH="$(python -m pipeline.caffe.shim)"    every script of this shell
"""

from pathlib import Path

FOLDER = Path(__file__).parent
