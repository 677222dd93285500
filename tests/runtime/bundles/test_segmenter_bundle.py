"""`Segmenter.load` on real bundles, and that a long stream through a real engine leaves nothing behind."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

from scalenas_runtime.bundle import Bundle, BundleContents, write_bundle
from scalenas_runtime.errors import UserError
from scalenas_runtime.segmentation import Segmenter
from scalenas_runtime.targets import EngineConfig, Target
from tests.resident import growth_per_call

TARGET = "onnxruntime:cpu/fp32"


@pytest.fixture
def segmentation_bundle(segmentation_contents: BundleContents, tmp_path: Path) -> Path:
    path = tmp_path / "street"
    write_bundle(path, segmentation_contents)
    return path


@pytest.mark.parametrize("target", [TARGET, "openvino:cpu/fp32"])
def test_golden_pictures_give_the_golden_class_maps(segmentation_bundle: Path, target: str) -> None:
    bundle = Bundle.open(segmentation_bundle)
    golden = bundle.golden()
    with Segmenter.load(bundle, target, build="auto", threads=1) as segmenter:
        for picture, expected in zip(golden.inputs, golden.decoded, strict=True):
            found = segmenter(picture).class_map
            assert np.mean(found == expected) > 0.999


def test_without_a_target_the_first_engine_is_taken(segmentation_bundle: Path) -> None:
    with pytest.raises(UserError, match=r"has no engine that fits here; .*: scalenas-export build .*street"):
        Segmenter.load(segmentation_bundle)
    Bundle.open(segmentation_bundle).build(EngineConfig(Target.parse(TARGET)))
    with Segmenter.load(segmentation_bundle) as segmenter:
        assert segmenter.segment(np.zeros((10, 12, 3), np.uint8)).class_map.shape == (10, 12)


def test_a_pose_bundle_is_refused(contents: BundleContents, tmp_path: Path) -> None:
    write_bundle(tmp_path / "pose", contents)
    with pytest.raises(UserError, match="is a bundle for pose, not segmentation; load it with PoseEstimator"):
        Segmenter.load(tmp_path / "pose", TARGET)


def test_ten_thousand_frames_through_an_engine_leave_nothing_behind(segmentation_bundle: Path) -> None:
    before = threading.active_count()
    threads = psutil.Process().num_threads()
    picture = np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    with Segmenter.load(segmentation_bundle, TARGET, build="auto", threads=1) as segmenter:
        assert growth_per_call(lambda: segmenter.segment(picture), calls=10_000) < 500
    assert threading.active_count() == before
    assert psutil.Process().num_threads() <= threads
