"""The demo touches only files of its own, and its exit codes say what came out."""

from __future__ import annotations

from pathlib import Path

import pytest

import scalenas_export.demo
from scalenas_export.cli.app import run
from scalenas_export.demo import DemoRequest, DemoResult
from scalenas_export.demo_place import MARKER, check_folder, claim, distinct
from scalenas_runtime.errors import UserError


@pytest.mark.parametrize("name", ["search", "pose.png", "pose-hrnet.bundle"])
def test_the_demo_replaces_no_files_of_others(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text("precious")
    assert run(["demo", "--out", "."]) == 2
    assert "holds files that no demo wrote, and the demo would replace some; name a new" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "precious")]


def test_a_demo_replaces_what_an_earlier_one_left(tmp_path: Path) -> None:
    check_folder(tmp_path / "new")
    claim(tmp_path / "new")
    (tmp_path / "new" / "pose.png").write_text("old")
    claim(tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [MARKER, "pose.png"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"file is no folder; name a new one with --out"):
        claim(tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"link is a link that leads nowhere; name another folder"):
        claim(tmp_path / "link")


@pytest.mark.parametrize("budget", ["0", "-1", "nan", "inf"])
def test_a_budget_that_is_none_is_refused(budget: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "--out", str(tmp_path / "out"), f"--latency-ms={budget}"]) == 2
    error = capsys.readouterr().err
    assert budget in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_engines_that_differ_end_the_demo_with_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = (("net", *["-"] * 9),)
    result = DemoResult(rows, "", {}, "nothing meets the budget", ("hrnet-w16",))
    monkeypatch.setattr(scalenas_export.demo, "demo", lambda request, **options: result)
    assert run(["demo", "--out", str(tmp_path / "out")]) == 4
    assert "does not agree with the golden pictures: hrnet-w16" in capsys.readouterr().err


def test_pictures_of_one_stem_have_files_of_their_own(tmp_path: Path) -> None:
    assert distinct(["pose", "dog", "Dog", "pose", "pose-2"]) == ["pose", "dog", "Dog-2", "pose-2", "pose-2-2"]
    given = tuple(tmp_path / each for each in ("a/dog.png", "b/dog.png", "c/dog.jpg"))
    request = DemoRequest(tmp_path, pictures=given)
    shown = scalenas_export.demo._shown("pose", request)
    assert [(label, picture.path) for label, picture in shown.items()] == [
        ("pose", tmp_path / "pose.png"),
        *zip(("dog", "dog-2", "dog-3"), given, strict=True),
    ]
