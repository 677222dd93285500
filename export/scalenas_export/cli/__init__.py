"""The command line: one file per verb, loaded when the verb is used."""

from scalenas_export.cli.app import main

__all__ = ["main"]
