"""What a person sees of the commands themselves."""

import sys

import pytest

import pipeline.__main__
import pipeline.caffe.__main__


@pytest.mark.parametrize(
    ("called", "module", "said"),
    [
        ("/usr/bin/expressions", pipeline.__main__, "usage: expressions "),
        ("/src/pipeline/__main__.py", pipeline.__main__, "usage: python -m pipeline "),
        ("/usr/bin/caffe-torch", pipeline.caffe.__main__, "usage: caffe-torch "),
        ("/src/pipeline/caffe/__main__.py", pipeline.caffe.__main__, "usage: python -m pipeline.caffe "),
    ],
)
def test_help_names_the_command_as_it_was_called(
    called: str,
    module: object,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [called, "--help"])
    with pytest.raises(SystemExit, match="0"):
        module.main()  # type: ignore[attr-defined]
    assert capsys.readouterr().out.startswith(said)
