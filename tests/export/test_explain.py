"""Naming the step that moves a result."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from scalenas_export.cli.app import run
from scalenas_export.explain import Explanation, _Comparer, _sampled, explain
from scalenas_runtime.bundle import Bundle
from scalenas_runtime.errors import UserError
from scalenas_runtime.scenes import person_scene, street_scene
from scalenas_runtime.session import Array, Feeds, Session
from scalenas_runtime.tasks.sets import pose_recipe, segmentation_recipe
from tests.small_exports import SmallExport


class Wrong(Session):
    """An engine that computes what another does, and then shifts the maps by two pixels."""

    def __init__(self, inner: Session) -> None:
        super().__init__(inner.inputs, inner.outputs)
        self._inner = inner

    def _infer(self, feeds: Feeds, out: dict[str, Array]) -> None:  # type: ignore[override]
        for name, array in self._inner.run(feeds).items():
            out[name][...] = np.roll(array, 2, axis=-1)

    def _close(self) -> None:
        self._inner.close()


def test_fp32_steps_move_no_class_of_a_street(small_segmentation: SmallExport) -> None:
    bundle = Bundle.open(small_segmentation.bundle)
    scene = street_scene(1, 0, size=(64, 96))
    found = explain(bundle, scene.picture)
    assert [step.name for step in found.steps] == [
        "pre-processing",
        "fp32 ONNX",
        "engine onnxruntime:cpu/fp32",
        "engine openvino:cpu/fp32",
        "decode in the graph",
    ]
    assert max(step.moved for step in found.steps[2:]) <= 0.001


def test_an_engine_that_is_off_is_named(small_pose: SmallExport, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(small_pose.bundle)
    scene = person_scene(1, 1, size=(200, 160), portrait=True)
    load = bundle.load
    monkeypatch.setattr(bundle, "load", lambda *given, **options: Wrong(load(*given, **options)))
    found = explain(bundle, scene.picture, targets=["onnxruntime:cpu/fp32"], boxes=scene.boxes[:1])
    assert found.found == 0
    assert [step.moves for step in found.steps[1:]] == [False, True, False]
    assert found.steps[2].moved >= 0.5
    assert found.steps[2].names


@pytest.mark.parametrize(
    ("shares", "first"),
    [
        ((0.002, 0.0, 0.001), None),
        ((0.002, 0.0, 0.004), "engine"),
        ((0.02, 0.0, 0.004), "pre-processing"),
        ((0.0, 0.0, 0.001), "engine"),
        ((0.002, 0.05, 0.05), "fp32 ONNX"),
    ],
    ids=["less than sampling", "more than sampling", "sampling", "alone", "first of two"],
)
def test_a_step_changes_classes_when_it_does_more_than_sampling(shares: tuple[float, ...], first: str | None) -> None:
    recipe = segmentation_recipe("camvid-11", size=(64, 96))
    right = np.zeros((1, 64, 96), np.uint8)
    compared = _Comparer(recipe, right)
    inputs = np.zeros((1, 64, 96, 3), np.uint8)
    steps = []
    for name, share in zip(("pre-processing", "fp32 ONNX", "engine"), shares, strict=True):
        made = right.copy()
        made.reshape(-1)[: round(share * made.size)] = 3
        steps.append(compared.step(name, "another", inputs, right, made))
    found = Explanation(recipe, inputs, tuple(steps))
    assert (found.first.name if found.first else None) == first
    expected = "no step changes the class of more than 1% of pixels" if first is None else f"{first} is the first step"
    assert found.verdict.startswith(expected)


def test_boxes_must_fit_the_task_and_the_picture(small_pose: SmallExport, small_segmentation: SmallExport) -> None:
    picture = np.zeros((50, 40, 3), np.uint8)
    boxes = np.array([[0, 0, 20, 20]], np.float32)
    with pytest.raises(UserError, match=r"boxes are for pose; this bundle segments whole pictures"):
        explain(Bundle.open(small_segmentation.bundle), picture, boxes=boxes)
    with pytest.raises(UserError, match=r"there is no box, so there is nothing to explain"):
        explain(Bundle.open(small_pose.bundle), picture, boxes=boxes[:0])


def test_page_and_record_are_written(
    small_pose: SmallExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("person.png", person_scene(1, 1, size=(200, 160), portrait=True).picture)
    assert run(["explain", str(small_pose.bundle), "person.png", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    text = Path(value["page"]).read_text()
    assert text.count("<img") == 1 + len(value["steps"])
    assert "http" not in text
    assert value["verdict"] in text
    assert {path.name for path in Path(value["page"]).parent.iterdir()} >= {"index.html", "explain.json", "command.txt"}


@pytest.mark.parametrize("transform", [[[2.5, 0, -20], [0, 2.0, 13.5]], [[0.8, 0, 5.25], [0, 0.8, -3]]])
def test_numpy_samples_as_opencv_does_up_to_its_fixed_point(transform: list[list[float]]) -> None:
    recipe = pose_recipe("lspet-14", size=(64, 96), border=30)
    picture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8), (0, 0), 2)
    matrix: NDArray[np.float64] = np.array(transform)
    expected = cv2.warpAffine(picture, matrix, (96, 64), borderValue=(30, 30, 30)).astype(int)
    made = _sampled(np.asarray(picture, np.uint8), matrix, recipe).astype(int)
    assert np.abs(made - expected).mean() < 0.6
    assert (np.abs(made - expected) > 4).mean() < 0.02
