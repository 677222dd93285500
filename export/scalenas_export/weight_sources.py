"""Where the weights of an export come from: a weights file, a public checkpoint, a shipped name, or nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from scalenas.shipped import find_weights_file
from scalenas_runtime.bundle import WeightsEntry
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError

if TYPE_CHECKING:
    from scalenas.spec import SubnetSpec
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
        UserError: nothing is there, the file is damaged, a checkpoint came without `--recipe`, or weights that have
            their own recipe came with one.
    """
    from scalenas.weights import load_weights

    path = Path(text)
    if path.suffix.lower() in _CHECKPOINTS:
        return FoundWeights(_imported(path, importer, size), path.name)
    file = find_weights_file(text)
    if importer is not None:
        raise UserError(
            f"--recipe {importer} says how a checkpoint (.pth) is imported, and {text} is none; leave it out, or name "
            "a recipe file (R.json)"
        )
    return FoundWeights(load_weights(file), file.stem if file != path else path.name)


def weights_spec(
    text: str, weights: Weights, *, size: tuple[int, int] | None = None, settings: Mapping[str, Json] | None = None
) -> SubnetSpec:
    """Returns the net that a name or a spec file means among those that weights hold, in canonical form.

    A name takes the settings of the weights and the input size of their recipe, so that `hrnet-w16` and `max` are
    members of the supernet. A spec file says these itself; only its number of outputs follows the weights.

    Args:
        text: `max`, `min`, a published name, or a spec file.
        weights: Weights of a supernet or of one net.
        size: Height and width of the input, where it is not that of the weights' recipe.
        settings: Settings that go before those of the weights.

    Raises:
        UserError: there is no such net or file, or it is not valid under the settings.
    """
    from scalenas import get_space, resolve_spec

    space, changed = get_space(weights.space), settings or {}
    complete = {**weights.settings, **changed}
    if not text.endswith(".json"):
        recipe = weights.recipe
        named_size = size if size or recipe is None else (recipe.height, recipe.width)
        try:
            found = space.named_spec(text.removeprefix(f"{space.name}/"), settings=complete, size=named_size)
        except UserError as error:
            raise UserError(f"{text} is no net of these weights: {error}") from None
        if found is not None:
            return found
        if not Path(text).is_file():
            known = ", ".join(["max", "min", *space.named()])
            raise UserError(
                f"unknown net {text!r}; known under these weights: {known}; or give a spec file (SPEC.json)"
            )
    return resolve_spec(
        Path(text),
        size=size,
        task=cast("str | None", changed.get("task")),
        joints=cast("int | None", complete.get("joints")),
        classes=cast("int | None", complete.get("classes")),
        width=cast("int | None", changed.get("width")),
    )


def _imported(path: Path, importer: str | None, size: tuple[int, int] | None) -> Weights:
    from scalenas.importing import ImportOptions, import_checkpoint
    from scalenas.registry import get_space

    family = "scalenas"
    if importer is None:
        known = ", ".join(get_space(family).importers())
        raise UserError(f"{path} is a checkpoint: say whose with --recipe ({known})")
    return import_checkpoint(path, ImportOptions(family, importer, "static", size=size)).weights
