"""Peak memory of the data stages on sets that grow: extract, align, combine, lmdb, mean and targets.

    python benchmarks/data_memory.py [--rows 20000 200000] [--folder FOLDER] [--plot memory.png]

Each set has rows of FER2013's form with 48x48 pixels, every fifth a copy of an earlier one, and FER+'s votes on all of
them. Each stage runs in a process of its own; align takes the whole image for the face, since a detector's nets need
the same memory for any set. Printed are the peaks, and what a row more costs. The last line is 600 MiB over the
greatest peak that follows for a set 100 times FER2013, which has 3.6 million rows. The plot shows the resident memory
of each stage's process on the second set, and needs Linux and Matplotlib. A row takes about 28 KB of the disk.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from processes import Usage, run

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


def run_stages(folder: Path, sample_seconds: float | None) -> dict[str, Usage]:
    """What each stage takes, on the set in a folder."""
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
        found[stage] = run((sys.executable, "-m", "pipeline", stage, *words), sample_seconds=sample_seconds)
        print(f"  {stage}: {found[stage]}", flush=True)
    return found


def plot(found: dict[str, Usage], rows: int, path: Path) -> None:
    """Draw the memory of the stages, one after the other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    start = 0.0
    for stage, usage in found.items():
        minutes = [(start + seconds) / 60 for seconds, _ in usage.samples]
        axes.plot(minutes, [mib for _, mib in usage.samples], label=f"{stage}, peak {usage.peak_mib:.0f} MiB")
        start += usage.seconds
    axes.set(xlabel="minutes", ylabel="resident memory, MiB", ylim=(0, None), title=f"{rows:,} rows")
    axes.legend(ncols=2)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs=2, default=(20_000, 200_000))
    parser.add_argument("--folder", type=Path, help="where the sets are made, on a disk with room for them")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the stages' memory on the second set")
    args = parser.parse_args()
    found = []
    for rows in args.rows:
        print(f"{rows} rows", flush=True)
        with tempfile.TemporaryDirectory(dir=args.folder) as name:
            write_set(Path(name), rows)
            found.append(run_stages(Path(name), args.plot and 0.5))
    if args.plot:
        plot(found[1], args.rows[1], args.plot)
    greatest = 0.0
    for stage in found[0]:
        small, large = (usages[stage].peak_mib for usages in found)
        bytes_a_row = (large - small) * 2**20 / (args.rows[1] - args.rows[0])
        great = small + bytes_a_row * (GREAT - args.rows[0]) / 2**20
        greatest = max(greatest, great)
        print(f"{stage}: {bytes_a_row:.0f} bytes a row, so {great:.0f} MiB for {GREAT} rows")
    print(f"ratio {LIMIT_MIB / greatest:.2f}")


if __name__ == "__main__":
    main()
