"""Accuracy through engines: what candidates are judged by is what `evaluate` gives; judging processes that die."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import onnx
import psutil
import pytest
import torch
from msgspec import structs

from scalenas.registry import get_space
from scalenas.search.objectives import MeasureFailed
from scalenas_export.fast_graph import candidate_graph
from scalenas_export.search.accuracy import AccuracyJudge
from scalenas_export.search.data import DataSource
from scalenas_export.search.evaluator import inherited_net
from scalenas_export.search.judging import prepare
from scalenas_runtime.backends import get_backend
from scalenas_runtime.evaluate import PoseQuestion, evaluate_pose, evaluate_segmentation
from scalenas_runtime.pose import PoseEstimator
from scalenas_runtime.readers import KeypointData, PairData
from scalenas_runtime.segmentation import Segmenter
from scalenas_runtime.targets import EngineConfig, Target
from scalenas_runtime.tasks import PoseRecipe, Recipe, SegmentationRecipe
from tests.child_processes import children_with
from tests.export.test_weights_by_name import small_weights

CONFIG = EngineConfig(Target.parse("onnxruntime:cpu/fp32"), threads=1)


def saved(folder: Path, task: str, *, batch: int | None = None) -> tuple[Path, Recipe]:
    """Returns a random net's graph, batch 1 or any, and its recipe."""
    torch.manual_seed(5)
    weights = small_weights(task)
    assert weights.recipe is not None
    space = get_space(weights.space)
    spec = space.max(weights.settings, {"image": (3, weights.recipe.height, weights.recipe.width)})
    model = candidate_graph(inherited_net(weights, space, spec), weights.recipe).model
    if batch is not None:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = batch
    path = folder / f"{task}-{batch or 1}.onnx"
    onnx.save(model, path)
    return path, weights.recipe


@pytest.mark.parametrize("flip", [False, True])
def test_people_are_judged_in_batches_as_one_by_one(flip: bool, tmp_path: Path) -> None:
    single, recipe = saved(tmp_path, "pose")
    batched, _ = saved(tmp_path, "pose", batch=4)
    assert isinstance(recipe, PoseRecipe)
    recipe = structs.replace(recipe, flip_test=flip)
    data = DataSource().open(recipe).labelled("search", size=(recipe.height, recipe.width))
    assert isinstance(data, KeypointData)
    backend = get_backend("onnxruntime")
    # 10 people in batches of 4: the last one is filled up.
    with backend.compile(batched, replace(CONFIG, batch=4)) as session:
        judged = prepare(recipe, data, metric="pck", limit=10).judge(session)
    with PoseEstimator(backend.compile(single, CONFIG), recipe) as estimator:
        plain = evaluate_pose(estimator.estimate, recipe, data, question=PoseQuestion("pck", limit=10))
    assert judged.to_json()["figures"] == plain.to_json()["figures"]
    assert (judged.value, judged.counts) == (plain.value, plain.counts)
    assert 0 < judged.value < 1


def test_streets_are_judged_as_one_by_one(tmp_path: Path) -> None:
    path, recipe = saved(tmp_path, "segmentation")
    assert isinstance(recipe, SegmentationRecipe)
    data = DataSource().open(recipe).labelled("search", size=(recipe.height, recipe.width))
    assert isinstance(data, PairData)
    backend = get_backend("onnxruntime")
    judged = prepare(recipe, data, metric=None, limit=5).judge(backend.compile(path, CONFIG))
    with Segmenter(backend.compile(path, CONFIG), recipe) as segmenter:
        plain = evaluate_segmentation(segmenter.segment, recipe, data, limit=5)
    assert judged.to_json()["figures"] == plain.to_json()["figures"]
    assert judged.counts["pictures_judged"] == 5
    assert 0 < judged.value < 1


def judging_processes() -> list[psutil.Process]:
    return children_with("scalenas_export.search.judging_server")


def test_a_judging_process_that_dies_is_replaced_once(tmp_path: Path) -> None:
    model, recipe = saved(tmp_path, "pose")
    with AccuracyJudge(DataSource(), limit=4) as judge:
        first = judge.measure(model, CONFIG, recipe)
        (process,) = judging_processes()
        process.send_signal(signal.SIGKILL)
        assert judge.measure(model, CONFIG, recipe).value == first.value
        (replaced,) = judging_processes()
        assert replaced.pid != process.pid
    assert judging_processes() == []


def test_a_judging_process_that_hangs_twice_fails_the_candidate_alone(tmp_path: Path) -> None:
    model, recipe = saved(tmp_path, "pose")
    with AccuracyJudge(DataSource(), limit=4) as judge:
        right = judge.measure(model, CONFIG, recipe)
        # Less than any answer takes.
        judge._timeout = 1e-3
        with pytest.raises(MeasureFailed, match="onnxruntime:cpu/fp32: failed twice, in two processes: "):
            judge.measure(model, CONFIG, recipe)
        assert judging_processes() == []
        judge._timeout = 600
        assert judge.measure(model, CONFIG, recipe).value == right.value
