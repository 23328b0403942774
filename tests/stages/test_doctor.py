"""doctor: a healthy machine is found so; each fault is reported with what to do about it, and none stops the others."""

import json
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.base.errors import InputError
from pipeline.classifier import model_folder
from pipeline.faces import mtcnn
from pipeline.media.sources import camera
from pipeline.media.sources.camera import ListedCamera
from pipeline.stages import doctor
from pipeline.stages.doctor import CHECKS, Check, Finding, examine, print_finding

ROOT = Path(__file__).parents[2]


def look(title: str, model: Path | None = None) -> list[Finding]:
    (check,) = (check for check in CHECKS if check.title == title)
    return list(examine(check, model))


def test_the_command_tells_what_there_is() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pipeline", "doctor", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(run.stdout)
    assert run.returncode == 0, run.stdout
    assert report["works"] is True
    states = {finding["check"]: finding["state"] for finding in report["findings"]}
    assert list(states) == [check.title for check in CHECKS]
    assert {"Python", "model", "face detector", "videos"} <= {title for title, state in states.items() if state == "ok"}
    speed = next(finding["found"] for finding in report["findings"] if finding["check"] == "speed")
    assert "ms a face" in speed
    assert "first result" in speed


def test_every_fault_of_the_model_folder_is_told(tmp_path: Path) -> None:
    assert [finding.state for finding in look("model")] == ["ok"] * len(set(model_folder.SHIPPED.values()))
    (finding,) = look("model", tmp_path)
    assert finding.state == "fail"
    assert f"{tmp_path}: no model.json" in finding.found
    shutil.copytree(model_folder.find("accurate"), tmp_path / "model")
    with open(tmp_path / "model" / "labels.txt", "a") as file:
        file.write("bored\n")
    (finding,) = look("model", tmp_path / "model")
    assert finding.state == "fail"
    assert f"{tmp_path / 'model' / 'labels.txt'}: its sha256" in finding.found


def test_a_provider_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.base.onnx_runtime.installed_providers", lambda: ["cpu", "cuda"])
    absent, there = look("providers")
    assert (absent.state, there.state) == ("warn", "ok")
    assert "providers: cuda does not start on this machine" in absent.found
    assert "install its driver" in absent.remedy
    assert "can run nets on cpu; not on cuda, tensorrt" in there.found


def test_a_damaged_net_of_the_detector_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(mtcnn.MODELS, tmp_path / "mtcnn")
    with open(tmp_path / "mtcnn" / "rnet.onnx", "ab") as file:
        file.write(b"\0")
    monkeypatch.setattr(mtcnn, "MODELS", tmp_path / "mtcnn")
    damaged, whole = look("face detector")
    assert (damaged.state, whole.state) == ("fail", "ok")
    assert "rnet.onnx: its sha256" in damaged.found
    assert whole.found.startswith("yunet, in ")


def test_without_torch_only_training_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "pipeline.caffe.precision", raising=False)
    (finding,) = look("precision")
    assert (finding.state, finding.remedy) == ("warn", "pip install -c constraints.txt -e '.[train]'")


def test_missing_and_other_packages_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    project = {
        "requires-python": ">=99.1",
        "dependencies": ["numpy", "no-such-package<5"],
        "optional-dependencies": {"serve": ["pytest", "not-there-either[all]"], "bot": ["pytest"]},
    }
    monkeypatch.setattr(doctor, "_project", lambda: project)
    (tmp_path / "constraints.txt").write_text("numpy==0.1\n")
    monkeypatch.setattr(doctor, "CONSTRAINTS", tmp_path / "constraints.txt")
    missing, other, there = look("packages")
    assert (missing.state, missing.found) == ("fail", "not installed: no-such-package")
    assert missing.remedy.startswith("pip install")
    assert other.state == "warn"
    assert "(0.1)" in other.found
    assert there.found.startswith("numpy ")
    (python,) = look("Python")
    assert python.state == "fail"
    assert "install Python 99.1 or later" in python.remedy
    (server,) = look("server")
    assert server.state == "warn"
    assert "not-there-either" in server.found
    assert server.remedy.endswith("'.[serve]'")
    assert [finding.state for finding in look("bot")] == ["ok"]


def test_cameras_are_told_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        ListedCamera(0, Path("/dev/video0"), "Webcam", None),
        ListedCamera(2, Path("/dev/video2"), "Telescope", "in use by cheese (4711); close that first"),
    ]
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(camera, "list_cameras", lambda: found)
    first, second = look("cameras")
    assert first == Finding("ok", "cam:0: Webcam, /dev/video0")
    assert second == Finding("warn", "cam:2: Telescope, /dev/video2: in use by cheese (4711)", "close that first")
    monkeypatch.setattr(camera, "list_cameras", list)
    (none,) = look("cameras")
    assert none.state == "warn"
    assert "plug one in" in none.remedy
    monkeypatch.setattr(sys, "platform", "darwin")
    (unknown,) = look("cameras")
    assert "predict cam" in unknown.remedy


def test_without_a_display_all_but_the_window_works(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    (finding,) = look("display")
    assert finding.state == "warn"
    assert "--annotated" in finding.remedy
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    assert [finding.state for finding in look("display")] == ["ok"]


def test_a_build_of_pyav_without_a_codec_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CODECS", ("h264", "no_such_codec"))
    (finding,) = look("videos")
    assert finding.state == "warn"
    assert "lacks no_such_codec" in finding.found


def test_little_space_and_a_folder_that_cannot_be_written_to_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert look("space")[0].found.endswith(f"in {tmp_path}")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=5 << 20))
    (finding,) = look("space")
    assert finding.state == "warn"
    assert "make room" in finding.remedy

    def refuse(**options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    (finding,) = look("space")
    assert finding.state == "warn"
    assert "Read-only file system" in finding.found


def test_real_caffe_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CAFFE_ROOT", raising=False)
    (finding,) = look("real Caffe")
    assert (finding.state, finding.remedy) == ("warn", "sudo sh docker/caffe-root.sh DIR, then name DIR")
    monkeypatch.setenv("CAFFE_ROOT", str(tmp_path))
    (finding,) = look("real Caffe")
    assert finding.state == "warn"
    assert f"{tmp_path}/usr/bin/caffe does not exist" in finding.found
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/caffe").touch()
    (finding,) = look("real Caffe")
    assert (finding.state, finding.found) == ("ok", f"for engine: caffe, in {tmp_path}")


def test_a_slow_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SPEED_SECONDS", 0.0), ("NET_SECONDS", 0.0), ("SLOW", 1e9), ("_first_result", lambda *_: 0.9)):
        monkeypatch.setattr(doctor, name, value)
    (finding,) = look("speed")
    assert finding.state == "warn"
    assert "--min-face" in finding.remedy


def broken(model: str | Path | None) -> Iterator[Finding]:
    yield Finding("ok", "half of it")
    raise RuntimeError("line one\nline two")


def test_a_check_that_breaks_is_a_finding_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fine = Check("fine", lambda model: iter([Finding("ok", "all well")]))
    monkeypatch.setattr(doctor, "CHECKS", (Check("broken", broken), fine))
    with pytest.raises(InputError, match="faults: 1"):
        doctor.run(Namespace(model=None, json=False))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok    broken           half of it"
    assert lines[1].startswith("fail  broken           this check broke off (RuntimeError: line one line two)")
    assert lines[-1] == "ok    fine             all well"
    monkeypatch.setattr(doctor, "CHECKS", (fine,))
    doctor.run(Namespace(model=None, json=False))
    assert "Everything that predict needs works." in capsys.readouterr().out


def test_long_findings_are_wrapped_below_one_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    print_finding("packages", Finding("warn", "word " * 30, "do " * 40))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 70
    assert {line[:23].strip() for line in lines[1:]} == {""}
    assert sum("->" in line for line in lines) == 1
