"""Joints from a pose bundle with ONNX Runtime alone: none of this project's code is imported.

Usage: python plain_onnxruntime.py BUNDLE PICTURE [x1 y1 x2 y2]

Needs numpy, opencv-python-headless and onnxruntime. Prints one line per joint: name, x, y in pixels of the picture
(pixel centres at integers), score. Covers recipes with affine classic or udp, decode argmax or quarter, no flip test.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime


def crop_of(picture, box, recipe):
    """Returns the net's crop (1, H, W, 3) of a box, and the map (2, 3) from picture to crop pixels."""
    x1, y1, x2, y2 = box
    height, width = recipe["height"], recipe["width"]
    wide = max(x2 - x1, (y2 - y1) * width / height) * recipe["padding"]
    size = np.array([width, height]) - (recipe["affine"] == "udp")
    scale = size / [wide, wide * height / width]
    offset = size / 2 - scale * [(x1 + x2) / 2, (y1 + y2) / 2]
    transform = np.array([[scale[0], 0, offset[0]], [0, scale[1], offset[1]]])
    crop = cv2.warpAffine(picture, transform, (width, height), borderValue=(recipe["border"],) * 3)
    return crop[None], transform


def decode(heatmaps, recipe):
    """Returns x, y in crop pixels (K, 2) and scores (K,) of heatmaps (K, h, w)."""
    joints, height, width = heatmaps.shape
    best = heatmaps.reshape(joints, -1).argmax(1)
    scores = heatmaps.reshape(joints, -1).max(1)
    y, x = np.divmod(np.where(scores > 0, best, 0), width)
    places = np.stack([x, y], 1).astype(np.float32)
    for k in range(joints if recipe["decode"] == "quarter" else 0):
        if 1 < x[k] < width - 1 and 1 < y[k] < height - 1:
            row, column = heatmaps[k, y[k]], heatmaps[k, :, x[k]]
            places[k] += 0.25 * np.sign([row[x[k] + 1] - row[x[k] - 1], column[y[k] + 1] - column[y[k] - 1]])
    one = int(recipe["affine"] == "udp")
    return places * [(recipe["width"] - one) / (width - one), (recipe["height"] - one) / (height - one)], scores


bundle, picture = Path(sys.argv[1]), cv2.imread(sys.argv[2])
recipe = json.loads((bundle / "manifest.json").read_text())["recipe"]
if recipe["flip_test"] or recipe["decode"] not in ("argmax", "quarter"):
    sys.exit("this example covers no flip test and no DARK")
box = [float(value) for value in sys.argv[3:7]] or [0, 0, picture.shape[1], picture.shape[0]]
crop, transform = crop_of(picture, box, recipe)
session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
places, scores = decode(session.run(["heatmaps"], {"image": crop})[0][0], recipe)
points = (places - transform[:, 2]) / [transform[0, 0], transform[1, 1]]
for name, (x, y), score in zip(recipe["joints"], points, scores, strict=True):
    print(f"{name} {x:.3f} {y:.3f} {score:.6f}")
