"""Ctrl-C still works after engines came and went."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.small_exports import SmallExport

PROGRAM = """
import os, signal, sys
from scalenas_runtime import PoseEstimator

first = PoseEstimator.load(sys.argv[1], sys.argv[2])
second = PoseEstimator.load(sys.argv[1], sys.argv[2])
first.close()
second.close()
# Python's handlers run on the alternate signal stack where there is one, and a process without a good one dies here.
signal.signal(signal.SIGINT, lambda number, frame: print("caught"))
os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.parametrize("target", ["onnxruntime:cpu/fp32", "openvino:cpu/fp32"])
def test_a_signal_arrives_after_two_sessions_ended(target: str, small_pose: SmallExport) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", PROGRAM, str(small_pose.bundle), target],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "caught\n"), done.stderr
