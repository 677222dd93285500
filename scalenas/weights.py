"""Weights files: safetensors with a record of what the weights are for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn

from scalenas.spec import SubnetSpec
from scalenas_runtime.canonical import Json, canonical_json, weights_digest
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import write_bytes
from scalenas_runtime.records import to_plain
from scalenas_runtime.tasks import Recipe, read_recipe

if TYPE_CHECKING:
    from scalenas.static import StaticNet

Kind = Literal["supernet", "static"]

SCHEMA = "scalenas.weights/1"
# A BN's count of batches, which no eval pass reads and no weights file keeps.
COUNTER = "num_batches_tracked"

# One metadata entry: safetensors keeps entries in no fixed order, and files must be deterministic.
_ENTRY = "scalenas"
_KEYS = {"schema", "kind", "space", "settings", "spec", "recipe", "provenance", "digest"}
_SHOWN = 20


@dataclass(frozen=True)
class Weights:
    """Tensors, and all that must be known to use them.

    Attributes:
        kind: `supernet` (every tensor of a supernet) or `static` (those of one spec).
        space: Name of the family.
        settings: Settings of the supernet or spec.
        tensors: By name, as `state_dict` has them, float32; `num_batches_tracked` left out.
        spec: The spec of a static net; None for a supernet.
        recipe: How pictures become inputs and outputs become results; None where the weights are of no use on
            pictures (random ones).
        provenance: Where the weights come from: JSON values such as source, its SHA-256, licence. No dates, so
            that equal weights give equal files.
    """

    kind: Kind
    space: str
    settings: Mapping[str, Json]
    tensors: Mapping[str, Tensor] = field(repr=False)
    spec: SubnetSpec | None = None
    recipe: Recipe | None = None
    provenance: Mapping[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in ("supernet", "static"):
            raise UserError(f"kind of weights is {self.kind!r}, known: supernet, static")
        if (self.kind == "static") != (self.spec is not None):
            raise UserError("weights of a static net need its spec, and weights of a supernet have none")
        kept = {name: _float32(tensor) for name, tensor in self.tensors.items() if not _is_counter(name)}
        object.__setattr__(self, "tensors", kept)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names, shapes and float32 values, as 64 hexadecimal digits."""
        return weights_digest(
            (name, "float32", tuple(tensor.shape), tensor.numpy().tobytes()) for name, tensor in self.tensors.items()
        )

    def to(self, device: torch.device | str) -> Weights:
        """Returns the weights with their tensors on a device; tensors that are there already are not copied."""
        return replace(self, tensors={name: tensor.to(device) for name, tensor in self.tensors.items()})

    @classmethod
    def of(
        cls, net: StaticNet, *, recipe: Recipe | None = None, provenance: Mapping[str, Json] | None = None
    ) -> Weights:
        """Returns the weights of a static net; the tensors are the net's own, not copies."""
        spec = net.spec
        settings = cast(Mapping[str, Json], spec.to_json()["settings"])
        return cls("static", spec.space, settings, net.state_dict(), spec, recipe, provenance or {})


def save_weights(path: Path, weights: Weights, *, overwrite: bool = False, half: bool = False) -> None:
    """Writes a weights file in one step; equal weights give equal bytes.

    Args:
        path: The file.
        weights: What to write.
        overwrite: Replace a file that is there.
        half: Store float16; the weights must be `rounded`, so that the file holds what was measured.

    Raises:
        UserError: the file exists and `overwrite` is false, or float16 cannot hold the weights as they are.
        OSError: the folder is read-only or the disk is full; nothing is left behind then.
    """
    from safetensors.torch import save

    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already; name another file or pass --overwrite")
    header: dict[str, Json] = {
        "schema": SCHEMA,
        "kind": weights.kind,
        "space": weights.space,
        "settings": _plain(weights.settings),
        "spec": None if weights.spec is None else weights.spec.to_json(),
        "recipe": None if weights.recipe is None else cast(Json, to_plain(weights.recipe)),
        "provenance": _plain(weights.provenance),
        "digest": weights.digest,
    }
    tensors = dict(weights.tensors)
    if half:
        tensors = {name: tensor.to(torch.float16) for name, tensor in tensors.items()}
        for name, tensor in tensors.items():
            if not torch.equal(tensor.float(), weights.tensors[name]):
                raise UserError(f"{name} is not rounded to float16; save what `rounded` gives")
    write_bytes(path, save(tensors, metadata={_ENTRY: canonical_json(header)}))


def rounded(weights: Weights) -> Weights:
    """Returns the weights as float16 holds them, in float32.

    Raises:
        UserError: a value is larger than float16 can hold.
    """
    tensors = {name: tensor.half().float() for name, tensor in weights.tensors.items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all() and torch.isfinite(weights.tensors[name]).all():
            largest = float(weights.tensors[name].abs().max())
            raise UserError(f"{name} reaches {largest:g}, and float16 ends at 65504; keep these weights in float32")
    return replace(weights, tensors=tensors)


def load_weights(path: Path) -> Weights:
    """Returns the weights in a file that `save_weights` or `import-checkpoint` wrote; float16 becomes float32.

    Raises:
        UserError: the file is damaged, of another version, or not a weights file.
        OSError: the file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"{path} is not a file; `import-checkpoint` makes weights files")
    try:
        with safe_open(path, framework="pt") as file:
            header = _header(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        weights = Weights(
            kind=cast(Kind, header["kind"]),
            space=cast(str, header["space"]),
            settings=cast(Mapping[str, Json], header["settings"]),
            tensors=tensors,
            spec=None if header["spec"] is None else SubnetSpec.from_json(header["spec"]),
            recipe=None if header["recipe"] is None else read_recipe(header["recipe"]),
            provenance=cast(Mapping[str, Json], header["provenance"]),
        )
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{path} is not a weights file of this project: {error}") from None
    if weights.digest != header["digest"]:
        raise UserError(f"{path} is damaged: the digest of its tensors is not the one in its header; get it again")
    return weights


def load_into(net: nn.Module, weights: Weights) -> None:
    """Copies weights into a supernet or static net, in place; statistics are set, counters of batches are not.

    Weights of a supernet go into a static net too, which takes those of its names: what `extract` gives, without
    building the supernet.

    Raises:
        UserError: another family, kind or settings, or a tensor is missing, surplus or of another shape; all such
            tensors are listed. The net is unchanged then.
    """
    from scalenas.static import StaticNet
    from scalenas.supernet import Supernet, differing_settings

    if isinstance(net, Supernet):
        kind, space, settings = "supernet", net.space.name, net.settings
        if weights.kind == "static":
            raise UserError("the weights are of kind static, the net is a supernet; import with --as supernet")
    elif isinstance(net, StaticNet):
        plain = net.spec.to_json()
        kind, space, settings = "static net", net.spec.space, cast(dict[str, Json], plain["settings"])
    else:
        raise UserError(f"weights go into a Supernet or a StaticNet, not into a {type(net).__name__}")
    if weights.space != space:
        raise UserError(f"the weights are of family {weights.space}, the {kind} of {space}")
    difference = differing_settings(("weights", weights.settings), (kind, settings))
    if difference:
        raise UserError(f"the weights do not fit the {kind}: {difference}")
    state = {name: tensor for name, tensor in net.state_dict().items() if not _is_counter(name)}
    given = weights.tensors
    if weights.kind == "supernet" and kind == "static net":
        given = {name: tensor for name, tensor in given.items() if name in state}
    check_names(state, given, what="the weights")
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(given[name])


def check_names(needed: Mapping[str, Tensor], given: Mapping[str, Tensor], *, what: str) -> None:
    """Accepts `given` if it has the names and shapes of `needed`.

    Raises:
        UserError: otherwise; the text lists the missing, surplus and misshaped tensors.
    """
    misshaped = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in needed.items()
        if name in given and given[name].shape != tensor.shape
    ]
    problems = [
        _listed("missing", [name for name in needed if name not in given]),
        _listed("surplus", [name for name in given if name not in needed]),
        _listed("misshaped", misshaped),
    ]
    text = "; ".join(problem for problem in problems if problem)
    if text:
        raise UserError(f"{what} do not fit the net: {text}")


def _listed(what: str, names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{more}" if names else ""


def _header(metadata: Mapping[str, str]) -> dict[str, Json]:
    if _ENTRY not in metadata:
        raise UserError("it has no record of kind and settings; `import-checkpoint` makes a file that has")
    try:
        header = json.loads(metadata[_ENTRY])
    except RecursionError:
        raise UserError("its record is nested too deeply") from None
    if not isinstance(header, dict) or header.get("schema") != SCHEMA:
        found = header.get("schema") if isinstance(header, dict) else header
        raise UserError(f"its schema is {found!r}, this version reads {SCHEMA!r}")
    if set(header) != _KEYS:
        raise UserError(f"its record has the keys {', '.join(sorted(header))}; needed: {', '.join(sorted(_KEYS))}")
    for key, kind, word in (
        ("kind", str, "text"),
        ("space", str, "text"),
        ("digest", str, "text"),
        ("settings", dict, "an object"),
        ("provenance", dict, "an object"),
    ):
        if not isinstance(header[key], kind):
            raise UserError(f"{key} of its record is {str(header[key])[:60]!r}; needed is {word}")
    return header


def _float32(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32).contiguous()


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == COUNTER


def _plain(value: Iterable[str] | Mapping[str, Json]) -> Json:
    return cast(Json, json.loads(json.dumps(value, default=dict)))
