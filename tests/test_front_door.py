"""`import pipeline`: the names that it gives, and what it leaves unloaded."""

import subprocess
import sys
from pathlib import Path

import pipeline

ROOT = Path(__file__).parents[1]


def test_every_name_is_there() -> None:
    for name in pipeline.__all__:
        assert getattr(pipeline, name) is not None
    assert set(pipeline.__all__) <= set(dir(pipeline))
    assert not hasattr(pipeline, "Predicter")


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    program = "import sys, pipeline; print({'numpy', 'cv2', 'onnxruntime', 'torch'} & set(sys.modules)); " \
        "pipeline.Predictor; print('torch' in sys.modules)"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["set()", "False"]
