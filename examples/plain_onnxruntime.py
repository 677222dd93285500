"""Joints from a pose bundle with ONNX Runtime alone: none of this project's code is imported.

Usage: python plain_onnxruntime.py BUNDLE PICTURE [x1 y1 x2 y2]

Needs numpy, opencv-python-headless and onnxruntime. BUNDLE is a folder (unpack a zip first). Prints one line per joint:
name, x, y in pixels of the picture (pixel centres at integers), score. Covers recipes with affine classic or udp and
decode argmax, quarter or dark, without flip test.
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


def quarter(heatmap, x, y):
    """Returns a quarter pixel towards the larger neighbours of the highest pixel (HRNet)."""
    height, width = heatmap.shape
    if not (1 < x < width - 1 and 1 < y < height - 1):
        return np.zeros(2)
    row, column = heatmap[y], heatmap[:, x]
    return 0.25 * np.sign([row[x + 1] - row[x - 1], column[y + 1] - column[y - 1]])


def dark(heatmap, x, y, blur):
    """Returns a Newton step on the logarithm of the blurred map (DARK; Zhang et al., CVPR 2020, eq. 4 to 9)."""
    height, width = heatmap.shape
    if not (1 < x < width - 2 and 1 < y < height - 2):
        return np.zeros(2)
    blurred = cv2.GaussianBlur(heatmap, (blur, blur), 0, borderType=cv2.BORDER_CONSTANT).astype(np.float64)
    v = np.log(np.maximum(blurred * (heatmap.max() / (blurred.max() or 1)), 1e-10))[y - 2 : y + 3, x - 2 : x + 3]
    dx, dy = (v[2, 3] - v[2, 1]) / 2, (v[3, 2] - v[1, 2]) / 2
    dxx, dyy = (v[2, 4] - 2 * v[2, 2] + v[2, 0]) / 4, (v[4, 2] - 2 * v[2, 2] + v[0, 2]) / 4
    dxy = (v[3, 3] - v[1, 3] - v[3, 1] + v[1, 1]) / 4
    determinant = dxx * dyy - dxy * dxy
    step = np.array([dxy * dy - dyy * dx, dxy * dx - dxx * dy])
    return step / determinant if determinant else np.zeros(2)


def decode(heatmaps, recipe):
    """Returns x, y in crop pixels (K, 2) and scores (K,) of heatmaps (K, h, w)."""
    joints, height, width = heatmaps.shape
    best = heatmaps.reshape(joints, -1).argmax(1)
    scores = heatmaps.reshape(joints, -1).max(1)
    y, x = np.divmod(np.where(scores > 0, best, 0), width)
    places = np.stack([x, y], 1).astype(np.float64)
    for k in range(joints):
        if recipe["decode"] == "quarter":
            places[k] += quarter(heatmaps[k], x[k], y[k])
        elif recipe["decode"] == "dark":
            places[k] += dark(heatmaps[k], x[k], y[k], recipe["blur"])
    one = int(recipe["affine"] == "udp")
    return places * [(recipe["width"] - one) / (width - one), (recipe["height"] - one) / (height - one)], scores


bundle, picture = Path(sys.argv[1]), cv2.imread(sys.argv[2])
recipe = json.loads((bundle / "manifest.json").read_text())["recipe"]
if recipe["flip_test"] or recipe["decode"] not in ("argmax", "quarter", "dark"):
    seen = f"decode {recipe['decode']}, flip_test {recipe['flip_test']}"
    sys.exit(f"this example covers decode argmax, quarter and dark without flip test; the recipe has {seen}")
box = np.array(sys.argv[3:7] or [0, 0, picture.shape[1], picture.shape[0]], np.float32).tolist()
crop, transform = crop_of(picture, box, recipe)
session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
places, scores = decode(session.run(["heatmaps"], {"image": crop})[0][0], recipe)
points = (places - transform[:, 2]) / [transform[0, 0], transform[1, 1]]
for name, (x, y), score in zip(recipe["joints"], points, scores, strict=True):
    print(f"{name} {x:.3f} {y:.3f} {score:.6f}")
