"""targets, answers and folds: what a net may learn in place of labels, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.base.errors import InputError
from pipeline.caffe.database import DatabaseReader, datum_to_array
from pipeline.data import ferplus
from pipeline.data.folds import fold_of
from pipeline.data.manifest import read
from pipeline.stages.extract import extract
from pipeline.stages.lmdb import lmdb
from pipeline.stages.mean import mean
from pipeline.stages.targets import read_shares, targets

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@pytest.fixture
def votes(small_csv: Path) -> Path:
    """FER+'s file for small_csv: row r has r % 7 + 1 votes for one choice and the rest for "unknown"."""
    path = small_csv.with_name("fer2013new.csv")
    usages = [line.rsplit(",", 1)[1] for line in small_csv.read_text().splitlines()[1:]]
    rows = [",".join(ferplus.COLUMNS)]
    for number, usage in enumerate(usages):
        counts = [0] * 10
        counts[number % 8], counts[8] = number % 7 + 1, 9 - number % 7
        rows.append(f"{usage},fer{number:07d}.png,{','.join(map(str, counts))}")
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def databases(small_csv: Path, votes: Path, tmp_path: Path) -> Path:
    extract(small_csv, tmp_path / "images", votes, labels="fer2013")
    lmdb(tmp_path / "images/manifest.csv", tmp_path / "databases", "kaggle", 1)
    mean(tmp_path / "databases/train_lmdb", tmp_path / "databases/mean.binaryproto")
    return tmp_path / "databases"


def read_all(database: Path) -> tuple[list[bytes], np.ndarray]:
    with DatabaseReader(database) as reader:
        rows = [(key, datum_to_array(datum, "")) for key, datum in reader]
    return [key for key, _ in rows], np.array([array[:, 0, 0] for _, array in rows])


def row_of(key: bytes) -> int:
    return int(Path(key.decode()).stem)


def test_targets_follow_the_images_of_the_database(databases: Path, tmp_path: Path) -> None:
    targets(databases, tmp_path / "targets", {"labels": 0.25, "votes": 0.75}, smoothing=0.1, auxiliary="votes")
    with DatabaseReader(databases / "train_lmdb") as reader:
        labels = {key: datum.label for key, datum in reader}
    keys, mixtures = read_all(tmp_path / "targets/targets_lmdb")
    assert keys == list(labels)
    np.testing.assert_allclose(mixtures.sum(axis=1), 1, rtol=1e-5)
    same_keys, shares = read_all(tmp_path / "targets/auxiliary_lmdb")
    assert same_keys == keys
    for key, mixture, share in zip(keys, mixtures, shares, strict=True):
        row = row_of(key)
        expected = np.zeros(10)
        expected[row % 8], expected[8] = (row % 7 + 1) / 10, (9 - row % 7) / 10
        np.testing.assert_allclose(share, expected, rtol=1e-6)
        label = np.full(7, 0.1 / 7)
        label[labels[key]] += 0.9
        voted = ferplus.CHOICES[row % 8]
        names = [ferplus.LABEL_OF.get(name, name) for name in LABELS]
        # contempt is none of FER2013's labels, so such an image keeps its own
        vote = np.array([name == voted for name in names], float) if voted in names else np.eye(7)[labels[key]]
        np.testing.assert_allclose(mixture, 0.25 * label + 0.75 * vote, rtol=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["labels=0.5"], "add up to 0.5"),
        (["labels=0.5", "labels=0.5"], "'labels=0.5'"),
        (["cats=1"], "'cats=1'"),
        (["votes=much"], "'votes=much'"),
        (["labels=nan", "votes=1"], "'labels=nan'"),
    ],
)
def test_shares_that_are_none_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_shares(words)


def test_votes_of_other_images_are_refused(databases: Path, tmp_path: Path) -> None:
    path = databases / "train_votes.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[2:], lines[1]]) + "\n")
    with pytest.raises(InputError, match="train_votes"):
        targets(databases, tmp_path / "targets", {"votes": 1})
    path.unlink()
    with pytest.raises(InputError, match=r"set ferplus to fer2013new\.csv"):
        targets(databases, tmp_path / "targets", {}, auxiliary="votes")
    assert not (tmp_path / "targets").exists()


def write_answers(databases: Path, path: Path, header: str = ",".join(LABELS)) -> np.ndarray:
    with DatabaseReader(databases / "train_lmdb") as reader:
        keys = [key.decode() for key, _ in reader]
    said = np.random.RandomState(2).dirichlet(np.ones(7), len(keys)).round(4)
    said[:, 0] += 1 - said.sum(axis=1)
    rows = [f"{key},{','.join(map(str, row))}" for key, row in zip(keys, said, strict=True)]
    path.write_text("\n".join([f"key,{header}", *rows]) + "\n")
    return said


def test_a_teachers_answers_are_learned_as_they_are(databases: Path, tmp_path: Path) -> None:
    said = write_answers(databases, tmp_path / "answers.csv")
    targets(databases, tmp_path / "targets", {"teacher": 1}, teacher=tmp_path / "answers.csv")
    np.testing.assert_allclose(read_all(tmp_path / "targets/targets_lmdb")[1], said, atol=1e-6)


def test_a_teacher_of_other_labels_or_images_is_refused(databases: Path, tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    write_answers(databases, path, header="a,b,c,d,e,f,g")
    with pytest.raises(InputError, match=r"answers.csv:1: a teacher of the labels a, b, c"):
        targets(databases, tmp_path / "targets", {"teacher": 1}, teacher=path)
    write_answers(databases, path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], lines[2].replace("_", "_other/", 1), *lines[3:]]) + "\n")
    with pytest.raises(InputError, match=r"answers.csv:3: an answer on "):
        targets(databases, tmp_path / "targets", {"teacher": 1}, teacher=path)
    path.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(InputError, match="answers on 23 images where train_lmdb has 24"):
        targets(databases, tmp_path / "targets", {"teacher": 1}, teacher=path)
    with pytest.raises(InputError, match="no teacher is named"):
        targets(databases, tmp_path / "targets", {"teacher": 1})


def test_a_fold_is_left_out_whole(databases: Path, tmp_path: Path) -> None:
    rows = read(tmp_path / "images/manifest.csv")
    training = {row.path: row for row in rows if row.usage == "Training"}
    left_out = []
    for fold in (1, 2, 3):
        lmdb(tmp_path / "images/manifest.csv", tmp_path / f"fold{fold}", "kaggle", 1, f"{fold}/3")
        kept = {line.rsplit(" ", 1)[0] for line in (tmp_path / f"fold{fold}/train.txt").read_text().splitlines()}
        missing = set(training) - kept
        assert {fold_of(training[path].sha256, 3) for path in missing} == {fold - 1}
        left_out += sorted(missing)
        assert (tmp_path / f"fold{fold}/val.txt").read_text() == (databases / "val.txt").read_text()
    assert sorted(left_out) == sorted(training)


@pytest.mark.parametrize("word", ["0/3", "4/3", "1/1", "a/b", "2"])
def test_a_fold_that_is_none_is_refused(databases: Path, tmp_path: Path, word: str) -> None:
    with pytest.raises(InputError, match=f"fold: '{word}'"):
        lmdb(tmp_path / "images/manifest.csv", tmp_path / "fold", "kaggle", 1, word)
