"""Public checkpoints into weights files: what every family's importers share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from scalenas.registry import get_space
from scalenas.space import unknown
from scalenas.spec import SubnetSpec
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import file_sha256
from scalenas_runtime.tasks import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from scalenas.weights import Weights


NOTICE = "The licence is that of the code base; the weights and their training data may have terms of their own."


@dataclass(frozen=True, slots=True)
class Converted:
    """A checkpoint in a family's own names.

    Attributes:
        spec: The subnet that the checkpoint is.
        tensors: Its tensors by the names of the static net.
        recipe: How pictures become inputs and outputs become results.
        skipped: Tensors of the checkpoint that have no use in a net that runs (counters, losses).
    """

    spec: SubnetSpec
    tensors: Mapping[str, Tensor]
    recipe: Recipe
    skipped: tuple[str, ...]


class Importer(Protocol):
    """What `SearchSpace.importers()` gives by recipe name."""

    @property
    def title(self) -> str:
        """One line: whose checkpoints these are and what the recipe fixes."""
        ...

    @property
    def licence(self) -> str:
        """Licence of the code that made the checkpoints; it is stored with the weights."""
        ...

    def convert(self, tensors: Mapping[str, Tensor], *, size: tuple[int, int] | None, names: str | None) -> Converted:
        """Returns the checkpoint in the family's names.

        Args:
            tensors: The state dict as `scalenas.checkpoints.read_checkpoint` gives it.
            size: Height and width of the input in pixels, the recipe's own if None.
            names: Joint or class set, the usual one for the number of channels if None.

        Raises:
            UserError: tensors are missing, surplus or misshaped (all are listed), or the net is of another kind.
        """
        ...


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the user decides about an import.

    Attributes:
        family: Name of the family.
        recipe: Name of the importer.
        kind: `static`, or `supernet`: the checkpoint's tensors as those of one member, all others initial.
        size: Height and width of the input in pixels, the recipe's own if None.
        width: Base width that the checkpoint must have, if given.
        names: Joint or class set, the usual one for the number of channels if None.
        seed: Seed of the tensors of a supernet that the checkpoint does not have.
    """

    family: str
    recipe: str
    kind: Literal["static", "supernet"]
    size: tuple[int, int] | None = None
    width: int | None = None
    names: str | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Imported:
    """An imported checkpoint.

    Attributes:
        weights: Ready for `scalenas.weights.save_weights`.
        spec: The subnet that the checkpoint is; for a supernet, the member that has its weights.
        skipped: Tensors of the checkpoint that have no use in a net that runs.
        initialised: Names of tensors that the checkpoint does not have: empty for a static net.
    """

    weights: Weights
    spec: SubnetSpec
    skipped: tuple[str, ...]
    initialised: tuple[str, ...]


def get_importer(family: str, recipe: str) -> Importer:
    """Returns the importer of a family by recipe name.

    Raises:
        UserError: unknown family or recipe; the text lists the known ones.
    """
    importers = get_space(family).importers()
    if recipe not in importers:
        raise unknown(f"recipe of {family}", recipe, importers)
    return importers[recipe]


def import_checkpoint(path: Path, options: ImportOptions) -> Imported:
    """Returns the weights of a public checkpoint in a family's names.

    Raises:
        UserError: the file is no checkpoint, would run code, or does not fit the recipe or the width asked for.
        OSError: the file cannot be read.
    """
    from scalenas.checkpoints import one_line, read_checkpoint
    from scalenas.supernet import Supernet
    from scalenas.weights import Weights

    importer = get_importer(options.family, options.recipe)
    tensors = read_checkpoint(path)
    try:
        converted = importer.convert(tensors, size=options.size, names=options.names)
    except UserError as error:
        raise UserError(f"{path}: {one_line(str(error))}") from None
    spec = converted.spec
    width = spec.settings.get("width")
    if options.width is not None and options.width != width:
        raise UserError(f"{path} is a checkpoint of width {width}, asked for is width {options.width}")
    provenance: dict[str, Json] = {
        "source": path.name,
        "source_sha256": file_sha256(path),
        "importer": options.recipe,
        "licence": importer.licence,
        "notice": NOTICE,
        "member": spec.to_json(),
    }
    settings = spec.to_json()["settings"]
    assert isinstance(settings, Mapping)
    if options.kind == "static":
        weights = Weights("static", spec.space, settings, converted.tensors, spec, converted.recipe, provenance)
        return Imported(weights, spec, converted.skipped, ())
    initial = Supernet(get_space(spec.space), settings, spec.inputs, seed=options.seed).state_dict()
    provenance["seed"] = options.seed
    merged = {**initial, **converted.tensors}
    weights = Weights("supernet", spec.space, settings, merged, None, converted.recipe, provenance)
    rest = tuple(name for name in weights.tensors if name not in converted.tensors)
    return Imported(weights, spec, converted.skipped, rest)
