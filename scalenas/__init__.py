"""The nets: families, specs, supernets, static nets and their weights.

Names are imported on use, so that `import scalenas` and all that needs no torch stay quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalenas.importing import ImportOptions, import_checkpoint
    from scalenas.models import create_model
    from scalenas.names import list_models, resolve_spec
    from scalenas.recalibration import recalibrate
    from scalenas.registry import get_space, list_spaces
    from scalenas.space import SearchSpace
    from scalenas.spec import SubnetSpec
    from scalenas.static import StaticNet, extract, static_net
    from scalenas.supernet import Supernet
    from scalenas.weights import Weights, load_into, load_weights, save_weights

__all__ = [
    "ImportOptions",
    "SearchSpace",
    "StaticNet",
    "SubnetSpec",
    "Supernet",
    "Weights",
    "create_model",
    "extract",
    "get_space",
    "import_checkpoint",
    "list_models",
    "list_spaces",
    "load_into",
    "load_weights",
    "recalibrate",
    "resolve_spec",
    "save_weights",
    "static_net",
]

_HOMES = {
    "importing": ("ImportOptions", "import_checkpoint"),
    "models": ("create_model",),
    "names": ("list_models", "resolve_spec"),
    "recalibration": ("recalibrate",),
    "registry": ("get_space", "list_spaces"),
    "space": ("SearchSpace",),
    "spec": ("SubnetSpec",),
    "static": ("StaticNet", "extract", "static_net"),
    "supernet": ("Supernet",),
    "weights": ("Weights", "load_into", "load_weights", "save_weights"),
}


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            value: object = getattr(importlib.import_module(f"scalenas.{module}"), name)
            # The next access finds it without coming here.
            globals()[name] = value
            return value
    raise AttributeError(f"module 'scalenas' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
