"""What people wear: a colour for each part of the body, and a pattern for shirt and trousers."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# Of the patterns of cloth, the first few are plain.
_CLOTHS, _PLAIN = 16, 4

# BGR, from dark to light; people of every colour.
_SKIN: NDArray[np.float64] = np.array(
    [(40, 58, 92), (62, 88, 132), (88, 120, 172), (116, 150, 202), (140, 172, 222), (160, 188, 230)], dtype=float
)
_HAIR: NDArray[np.float64] = np.array(
    [(22, 22, 26), (30, 38, 52), (38, 60, 92), (70, 110, 150), (90, 140, 190), (150, 152, 158), (35, 60, 120)],
    dtype=float,
)


@dataclass(frozen=True, slots=True)
class Outfit:
    """Colours and patterns of one person.

    Attributes:
        colours: (parts, 3) uint8 BGR in the order of `figure.PARTS`.
        shirt, trousers: Number of the cloth pattern over torso and sleeves, and over pelvis and legs.
        sleeves, legs: Whether the short sleeves and trouser legs are drawn over the limbs.
        hair: Radius of the hair around the skull, in units of the body's height; 0 is bald.
    """

    colours: NDArray[np.uint8]
    shirt: int
    trousers: int
    sleeves: bool
    legs: bool
    hair: float


def any_colour(rng: np.random.Generator) -> NDArray[np.float64]:
    """Returns a BGR colour as cloth and paint have it: all hues, often greyish, from black to white."""
    colour: NDArray[np.float64] = any_colours(rng, 1)[0]
    return colour


def any_colours(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Returns (count, 3) such colours."""
    hue, saturation, value = rng.random((3, count))
    pixels = np.stack([hue * 180, 230 * saturation**2, 255 * (0.08 + 0.9 * value)], axis=1).astype(np.uint8)
    return np.asarray(cv2.cvtColor(pixels[None], cv2.COLOR_HSV2BGR)[0], dtype=np.float64)


def draw_outfit(rng: np.random.Generator, parts: tuple[str, ...]) -> Outfit:
    """Returns random clothes, skin and hair.

    Args:
        rng: Source of chance.
        parts: Names of the parts that want a colour.
    """
    chance = rng.random(8)
    tone = chance[0] * (len(_SKIN) - 1)
    skin = _SKIN[int(tone)] + (_SKIN[int(tone) + 1] - _SKIN[int(tone)]) * (tone % 1)
    shirt, trousers, shoes = any_colours(rng, 3) * [[1.0], [0.8], [0.8]]
    if chance[1] < 0.35:
        trousers = np.array([(88, 62, 44), (40, 36, 34), (60, 66, 74), (120, 90, 60)][int(chance[2] * 4)], dtype=float)
    if chance[1] > 0.88:
        trousers = shirt
    long_sleeves, long_legs, bare = chance[3] < 0.35, chance[4] < 0.6, chance[5] < 0.08
    worn = {
        "torso": skin if bare else shirt,
        "sleeve": shirt,
        "upper_arm": shirt if long_sleeves and not bare else skin,
        "forearm": shirt * 0.97 if long_sleeves and not bare else skin,
        "pelvis": trousers,
        "leg": trousers,
        "thigh": trousers if long_legs else skin,
        "shin": trousers * 0.97 if long_legs else skin,
        "foot": shoes,
        "hair": _HAIR[int(chance[6] * len(_HAIR))],
        "eye": np.array((35.0, 35.0, 40.0)),
        "mouth": skin * (0.62, 0.6, 0.8),
        "belt": trousers * 0.45,
    }
    colours = np.array([worn.get(part.removeprefix("left_").removeprefix("right_"), skin) for part in parts])
    first, second = (int(value) for value in rng.integers(0, _CLOTHS, 2))
    return Outfit(
        np.clip(colours, 0, 255).astype(np.uint8),
        first if chance[7] < 0.5 else first % _PLAIN,
        second % _PLAIN if chance[7] < 0.85 else second,
        sleeves=not bare and chance[3] < 0.85,
        legs=chance[4] < 0.9,
        hair=0.0 if chance[6] < 0.06 else 0.060 + 0.013 * float(chance[6] * 11 % 1),
    )
