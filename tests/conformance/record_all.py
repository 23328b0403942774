"""Ask real Caffe everything again, and keep its answers beside the cases.

    CAFFE_ROOT=DIR python tests/conformance/record_all.py
"""

import shutil
import sys

from caffe_root import CaffeRoot
from harness import CASES, make_databases


def main() -> None:
    caffe = CaffeRoot.from_environment()
    if caffe is None:
        sys.exit("CAFFE_ROOT is not set; docker/caffe-root.sh makes a root with real Caffe")
    with caffe:
        make_databases(caffe.folder)
        shutil.copytree(CASES, caffe.folder / "cases")
        caffe.record("cases", "cases")
        for answers in (caffe.folder / "cases").glob("*/recorded.npz"):
            shutil.copy(answers, CASES / answers.parent.name)
            print(answers.parent.name, answers.stat().st_size)


if __name__ == "__main__":
    main()
