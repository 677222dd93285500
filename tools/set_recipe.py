"""Changes fields of the recipe that a weights file carries; the tensors, and so the digest, stay.

    python tools/set_recipe.py weights/pose-w16.safetensors --set blur=3 [--out FILE]

For what heatmaps are decoded by and no training depends on. The change is written into the provenance.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
import yaml

from scalenas.weights import Weights, load_weights, save_weights
from scalenas_runtime.errors import UserError
from scalenas_runtime.records import to_plain
from scalenas_runtime.tasks import read_recipe

ALLOWED = ("blur", "flip_test", "flip_shift", "keypoint_threshold")


def changed(weights: Weights, settings: dict[str, object]) -> Weights:
    """Returns the weights with other fields in their recipe, and old and new values in their provenance.

    Raises:
        UserError: no recipe, a field that training depends on, or a value out of range.
    """
    if weights.recipe is None:
        raise UserError("the weights have no recipe")
    for key in settings:
        if key not in ALLOWED:
            raise UserError(f"{key} is not among what can be changed after training: {', '.join(ALLOWED)}")
    old = to_plain(weights.recipe)
    assert isinstance(old, dict)
    recipe = read_recipe({**old, **settings})
    new = to_plain(recipe)
    assert isinstance(new, dict)
    changes = {key: [old.get(key), new.get(key)] for key in settings if old.get(key) != new.get(key)}
    provenance = {**weights.provenance, "recipe_changes": changes}
    return replace(weights, recipe=recipe, provenance=provenance) if changes else weights


def main() -> None:
    """Reads, changes and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--set", action="append", required=True, metavar="KEY=VALUE", help="May be repeated.")
    parser.add_argument("--out", type=Path, help="Another file; the same one if left out.")
    arguments = parser.parse_args()
    settings = {key: yaml.safe_load(value) for key, _, value in (each.partition("=") for each in arguments.set)}
    try:
        weights = changed(load_weights(arguments.weights), settings)
        half = _half(arguments.weights)
        save_weights(arguments.out or arguments.weights, weights, overwrite=True, half=half)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    print(f"{arguments.out or arguments.weights}: {weights.provenance.get('recipe_changes', 'nothing to change')}")


def _half(path: Path) -> bool:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return all(file.get_tensor(name).dtype == torch.float16 for name in file.keys())  # noqa: SIM118


if __name__ == "__main__":
    main()
