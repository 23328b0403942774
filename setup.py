"""Compiles pipeline/caffe/proto/caffe.proto with protoc as part of building or installing the package."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithMessages(build_py):
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


setup(cmdclass={"build_py": BuildWithMessages})
