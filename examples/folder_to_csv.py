"""Read the faces in a folder of pictures into a table: python examples/folder_to_csv.py photos/ readings.csv"""

import sys

from pipeline import InputError, Predictor, open_sources, to_dataframe


def main(folder: str, table: str) -> None:
    predictor = Predictor()
    readings = []
    for source in open_sources([folder]):
        with source:  # a picture that cannot be read is named in the log, and the rest go on
            for frame in source:
                readings += predictor.read([frame])
    faces = to_dataframe(readings)
    faces.to_csv(table, index=False)  # a picture without a face has a row of status `none`
    print(f"{len(readings)} pictures, {sum(len(reading.faces) for reading in readings)} faces; mean probabilities:")
    print(faces[[f"probability_{label}" for label in predictor.labels]].mean().round(2).to_string())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    try:
        main(sys.argv[1], sys.argv[2])
    except (InputError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
