"""The errors that end a command with one clear line instead of a traceback."""


class UserError(ValueError):
    """Something the user gave cannot be used; the text names the value seen and what would work (exit code 2)."""


class MissingExtra(UserError, ImportError):
    """A package of an optional extra is not installed; the text carries the pip line that adds it (exit code 2)."""


class NothingMeetsBudget(RuntimeError):
    """No candidate meets the budget; the text shows the closest (exit code 3)."""


class CheckFailed(RuntimeError):
    """A check did not hold: parity, verification or regression (exit code 4)."""


def missing_extra(package: str, extra: str) -> MissingExtra:
    """Returns the error that says which pip line adds `package`."""
    return MissingExtra(f"{package} is not installed; add it with: pip install 'scalenas-export[{extra}]'")
