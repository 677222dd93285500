"""What every verb shares: `--json`, `--config`, `--print-config`, and the numbered run folder."""

from __future__ import annotations

import functools
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

import click

from scalenas_runtime.canonical import Json, canonical_json, pretty_json
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import write_text
from scalenas_runtime.yaml_files import read_yaml

P = ParamSpec("P")
R = TypeVar("R")

# Help of --statistics, which several verbs have.
STATISTICS = (
    "transferred: the BN statistics of the supernet's training, moved by how a net differs from the mean net on the "
    "calibration pictures (the default where `train` made the supernet); measured: on these pictures alone."
)

# Options of the command line itself, which are no part of a run's configuration.
_PLUMBING = ("as_json", "config", "print_config", "runs")


class Size(click.ParamType):  # type: ignore[type-arg]
    """A size `HEIGHTxWIDTH` in pixels; the value is (height, width). Nets say themselves which sizes they take."""

    name = "HxW"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Returns (height, width); fails as click does for text that is no size."""
        if isinstance(value, tuple | list) and len(value) == 2:
            value = "x".join(map(str, value))
        height, _, width = str(value).lower().partition("x")
        if not (height.isdecimal() and width.isdecimal()):
            self.fail(f"{value!r} is not HEIGHTxWIDTH such as 256x192", param, ctx)
        return int(height), int(width)


SIZE = Size()


def verb(name: str) -> Callable[[Callable[P, R]], click.Command]:
    """Makes a function a verb: a click command with `--json`, `--config FILE.yaml` and `--print-config`.

    The function takes its own options plus `as_json: bool`. Keys of the config file are the long option names
    with underscores; an option on the command line wins over the file.
    """

    def decorate(function: Callable[P, R]) -> click.Command:
        @functools.wraps(function)
        def body(*args: P.args, **kwargs: P.kwargs) -> R | None:
            kwargs.pop("config")
            if kwargs.pop("print_config"):
                click.echo(_yaml(configuration()), nl=False)
                return None
            return function(*args, **kwargs)

        options = [
            click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
            click.option(
                "--config",
                type=click.Path(path_type=Path),
                is_eager=True,
                expose_value=True,
                callback=_read_config,
                help="Take options from a YAML file.",
            ),
            click.option("--print-config", is_flag=True, help="Print the options in effect as YAML and stop."),
        ]
        for option in reversed(options):
            body = option(body)
        return click.command(name)(body)

    return decorate


def emit(value: Json, text: str, *, as_json: bool) -> None:
    """Prints the result on stdout: `value` as JSON, or `text` for people."""
    shown = pretty_json(value) if as_json else text
    # File names may hold bytes that are no UTF-8.
    click.echo(shown.encode(errors="backslashreplace").decode(), nl=not as_json)


def note(text: str) -> None:
    """Prints a line about progress or a warning on stderr."""
    click.echo(text, err=True)


def parse_size(text: str) -> tuple[int, int]:
    """Returns (height, width) of text such as `256x192`, in pixels.

    Raises:
        UserError: the text is no size.
    """
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise UserError(f"size {text!r} is not HEIGHTxWIDTH such as 256x192")
    return int(height), int(width)


def configuration() -> dict[str, Json]:
    """Returns the options of the running command as JSON values, by option name."""
    parameters = click.get_current_context().params
    return {key: _plain(value) for key, value in parameters.items() if key not in _PLUMBING}


def run_folder(name: str, runs: Path = Path("runs")) -> Path:
    """Returns a new folder `runs/<verb>/<n>` that holds config.yaml, command.txt and env.json.

    Numbers only grow, and no folder is ever written twice.
    """
    from scalenas_runtime.fingerprint import fingerprint

    parent = runs / name
    parent.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(path.name) for path in parent.iterdir() if _is_number(path.name)), default=0)
    while True:
        folder = parent / str(number)
        try:
            folder.mkdir()
            break
        except FileExistsError:  # another process took the number first
            number += 1
    write_text(folder / "config.yaml", _yaml(configuration()))
    write_text(folder / "command.txt", shlex.join(["scalenas-export", *sys.argv[1:]]) + "\n")
    write_text(folder / "env.json", pretty_json(fingerprint()))
    return folder


@contextmanager
def new_run_folder(name: str, runs: Path = Path("runs")) -> Iterator[Path]:
    """Gives the folder of `run_folder`; after an error in the block nothing of it is left."""
    folder = run_folder(name, runs)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def working_folder(name: str, out: Path | None, runs: Path, *, resume: bool, holds: str) -> Path:
    """Returns the folder of a run that can be resumed: `out`, or `runs/<verb>/<n>`; new unless the run goes on.

    The folder is there afterwards, so that a run that is killed while it prepares itself can be resumed too. Without
    `out` a run that goes on is the newest that holds `holds`, or else the newest.

    Args:
        name: The verb.
        out: The folder that was named.
        runs: Folder of all runs.
        resume: Whether a run goes on.
        holds: What a run writes once it has something to go on from, relative to its folder, such as `checkpoints`.

    Raises:
        UserError: there is no run to resume, or `out` holds files of another one.
    """
    if resume:
        return _earlier(runs / name, holds) if out is None else _existing(out)
    if out is None:
        return run_folder(name, runs)
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} holds files already: go on there with --resume, or name another folder")
    out.mkdir(parents=True, exist_ok=True)
    return out


def _is_number(name: str) -> bool:
    # Superscripts are digits too, but no numbers.
    return name.isascii() and name.isdecimal()


def _existing(out: Path) -> Path:
    if not out.is_dir():
        raise UserError(f"there is no run to resume in {out}: it is no folder; name the run's, or leave out --resume")
    return out


def _earlier(parent: Path, holds: str) -> Path:
    """Returns the newest numbered folder below `parent` that holds `holds`, or the newest where none does."""
    found = [path for path in parent.glob("*") if _is_number(path.name) and path.is_dir()]
    if not found:
        raise UserError(f"there is no run to resume in {parent}; name its folder with --out")
    return max(found, key=lambda path: ((path / holds).exists(), int(path.name)))


def resume_line(folder: Path) -> str:
    """Returns the command that goes on with the running command's work in `folder`."""
    kept = [word for word in sys.argv[1:] if word != "--resume"]
    named = [] if any(word == "--out" or word.startswith("--out=") for word in kept) else ["--out", str(folder)]
    return shlex.join(["scalenas-export", *kept, *named, "--resume"])


def _read_config(ctx: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is None:
        return None
    loaded = read_yaml(value)
    known = [item.name for item in ctx.command.params if item.name and item.name not in _PLUMBING]
    for key in loaded:
        if key not in known:
            raise UserError(f"{value}: unknown key {key!r}; known: {', '.join(known)}")
        _check_value(ctx, key, loaded[key], value)
    ctx.default_map = {**(ctx.default_map or {}), **loaded}
    return value


def _check_value(ctx: click.Context, key: str, value: object, file: Path) -> None:
    option = next(item for item in ctx.command.params if item.name == key)
    try:
        option.type_cast_value(ctx, value)
    except click.ClickException as error:
        raise UserError(f"{file}: {key}: {error.message}") from None
    except (TypeError, ValueError, AttributeError):
        # Types of click expect text or numbers, and YAML has dates, lists and keys beside them.
        raise UserError(
            f"{file}: {key} cannot be {value!r}, which YAML reads as {type(value).__name__}; put text into quotes"
        ) from None


def _yaml(values: dict[str, Json]) -> str:
    import yaml

    text = yaml.safe_dump(values, sort_keys=True, allow_unicode=True)
    assert isinstance(text, str)
    return text


def _plain(value: object) -> Json:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    text = str(value)
    canonical_json(text)
    return text
