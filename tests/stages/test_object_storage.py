"""The workflow's data in object storage, on a server that speaks S3 on this machine."""

import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.small_set import noise, write_csv
from helpers.trained_net import make_trained_net

from pipeline.classifier.model_folder import FILES, MODELS, WEIGHTS
from pipeline.stages.extract import extract
from pipeline.stages.lmdb import lmdb
from pipeline.stages.mean import mean
from pipeline.stages.workflow import find_dataset

ROOT = Path(__file__).parents[2]
LINKED = ("Snakefile", "config", "environment.yml", "profiles", "prototxt", "report")
SETTINGS = ("--config", "csv=s3://faces/small.csv", "train_on=images", "threads=1", "seed=1")
STORAGE = ("--default-storage-provider", "s3", "--default-storage-prefix", "s3://faces/run")

for package in ("moto", "snakemake_storage_plugin_s3"):
    if importlib.util.find_spec(package) is None:
        pytest.skip("pip install -c constraints.txt -e '.[kubernetes,test]'", allow_module_level=True)


@pytest.fixture(scope="module")
def store() -> Iterator[Any]:
    """A client of a local S3 server. Its bucket `faces` holds small.csv, and `url` is the server's address."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_bucket(Bucket="faces")
    yield client
    server.stop()


@contextmanager
def refusing_store() -> Iterator[str]:
    """The address of a server that forbids everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(403)

        do_GET = do_PUT = do_HEAD  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def snakemake(folder: Path, url: str, *words: str, settings: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    for name in LINKED:
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    variables = {
        "PYTHONPATH": str(ROOT),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "SNAKEMAKE_STORAGE_S3_ENDPOINT_URL": url,
    }
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "-j1", *STORAGE, *words, *SETTINGS, *settings],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_data_come_from_and_go_to_the_store_and_are_those_of_a_local_run(store: Any, tmp_path: Path) -> None:
    csv = tmp_path / "small.csv"
    write_csv(csv, noise(20))
    store.upload_file(str(csv), "faces", "small.csv")
    remote = tmp_path / "remote"
    remote.mkdir()

    url = store.meta.endpoint_url
    done = snakemake(remote, url, "extract")
    assert done.returncode == 0, done.stderr
    # A store that refuses is one error. What is done stays, and the same command goes on with a store that answers.
    with refusing_store() as refusing:
        refused = snakemake(remote, refusing, "mean")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert "(403)" in refused.stderr.rstrip().splitlines()[-1]
    done = snakemake(remote, url, "mean")
    assert done.returncode == 0, done.stderr
    assert "rule extract:" not in done.stdout + done.stderr

    extract(csv, tmp_path / "images")
    lmdb(tmp_path / "images/manifest.csv", tmp_path / "databases", "kaggle", 1)
    mean(tmp_path / "databases/train_lmdb", tmp_path / "databases/mean.binaryproto")
    keys = [item["Key"] for item in store.list_objects_v2(Bucket="faces", Prefix="run/data")["Contents"]]
    stored = {
        key.split("/databases/images_kaggle/")[1]: store.get_object(Bucket="faces", Key=key)["Body"].read()
        for key in keys
        if "/databases/" in key
    }
    assert {"train_lmdb/data.mdb", "val.txt", "labels.txt", "mean.binaryproto"} <= set(stored)
    assert stored == {name: (tmp_path / "databases" / name).read_bytes() for name in stored}


def test_an_export_leaves_no_files_of_an_earlier_one_in_the_store(store: Any, tmp_path: Path) -> None:
    trained = make_trained_net(noise(30), tmp_path)
    trained.evaluate(tmp_path / "measured")
    data = find_dataset(
        yaml.safe_load((ROOT / "config/config.yaml").read_text()) | {"csv": "s3://faces/small.csv"}
    ).name
    databases, run = f"run/data/{data}/databases/images_kaggle", "run/results/new"
    for part in ("train", "val", "test"):
        store.upload_file(
            str(trained.databases / f"{part}_lmdb/data.mdb"), "faces", f"{databases}/{part}_lmdb/data.mdb"
        )
    for file, key in (
        (trained.databases / "labels.txt", f"{databases}/labels.txt"),
        (trained.mean, f"{databases}/mean.binaryproto"),
        (trained.deploy, f"{run}/deploy.prototxt"),
        (trained.weights, f"{run}/best.caffemodel"),
        (tmp_path / "measured/metrics.json", f"{run}/metrics.json"),
    ):
        store.upload_file(str(file), "faces", key)
    store.put_object(Bucket="faces", Key=f"{run}/model/{WEIGHTS}", Body=b"of an earlier export")
    record = tmp_path / "work/.snakemake/storage/s3/faces" / run / "run.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"sha256": {}}))

    words = ("export", "--allowed-rules", "export")
    done = snakemake(tmp_path / "work", store.meta.endpoint_url, *words, settings=("run=new", "export_precision=int8"))
    assert done.returncode == 0, done.stderr
    stored = [item["Key"] for item in store.list_objects_v2(Bucket="faces", Prefix=f"{run}/model/")["Contents"]]
    assert {Path(key).name for key in stored} == set(FILES) - {WEIGHTS}


@pytest.mark.parametrize(
    ("target", "settings", "command"),
    [
        ("train", ("teacher=[other,fast]", "soft_targets=[teacher=1]"), "--teacher {other}/model {weights}/fast"),
        ("train", ("head_of=other",), "second_head {other}/model .snakemake/storage"),
        ("ensemble", ("ensemble=[other,fast]",), "{other}/model {weights}/fast"),
    ],
    ids=["teacher", "head_of", "ensemble"],
)
def test_other_runs_are_read_from_the_store(
    target: str, settings: Sequence[str], command: str, store: Any, tmp_path: Path
) -> None:
    store.put_object(Bucket="faces", Key="small.csv", Body=b"emotion,pixels,Usage\n")
    for name in FILES:
        store.put_object(Bucket="faces", Key=f"run/results/other/model/{name}", Body=b"")
    planned = snakemake(
        tmp_path, store.meta.endpoint_url, target, "--dry-run", "--printshellcmds", settings=("run=new", *settings)
    )
    assert planned.returncode == 0, planned.stderr
    other = ".snakemake/storage/s3/faces/run/results/other"
    assert command.format(other=other, weights=MODELS) in planned.stdout + planned.stderr
