"""python -m pipeline.caffe.shim [SCRIPT ARGUMENTS]: run a script whose `import caffe` is this engine."""

import runpy
import sys
from pathlib import Path

from pipeline.caffe.shim import FOLDER


def main() -> None:
    """Run the script that the command line names; without one print the folder for PYTHONPATH."""
    if len(sys.argv) == 1 or sys.argv[1] in ("-h", "--help"):
        print(FOLDER if len(sys.argv) == 1 else __doc__)
        return
    script = Path(sys.argv[1])
    if not script.is_file():
        raise SystemExit(f"{script}: there is no such script")
    # As `python SCRIPT` has it: its own folder first, where its modules and Python layers are.
    sys.path[0] = str(script.resolve().parent)
    sys.path.insert(1, str(FOLDER))
    sys.argv = sys.argv[1:]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
