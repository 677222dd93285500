"""What a scene generator gives, and the operations on pictures that all generators share."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from scalenas_runtime.scenes.body import Floats
from scalenas_runtime.scenes.textures import NEUTRAL, Grey, cut

Picture = Grey


@dataclass(frozen=True, slots=True)
class Scene:
    """A drawn picture and everything that is known about it.

    Attributes:
        picture: (H, W, 3) uint8 BGR.
        joints: (N, K, 3) float32: x, y in pixels of the picture (pixel centres at integers), and 2 seen, 1 hidden by
            something, 0 outside the picture (x and y are 0 then).
        boxes: (N, 4) float32 x1, y1, x2, y2: the part of each person inside the picture, hidden or not.
        class_map: (H, W) uint8 label of each pixel.
    """

    picture: NDArray[np.uint8]
    joints: NDArray[np.float32]
    boxes: NDArray[np.float32]
    class_map: NDArray[np.uint8]


def generator(seed: int, index: int, stream: int) -> np.random.Generator:
    """Returns the source of chance of scene `index`; `stream` keeps kinds of scenes apart.

    Raises:
        ValueError: a negative seed or index.
    """
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index of a scene must not be negative, got {seed} and {index}")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index, stream])))


def paste(
    picture: Picture, patch: Picture, alpha: Picture, corner: tuple[int, int]
) -> tuple[slice, slice, Picture] | None:
    """Blends a patch into the picture in place.

    Args:
        picture: (H, W, 3), changed.
        patch: (h, w, 3), already multiplied with its alpha (`faded`).
        alpha: (h, w), 255 where the patch covers.
        corner: x, y of the patch's top left pixel; it may stick out of the picture.

    Returns:
        Rows and columns of the picture that were touched and the alpha there, or None if all of it is outside.
    """
    x, y = corner
    height, width = alpha.shape
    top, left = max(0, -y), max(0, -x)
    bottom, right = min(height, picture.shape[0] - y), min(width, picture.shape[1] - x)
    if top >= bottom or left >= right:
        return None
    rows, columns = slice(y + top, y + bottom), slice(x + left, x + right)
    cover = alpha[top:bottom, left:right]
    weight = cv2.cvtColor(cover, cv2.COLOR_GRAY2BGR)
    behind = cv2.multiply(picture[rows, columns], cv2.bitwise_not(weight), scale=1 / 255)
    picture[rows, columns] = cv2.add(behind, patch[top:bottom, left:right])
    return rows, columns, cover


def faded(patch: Picture, alpha: Picture) -> Picture:
    """Returns a (h, w, 3) patch multiplied with its (h, w) alpha, as `paste` takes it."""
    return cv2.multiply(patch, cv2.cvtColor(alpha, cv2.COLOR_GRAY2BGR), scale=1 / 255)


def textured(picture: Picture, pattern: Picture) -> Picture:
    """Returns a (H, W, 3) picture with its brightness scaled by a (H, W) pattern, 128 leaving it as it is."""
    return cv2.multiply(picture, cv2.cvtColor(pattern, cv2.COLOR_GRAY2BGR), scale=1 / NEUTRAL)


def photograph(picture: Picture, rng: np.random.Generator, *, grey_share: float = 0.06) -> Picture:
    """Returns the picture as a camera would give it: exposure, contrast, colour cast, blur and noise vary."""
    height, width = picture.shape[:2]
    gain, gamma, lift = np.exp(rng.normal(0, 0.14)), np.exp(rng.normal(0, 0.16)), rng.uniform(0, 16)
    cast = np.exp(rng.normal(0, 0.05, 3))
    levels = np.linspace(0, 1, 256)[:, None] ** gamma * gain * cast
    table = np.clip(np.rint(lift + levels * (255 - lift)), 0, 255).astype(np.uint8)[:, None]
    picture = cv2.LUT(picture, table)
    chance = rng.random(4)
    scale = max(1.0, height / 256)
    if chance[0] < 0.6:
        sigma = (0.35 + 0.75 * chance[1] ** 2) * scale
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    elif chance[0] > 0.96:
        length = int(3 + 4 * chance[1] * scale)
        picture = cv2.blur(picture, (length, 1) if chance[2] < 0.7 else (1, length))
    if chance[3] < grey_share:
        picture = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return textured(picture, cut("grain", int(chance[2] * 9), (height, width), rng))


def mix(first: Floats, second: Floats, share: float) -> Floats:
    """Returns a colour between two."""
    return np.asarray(first + (second - first) * share)
