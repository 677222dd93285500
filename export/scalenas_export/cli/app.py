"""The group of verbs, and what every way of ending a command prints."""

from __future__ import annotations

import importlib
import os
import sys

import click

from scalenas_export.interrupts import INTERRUPTED
from scalenas_runtime.errors import CheckFailed, NothingMeetsBudget, UserError

# The help line stands here so that `--help` imports no verb.
VERBS = {
    "doctor": "Show versions, engines, devices and precisions, and what is missing.",
    "spaces": "List families and named nets with parameters and MACs.",
    "export": "Turn a spec and weights into a verified bundle.",
    "import-checkpoint": "Turn a public HRNet checkpoint into a weights file.",
    "bundle": "Turn any ONNX file and a recipe into a verified bundle.",
    "inspect": "Show what a bundle, a spec or a weights file holds.",
    "build": "Build a bundle's engine for a target on this machine.",
    "verify": "Compare a bundle's engines with its golden outputs.",
    "bench": "Measure latency and throughput.",
    "run": "Run a bundle on pictures, a video or a camera.",
    "eval": "Measure a bundle's accuracy on a data set.",
    "train": "Train a teacher, a supernet or one subnet.",
    "search": "Search a supernet for the best subnets on your device.",
    "data": "Look at data before training on them.",
    "table": "Build a closed table of nets, ask it, or show it.",
    "race": "Race search algorithms on a closed table.",
    "explain": "Find the step that moves a result, on one picture.",
    "demo": "Run the whole chain on pictures drawn here.",
}


class Verbs(click.Group):
    """A click group whose commands live in modules of this package, imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the verbs in the order people meet them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Returns the command of a verb, or None for a name that is none (click then says which are near)."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"scalenas_export.cli.{cmd_name.replace('-', '_')}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the table of verbs from `VERBS` alone."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="scalenas-export")
def app() -> None:
    """Take nets from a trained supernet to a verified, measured engine on your device.

    Exit codes: 0 done, 2 user error, 3 nothing meets the budget, 4 a check failed (parity, regression),
    130 interrupted.
    """


def main() -> None:
    """Runs the command line and turns every expected failure into one line and an exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Returns the exit code of one command line; expected failures are printed on stderr as one line."""
    try:
        result = app.main(arguments, prog_name="scalenas-export", standalone_mode=False)
    except click.ClickException as error:
        return _fail(error.format_message(), 2)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", INTERRUPTED)
    except UserError as error:
        return _fail(str(error), 2)
    except NothingMeetsBudget as error:
        return _fail(str(error), 3)
    except CheckFailed as error:
        return _fail(str(error), 4)
    except BrokenPipeError:
        # The reader (head, less) went away: end quietly, and keep Python from complaining at shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # Of a copy or move that failed, the second name is the place that was written to.
        name = error.filename2 or error.filename
        place = f"{name}: " if name else ""
        return _fail(f"{place}{error.strerror or error}", 2)
    return result if isinstance(result, int) else 0


def _fail(message: str, code: int) -> int:
    click.echo(f"error: {message}", err=True)
    return code
