"""Whether another process has a database open."""

import os
import struct
import sys
from pathlib import Path

from pipeline.caffe.database.datum import DatabaseError


def refuse_locked(path: Path) -> None:
    """Raise DatabaseError when another process has locked the file, as LMDB and LevelDB do with one they have open."""
    if not sys.platform.startswith("linux"):
        return
    import fcntl  # not everywhere

    try:
        with path.open("rb") as file:
            # struct flock: type, whence, start, length, pid. F_GETLK asks who stands in the way, and takes nothing.
            query = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, query))
    except OSError:
        return  # there is none, or none that this user may see
    if answer[0] != fcntl.F_UNLCK:
        raise DatabaseError(f"{path.parent}: process {answer[4]} has it open; wait until that has ended")
