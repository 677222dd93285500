"""Where weights lie that are named rather than given as a file: the folder `weights` here, and the checkout's."""

from __future__ import annotations

from pathlib import Path

from scalenas_runtime.errors import UserError

SUFFIX = ".safetensors"


def find_weights_file(text: str) -> Path:
    """Returns the weights file that `text` means: a file, or the name of shipped weights.

    Raises:
        UserError: there are no weights of that name; the text lists those that are there.
    """
    path = Path(text)
    if path.suffix == SUFFIX or path.is_file():
        return path
    files = shipped_weights()
    if text not in files:
        raise UserError(
            f"no weights are called {text!r}; shipped ones lie in the checkout's weights/ folder, here: "
            f"{', '.join(files) or 'none'}; or give a file (W{SUFFIX})"
        )
    return files[text]


def shipped_weights() -> dict[str, Path]:
    """Returns the weights files that go by a name, by name: those of the folder `weights` here come first."""
    checkout = Path(__file__).resolve().parents[1] / "weights"
    found: dict[str, Path] = {}
    for folder in (Path("weights").resolve(), checkout):
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            found.setdefault(path.stem, path)
    return found
