"""Peak memory of the data stages on sets that grow: extract, align, combine, lmdb, mean and targets.

    python benchmarks/data_memory.py [--rows 20000 200000] [--folder FOLDER]

Each set has rows of FER2013's form with 48x48 pixels, every fifth a copy of an earlier one, and FER+'s votes on all of
them. Each stage runs in a process of its own; align takes the whole image for the face, since a detector's nets need
the same memory for any set. Printed are the peaks, and what a row more costs. The last line is 600 MiB over the
greatest peak that follows for a set 100 times FER2013, which has 3.6 million rows.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from processes import run

LIMIT_MIB = 600
GREAT = 3_588_700  # 100 times FER2013
CHOICES = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"


def write_set(folder: Path, rows: int) -> None:
    """fer2013.csv of flat images that their number tells apart, and fer2013new.csv."""
    usages = (*["Training"] * 8, "PublicTest", "PrivateTest")
    flat = " 7" * (48 * 48 - 4)
    with open(folder / "fer2013.csv", "w") as images, open(folder / "fer2013new.csv", "w") as votes:
        images.write("emotion,pixels,Usage\n")
        votes.write(f"Usage,Image name,{CHOICES}\n")
        for row in range(rows):
            number = row - 4 if row % 5 == 4 else row
            digits = " ".join(str(byte) for byte in np.uint32(number).tobytes())
            images.write(f"{row % 7},{digits}{flat},{usages[row % 10]}\n")
            votes.write(f"{usages[row % 10]},fer{row:07d}.png,{row % 5},5,0,1,0,0,0,0,1,0\n")


def peaks(folder: Path) -> dict[str, float]:
    """MiB of each stage, on the set in a folder."""
    images, aligned, both, databases = (folder / name for name in ("images", "aligned", "both", "databases"))
    source = (folder / "fer2013.csv", images, "--ferplus", folder / "fer2013new.csv", "--labels", "fer2013")
    commands: dict[str, tuple[str | Path, ...]] = {
        "extract": source,
        "align": (images / "manifest.csv", aligned, "--detector", "none"),
        "combine": (images / "manifest.csv", aligned / "manifest.csv", both),
        "lmdb": (both / "manifest.csv", databases),
        "mean": (databases / "train_lmdb", databases / "mean.binaryproto"),
        "targets": (databases, folder / "targets", "--soft-targets", "labels=0.5", "votes=0.5", "--auxiliary", "votes"),
    }
    found = {}
    for stage, words in commands.items():
        usage = run((sys.executable, "-m", "pipeline", stage, *words))
        print(f"  {stage}: {usage}", flush=True)
        found[stage] = usage.peak_mib
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs=2, default=(20_000, 200_000))
    parser.add_argument("--folder", type=Path, help="where the sets are made, on a disk with room for them")
    args = parser.parse_args()
    found = []
    for rows in args.rows:
        print(f"{rows} rows", flush=True)
        with tempfile.TemporaryDirectory(dir=args.folder) as name:
            write_set(Path(name), rows)
            found.append(peaks(Path(name)))
    greatest = 0.0
    for stage, small in found[0].items():
        bytes_a_row = (found[1][stage] - small) * 2**20 / (args.rows[1] - args.rows[0])
        great = small + bytes_a_row * (GREAT - args.rows[0]) / 2**20
        greatest = max(greatest, great)
        print(f"{stage}: {bytes_a_row:.0f} bytes a row, so {great:.0f} MiB for {GREAT} rows")
    print(f"ratio {LIMIT_MIB / greatest:.2f}")


if __name__ == "__main__":
    main()
