"""serve: on this machine at once, for others only with a token and TLS; and it ends when it is told to."""

import argparse
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from pipeline.base.errors import InputError
from pipeline.server.guard import LOOPBACK
from pipeline.server.metrics import FOLDER
from pipeline.server.transport import Listen, bind
from pipeline.stages.serve import TOKEN, add_arguments, choose_access, read_server_token, run

ROOT = Path(__file__).parents[2]
SECRET = "f1d2c3b4a5968778695a4b3c2d1e0f00"


@contextmanager
def serving(*arguments: object, **environment: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The address that the command says it serves at, and its process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "serve", "--port", "0", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("serving on "), line + process.stderr.read()
        yield line.split()[2].rstrip(";"), process
    finally:
        process.kill()
        process.wait(10)


def refusal(*arguments: object) -> str:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(InputError) as error:
        run(parser.parse_args(list(map(str, arguments))))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_it_serves_this_machine_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    with serving() as (address, process):
        assert address.startswith("http://127.0.0.1:")
        health = httpx.get(f"{address}/health", trust_env=False).json()
        index = json.loads((ROOT / "pipeline/weights/accurate/model.json").read_text())
        assert health["model"] == {
            "name": "accurate",
            "version": index["version"],
            "sha256": index["sha256"]["model.onnx"],
        }
        assert httpx.get(f"{address}/v1/model", trust_env=False).json()["explain"] is True
        with connect(f"{address.replace('http', 'ws')}/v1/live", proxy=None) as open_socket:
            open_socket.recv(timeout=10)
            process.send_signal(signal.SIGINT)
            with pytest.raises(ConnectionClosed) as closed:
                open_socket.recv(timeout=10)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        assert process.wait(10) == 130
        assert process.stderr is not None
        assert process.stderr.read() == "stopped\n"


def test_nothing_is_written_to_the_disk(tmp_path: Path) -> None:
    """Neither by the server nor by the libraries it uses, some of which keep caches and telemetry."""
    folders = {name: str(tmp_path) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    with serving(**folders, CI="") as (address, _):
        for name in ("one", "two"):
            image = (f"{name}.png", b"P6 640 480 255\n" + bytes(640 * 480 * 3))
            assert httpx.post(f"{address}/v1/read", files={"image": image}, trust_env=False).status_code == 200
        with connect(f"{address.replace('http', 'ws')}/v1/live", proxy=None) as open_socket:
            open_socket.recv(timeout=10)
            open_socket.send(image[1])
            assert json.loads(open_socket.recv(timeout=10))["type"] == "reading"
    assert list(tmp_path.rglob("*")) == []


def test_serving_loads_nothing_that_only_training_needs() -> None:
    program = (
        "import sys, io, numpy as np, pipeline.stages.serve, pipeline.server.app, pipeline.server.transport\n"
        "from pipeline.media.frames import Frame\n"
        "from pipeline.base.image_files import decode_image\n"
        "from pipeline.predictor import Predictor\n"
        "file = io.BytesIO()\n"
        "from PIL import Image\n"
        "Image.new('RGB', (64, 64)).save(file, 'PNG')\n"
        "frame = Frame('a', decode_image(file.getvalue(), 'a'))\n"
        "predictor = Predictor(no_face='whole')\n"
        "assert predictor.read([frame])[0].faces\n"
        "predictor.session().read(frame)\n"
        "heavy = {'torch', 'sklearn', 'scipy', 'matplotlib', 'pandas', 'onnx', 'lmdb', 'snakemake', 'yaml', 'pygame'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_with_tls_and_a_token_it_serves_others(pems: tuple[Path, Path], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"{SECRET}\n")
    certificate, key = pems
    options = ("--host", "0.0.0.0", "--token-file", token, "--tls-cert", certificate, "--tls-key", key)
    with serving(*options) as (shown, process):
        address = shown.replace("0.0.0.0", "127.0.0.1")
        assert address.startswith("https://")
        with httpx.Client(verify=ssl.create_default_context(cafile=certificate), trust_env=False) as client:
            assert client.get(f"{address}/health").json()["live"] is True
            assert client.get(f"{address}/metrics").status_code == 401
            assert client.get(f"{address}/metrics", headers={"Authorization": f"Bearer {SECRET}"}).status_code == 200
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        assert process.stderr is not None
        assert SECRET not in process.stderr.read()


def test_nobody_else_is_served_without_a_token_or_in_the_clear(
    pems: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = pems
    monkeypatch.delenv(TOKEN, raising=False)
    tls = ("--tls-cert", certificate, "--tls-key", key)
    for host in ("0.0.0.0", "::", "192.0.2.7", "some.host.example"):
        assert "a token is needed" in refusal("--host", host)
        assert "a token is needed" in refusal("--host", host, *tls)
    monkeypatch.setenv(TOKEN, SECRET)
    assert "TLS is needed" in refusal("--host", "0.0.0.0")
    assert "SERVE_TOKEN" not in refusal("--host", "0.0.0.0")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.5", "::1", "localhost"])
def test_this_machine_needs_neither(host: str) -> None:
    access = choose_access(Listen(host, 0), None, ["faces.example.org"])
    assert access.token is None
    assert access.names is not None
    assert {"localhost", host, "faces.example.org"} <= set(access.names)


def test_a_proxys_word_is_as_good_as_tls() -> None:
    listen = Listen("0.0.0.0", 0, proxy="10.0.0.0/8")
    assert choose_access(listen, SECRET, []).names is None
    assert choose_access(listen, SECRET, ["Faces.example.org"]).names == {"faces.example.org", "0.0.0.0", *LOOPBACK}
    with pytest.raises(InputError, match="an address or a network was expected"):
        choose_access(Listen("0.0.0.0", 0, proxy="everybody"), SECRET, [])


@pytest.mark.parametrize(
    ("name", "compared"),
    [("Faces.example.org.", "faces.example.org"), ("192.0.2.7", "192.0.2.7"), ("2001:DB8::1", "2001:db8::1")],
)
def test_names_are_compared_as_clients_send_them(name: str, compared: str) -> None:
    access = choose_access(Listen("127.0.0.1", 0), None, [name])
    assert access.names == {compared, *LOOPBACK}


@pytest.mark.parametrize("name", ["https://faces.example.org", "faces.example.org:8000", "*", "two names", "", "ä.de"])
def test_a_name_that_no_client_sends_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"--name .*: a host's name or address alone was expected"):
        choose_access(Listen("127.0.0.1", 0), None, [name])


@pytest.mark.parametrize("host", ["a..b", f"{'a' * 64}.example"])
def test_a_host_that_can_be_none_is_named(host: str) -> None:
    with pytest.raises(InputError, match=rf"{host}:8000: cannot listen there: no name of a host"):
        bind(Listen(host, 8000))


def test_tokens_come_from_a_file_or_the_environment_and_are_hard_to_guess(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    monkeypatch.delenv(TOKEN, raising=False)
    assert read_server_token(None) is None
    monkeypatch.setenv(TOKEN, f" {SECRET}\n")
    assert read_server_token(None) == SECRET
    file.write_text("A" * 16)
    assert read_server_token(file) == "A" * 16
    for weak in ("", "short", "has a space in it somewhere", "ö" * 20):
        file.write_text(weak)
        with pytest.raises(InputError, match="openssl rand") as error:
            read_server_token(file)
        assert str(file) in str(error.value)
        assert not weak or weak not in str(error.value)


def test_pem_files_are_looked_at_before_anything_is_served(pems: tuple[Path, Path], tmp_path: Path) -> None:
    certificate, key = pems
    assert "one was given without the other" in refusal("--tls-cert", certificate)
    assert "no such file" in refusal("--tls-cert", certificate, "--tls-key", tmp_path / "none")
    assert "no certificate and its key" in refusal("--tls-cert", key, "--tls-key", certificate)
    locked = tmp_path / "locked.pem"
    subprocess.run(["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:x", "-out", locked], check=True)
    assert "has a password" in refusal("--tls-cert", certificate, "--tls-key", locked)


def test_an_address_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}: cannot listen there: Address already in use" in refusal("--port", port)
    assert "cannot listen there" in refusal("--host", "192.0.2.7", "--port", 0, "--proxy", "10.0.0.1", *token(tmp_path))


def token(folder: Path) -> tuple[str, Path]:
    (folder / "token").write_text(SECRET)
    return "--token-file", folder / "token"


def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pipeline.server.app", None)
    monkeypatch.delattr("pipeline.server.app", raising=False)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "pipeline.server.app")
    assert refusal() == "serve needs the package fastapi; pip install 'caffe-expressions[serve]'"


def test_the_containers_packages_are_the_projects_own() -> None:
    """Every package that the image is to have is a dependency of the project, and pinned; all that serving needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    own = {*project["dependencies"], *project["optional-dependencies"]["serve"]}
    lines = (ROOT / "docker/serve-requirements.txt").read_text().splitlines()
    wanted = {line for line in lines if not line.startswith("#")}
    assert wanted <= own
    assert set(project["optional-dependencies"]["serve"]) <= wanted
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {re.split("[<>]", line)[0] for line in wanted} <= pinned


def both(process: "subprocess.Popen[str]") -> list[int]:
    """The two processes that serve: those that the parent started, but for multiprocessing's own helper."""
    for _ in range(200):
        found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        serving = [int(pid) for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        if len(serving) == 2:
            return serving
        time.sleep(0.05)
    raise AssertionError(f"{len(serving)} processes")


def wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_open(live: ClientConnection) -> bool:
    try:
        live.recv(timeout=0.1)
    except TimeoutError:
        return True
    except ConnectionClosed:
        return False
    raise AssertionError("a message that nobody asked for")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the processes are found in Linux's /proc")
def test_a_process_that_dies_is_replaced_and_the_others_answer() -> None:
    with serving("--processes", "2", "--rate", "1000") as (address, process), ExitStack() as stack:
        own_connections = httpx.Limits(max_keepalive_connections=0)
        client = stack.enter_context(
            httpx.Client(base_url=address, limits=own_connections, trust_env=False, timeout=20)
        )

        def get(path: str) -> httpx.Response:
            answer = client.get(path)
            assert answer.status_code == 200
            return answer

        def figures(name: str) -> set[float]:
            """What several answers tell, whichever process they come from."""
            lines = [line for _ in range(10) for line in get("/metrics").text.splitlines()]
            return {float(line.split()[1]) for line in lines if line.startswith(f"{name} ")}

        first = both(process)
        page = 'expressions_requests_total{method="GET",route="page",status="200"}'
        for _ in range(10):
            get("/style.css")
        lives = [stack.enter_context(connect(f"{address.replace('http', 'ws')}/v1/live", proxy=None)) for _ in "1234"]
        assert {json.loads(live.recv(timeout=20))["type"] for live in lives} == {"ready"}
        assert get("/health").json()["processes"] == 2
        assert (figures(page), figures("expressions_sessions")) == ({10.0}, {4.0})

        os.kill(first[0], signal.SIGKILL)
        for _ in range(20):
            get("/health")
        assert process.stderr is not None
        assert process.stderr.readline() == "error: a process ended (-9); another takes its place\n"
        replaced = both(process)
        assert first[1] in replaced
        assert first[0] not in replaced
        wait_until(lambda: get("/health").json()["processes"] == 2)
        assert (figures(page), figures("expressions_sessions")) == ({10.0}, {float(sum(map(is_open, lives)))})

        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
        assert process.stderr.read().splitlines() == ["stopped"]
    assert not any(Path(f"/proc/{pid}").exists() for pid in replaced)


def figures_folder(pid: int) -> Path:
    """Where the process keeps its figures, which is in no answer."""
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    (found,) = (value for value in variables if value.startswith(FOLDER.encode()))
    return Path(os.fsdecode(found.partition(b"=")[2]))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the processes are found in Linux's /proc")
def test_processes_end_when_their_parent_is_killed() -> None:
    with serving("--processes", "2") as (address, process):
        serve = both(process)
        (folder,) = {figures_folder(pid) for pid in serve}
        assert list(folder.iterdir())
        process.kill()
        process.wait(10)

        def gone(pid: int) -> bool:
            try:
                return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"  # ended, not reaped
            except FileNotFoundError:
                return True

        wait_until(lambda: all(map(gone, serve)))
        assert not folder.exists()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/health", trust_env=False)


def test_what_keeps_processes_from_serving_is_said_and_ends_all(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "serve", "--processes", "2", "--port", "0", "--model", tmp_path / "none"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert [line.partition(" no ")[0] for line in done.stderr.splitlines()] == [f"error: {tmp_path}/none:", "stopped"]
