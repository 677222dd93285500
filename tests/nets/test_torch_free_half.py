"""Specs, spaces, cost and names work in a process that has no torch."""

import subprocess
import sys

CODE = """
import sys
for name in ("torch", "safetensors", "onnx", "onnxruntime", "openvino"):
    sys.modules[name] = None
import numpy as np
from scalenas.names import resolve_spec
from scalenas.registry import get_space
from scalenas.testing import Case, check_space
from scalenas_export.cli.app import run
check_space(Case(get_space("scalenas"), count=2))
print(f"{get_space('scalenas').cost(resolve_spec('hrnet-w32')).gmacs:.3f}")
sys.exit(run(["spaces", "--json"]))
"""


def test_the_torch_free_half_runs_where_torch_cannot_be_imported() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("7.120\n{")
