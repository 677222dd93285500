"""What all verbs share: config files, printed configuration, exit codes, run folders."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from scalenas_export.cli import app as application
from scalenas_export.cli.common import emit, new_run_folder, run_folder, verb, working_folder
from scalenas_runtime.errors import CheckFailed, NothingMeetsBudget, UserError


@verb("greet")
@click.option("--name", default="you")
@click.option("--times", default=1)
def greet(name: str, times: int, as_json: bool) -> None:
    """Say hello."""
    emit({"greeting": [name] * times}, f"hello {name}" * times, as_json=as_json)


@verb("keep")
@click.option("--out", type=click.Path(path_type=Path))
@click.option("--times", type=click.IntRange(min=1))
def keep(out: Path | None, times: int | None, as_json: bool) -> None:
    """Say where."""
    emit(str(out), f"{out} {times}", as_json=as_json)


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(greet, list(arguments))
    return result.exit_code, result.output


def test_text_and_json_come_from_the_same_result() -> None:
    assert invoke() == (0, "hello you\n")
    code, output = invoke("--json")
    assert code == 0
    assert json.loads(output) == {"greeting": ["you"]}


def test_a_config_file_sets_options_and_a_flag_wins(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("name: ada\ntimes: 2\n")
    assert invoke("--config", str(config)) == (0, "hello adahello ada\n")
    assert invoke("--config", str(config), "--times", "1") == (0, "hello ada\n")


def test_printed_configuration_can_be_read_back(tmp_path: Path) -> None:
    code, printed = invoke("--name", "ada", "--print-config")
    assert (code, printed) == (0, "name: ada\ntimes: 1\n")
    config = tmp_path / "c.yaml"
    config.write_text(printed)
    assert invoke("--config", str(config)) == (0, "hello ada\n")


def test_a_binary_config_file_is_named(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"c\.yaml is not YAML: .*invalid start byte"):
        CliRunner().invoke(greet, ["--config", str(config)], catch_exceptions=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nmae: ada\n", r"unknown key 'nmae'; known: name, times"),
        ("- 1\n", "must hold keys and values, got list"),
        ("a: [\n", "is not YAML"),
    ],
    ids=["unknown key", "a list", "no yaml"],
)
def test_a_wrong_config_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(text)
    with pytest.raises(UserError, match=message):
        CliRunner().invoke(greet, ["--config", str(config)], catch_exceptions=False)


ENDINGS = [
    (UserError("bad value 3"), 2, "error: bad value 3\n"),
    (NothingMeetsBudget("closest 12 ms"), 3, "error: closest 12 ms\n"),
    (CheckFailed("rung 2"), 4, "error: rung 2\n"),
    (OSError(28, "No space left on device", "out/model.onnx"), 2, "error: out/model.onnx: No space left on device\n"),
    (KeyboardInterrupt(), 130, "error: interrupted\n"),
    (click.BadParameter("no"), 2, "error: Invalid value: no\n"),
]


@pytest.mark.parametrize(("error", "code", "text"), ENDINGS, ids=[type(error).__name__ for error, _, _ in ENDINGS])
def test_every_expected_failure_is_one_line_and_a_code(
    error: BaseException,
    code: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(application.app, "main", fail)
    assert application.run([]) == code
    assert capsys.readouterr().err == text


def test_an_unexpected_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(application.app, "main", fail)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        application.run([])


def test_run_folders_are_numbered_and_hold_how_they_were_made(tmp_path: Path) -> None:
    with click.Context(greet, info_name="greet") as context:
        context.params = {"name": "ada", "times": 1, "as_json": False}
        folders = [run_folder("greet", tmp_path) for _ in range(2)]
    assert [folder.relative_to(tmp_path).as_posix() for folder in folders] == ["greet/1", "greet/2"]
    assert sorted(path.name for path in folders[0].iterdir()) == ["command.txt", "config.yaml", "env.json"]
    assert (folders[0] / "config.yaml").read_text() == "name: ada\ntimes: 1\n"
    assert "python" in json.loads((folders[0] / "env.json").read_text())


def test_a_new_run_folder_is_gone_after_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with new_run_folder("greet", tmp_path) as folder:
            (folder / "half").write_text("x")
            raise UserError("no")

    with click.Context(greet, info_name="greet"):
        with pytest.raises(UserError, match="no"):
            fail()
        with new_run_folder("greet", tmp_path) as folder:
            (folder / "whole").write_text("x")
    assert [path.name for path in tmp_path.glob("greet/*/*") if path.suffix == ""] == ["whole"]


def test_a_run_goes_on_in_the_newest_folder_that_holds_one(tmp_path: Path) -> None:
    def earlier() -> str:
        return working_folder("greet", None, tmp_path, resume=True, holds="checkpoints").name

    with pytest.raises(UserError, match=r"no run to resume in .*greet; name its folder with --out"):
        earlier()
    for number in (2, 9, 10):
        (tmp_path / "greet" / str(number)).mkdir(parents=True)
    assert earlier() == "10"
    (tmp_path / "greet" / "2" / "checkpoints").mkdir()
    assert earlier() == "2"
    (tmp_path / "greet" / "9" / "checkpoints").mkdir()
    assert earlier() == "9"


def test_a_folder_that_is_not_there_is_not_resumed_and_a_new_one_is_made_at_once(tmp_path: Path) -> None:
    typo, new = tmp_path / "typo", tmp_path / "new"
    with pytest.raises(UserError, match=r"no run to resume in .*typo: it is no folder; name the run's, or leave out"):
        working_folder("greet", typo, tmp_path, resume=True, holds="checkpoints")
    assert not typo.exists()
    assert working_folder("greet", new, tmp_path, resume=False, holds="checkpoints") == new
    assert new.is_dir()
    assert working_folder("greet", new, tmp_path, resume=True, holds="checkpoints") == new
    # An empty folder is nobody's run yet.
    assert working_folder("greet", new, tmp_path, resume=False, holds="checkpoints") == new
    (new / "config.yaml").write_text("")
    with pytest.raises(UserError, match="holds files already: go on there with --resume"):
        working_folder("greet", new, tmp_path, resume=False, holds="checkpoints")


def command_line(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from scalenas_export.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_help_lists_every_verb() -> None:
    result = command_line("--help")
    assert result.returncode == 0
    for name in application.VERBS:
        assert f"  {name} " in result.stdout


@pytest.mark.parametrize("name", application.VERBS)
def test_every_verb_prints_help(name: str) -> None:
    # `data` and `table` are groups: what they do stands one word further.
    words = {"data": ["data", "check"], "table": ["table", "show"]}.get(name, [name])
    result = CliRunner().invoke(application.app, [*words, "--help"])
    assert result.exit_code == 0, result.output
    assert "--json" in result.output


def test_an_unknown_verb_is_one_line() -> None:
    result = command_line("exprot")
    assert result.returncode == 2
    assert result.stderr.startswith("error: No such command 'exprot'.")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("out: 2024-13-45\n", r"c\.yaml is not YAML: month must be in 1\.\.12"),
        ("times: !!bool maybe\n", r"c\.yaml is not YAML: 'maybe'"),
        ("times: !!timestamp now\n", r"c\.yaml is not YAML"),
        (
            "out: 2024-01-01\n",
            r"c\.yaml: out cannot be datetime.date\(2024, 1, 1\), which YAML reads as date; put text",
        ),
        ("out: 3\n", r"c\.yaml: out cannot be 3, which YAML reads as int; put text into quotes"),
        ("times: [1]\n", r"c\.yaml: times cannot be \[1\], which YAML reads as list"),
        ("times: many\n", r"c\.yaml: times: 'many' is not a valid integer"),
    ],
    ids=["no date", "no bool", "no time", "a date", "a number", "a list", "a word"],
)
def test_a_wrong_value_in_a_config_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(text)
    with pytest.raises(UserError, match=message):
        CliRunner().invoke(keep, ["--config", str(config)], catch_exceptions=False)


def test_a_folder_named_like_a_number_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "greet" / "²").mkdir(parents=True)
    with click.Context(greet, info_name="greet"):
        assert run_folder("greet", tmp_path).name == "1"


def test_text_with_bytes_that_are_no_utf8_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"shot\xff.png")
    emit({"name": name}, name, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"name": name}
    emit({"name": name}, name, as_json=False)
    assert capsys.readouterr().out == "shot\\udcff.png\n"
