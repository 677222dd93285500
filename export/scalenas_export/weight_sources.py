"""Where the weights of an export come from: a weights file, a public checkpoint, a shipped name, or nowhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scalenas_runtime.bundle import WeightsEntry
from scalenas_runtime.errors import UserError

if TYPE_CHECKING:
    from scalenas.weights import Weights

RANDOM = WeightsEntry(
    source="random", licence="none needed", notice="Nobody trained these weights: results mean nothing."
)
_CHECKPOINTS = (".pth", ".pt", ".ckpt", ".bin")


@dataclass(frozen=True, slots=True)
class FoundWeights:
    """Weights and where they were found."""

    weights: Weights
    source: str

    @property
    def entry(self) -> WeightsEntry:
        """What a manifest says of them."""
        provenance = self.weights.provenance
        return WeightsEntry(
            source=str(provenance.get("source", self.source)),
            licence=str(provenance.get("licence", "unknown")),
            notice=str(provenance.get("notice", "")),
            digest=self.weights.digest,
        )


def find_weights(text: str, *, importer: str | None = None, size: tuple[int, int] | None = None) -> FoundWeights:
    """Returns the weights that `--weights` means.

    Args:
        text: `W.safetensors`, a public checkpoint (`X.pth`), or the name of shipped weights.
        importer: Whose checkpoint it is (`hrnet-pose`, ...), for a `.pth`.
        size: Height and width of the net's input, for a `.pth`.

    Raises:
        UserError: nothing is there, the file is damaged, or a checkpoint came without `--recipe`.
    """
    from scalenas.weights import load_weights

    path = Path(text)
    if path.suffix.lower() in _CHECKPOINTS:
        return FoundWeights(_imported(path, importer, size), path.name)
    if path.suffix == ".safetensors" or path.exists():
        return FoundWeights(load_weights(path), path.name)
    for folder in _folders():
        shipped = folder / f"{text}.safetensors"
        if shipped.is_file():
            return FoundWeights(load_weights(shipped), text)
    known = sorted({file.stem for folder in _folders() for file in folder.glob("*.safetensors")})
    raise UserError(
        f"no weights are called {text!r}; shipped ones lie in the checkout's weights/ folder, here: "
        f"{', '.join(known) or 'none'}. Give a file (W.safetensors, or X.pth with --recipe), or leave --weights out "
        "for random ones"
    )


def _folders() -> list[Path]:
    import scalenas

    checkout = Path(scalenas.__file__).resolve().parents[1] / "weights"
    return list(dict.fromkeys(folder for folder in (Path("weights").resolve(), checkout) if folder.is_dir()))


def _imported(path: Path, importer: str | None, size: tuple[int, int] | None) -> Weights:
    from scalenas.importing import ImportOptions, import_checkpoint
    from scalenas.registry import get_space

    family = "scalenas"
    if importer is None:
        known = ", ".join(get_space(family).importers())
        raise UserError(f"{path} is a checkpoint: say whose with --recipe ({known})")
    return import_checkpoint(path, ImportOptions(family, importer, "static", size=size)).weights
