"""Real Caffe in a Debian root, entered by chroot; docker/caffe-root.sh makes such a root."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


class CaffeRoot:
    """The root at `path`. Commands run in a folder inside it, that both sides see.

    with CaffeRoot(path) as caffe:
        caffe.run("convert_imageset", "--gray", "./", "list.txt", "faces_lmdb")
        (caffe.folder / "faces_lmdb/data.mdb").read_bytes()
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = Path(tempfile.mkdtemp(prefix="conformance.", dir=path / "tmp"))

    @classmethod
    def from_environment(cls) -> "CaffeRoot | None":
        """The root that CAFFE_ROOT names; None where it is not set."""
        path = os.environ.get("CAFFE_ROOT")
        return cls(Path(path)) if path else None

    def run(self, *command: str) -> str:
        """Run a command in the folder; return its output and then its log. Raises RuntimeError when it fails."""
        process = self.start(*command)
        output, log = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)}: status {process.returncode}\n{output[-500:]}{log[-3000:]}")
        return output + log

    def start(self, *command: str) -> "subprocess.Popen[str]":
        """Start a command in the folder, its process being the one that is returned."""
        enter = ["chroot"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "chroot"]
        inside = f"/{self.folder.relative_to(self.path)}"
        return subprocess.Popen(
            [*enter, str(self.path), "env", "-C", inside, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "OPENBLAS_NUM_THREADS": "2",
                "GLOG_logtostderr": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
            },
        )

    def record(self, *arguments: str) -> str:
        """Run record.py in the folder."""
        for script in ("record.py", "values.py", "python_layers.py"):
            shutil.copy(HERE / script, self.folder)
        return self.run("python3", "record.py", *arguments)

    def net(self, path: str, case: str) -> dict[str, np.ndarray]:
        """What a net in the folder answers to a case's numbers."""
        self.record("net", path, case, "answer.npz")
        return self._answer()

    def outputs(self, path: str, case: str) -> dict[str, np.ndarray]:
        """What a net in the folder puts out for a case's numbers, after one forward pass."""
        self.record("outputs", path, case, "answer.npz")
        return self._answer()

    def solve(self, names: list[str], steps: int, start: str) -> dict[str, dict[str, np.ndarray]]:
        """What each NAME.solver.prototxt in the folder does from a .caffemodel or .solverstate; lr is from the log.

        "{}" in `start` stands for NAME.
        """
        log = self.record("solve", str(steps), start, *names)
        answers = {}
        for name, part in zip(names, log.split("solving ")[1:], strict=True):
            rates = [float(rate) for rate in re.findall(r"lr = (\S+)", part)]
            answers[name] = {**self._answer(f"{name}.npz"), "lr": np.array(rates)}
        return answers

    def database(self, path: str) -> dict[str, np.ndarray]:
        """Keys, labels and images of an LMDB in the folder."""
        self.record("database", path, "answer.npz")
        return self._answer()

    def _answer(self, name: str = "answer.npz") -> dict[str, np.ndarray]:
        with np.load(self.folder / name, allow_pickle=False) as arrays:
            return dict(arrays)

    def __enter__(self) -> "CaffeRoot":
        return self

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.folder)
