"""What installing the package takes beside its modules: protoc's messages, and the files of a working folder."""

import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))  # pip builds without it

from pipeline.stages.working_folder import FILES, PACKAGED  # noqa: E402


class BuildWithMessages(build_py):
    """Compiles pipeline/caffe/proto/caffe.proto with protoc; in a wheel, puts the working folder's files into it."""

    def run(self) -> None:
        from grpc_tools import protoc  # a build requirement, absent at run time

        if protoc.main(
            [
                "protoc",
                f"-I{ROOT}",
                f"--python_out={ROOT}",
                f"--pyi_out={ROOT}",
                str(ROOT / "pipeline/caffe/proto/caffe.proto"),
            ]
        ):
            raise SystemExit("pipeline/caffe/proto/caffe.proto does not compile")
        super().run()
        if not self.editable_mode:
            self.copy_working_folder(Path(self.build_lib) / PACKAGED.relative_to(ROOT))

    def copy_working_folder(self, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)  # of an earlier build
        for name in FILES:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
            copy(ROOT / name, target / name)


setup(cmdclass={"build_py": BuildWithMessages})
