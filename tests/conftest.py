"""Fixtures that several folders of tests share: the built wheel, and environments that it is installed into."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.small_exports import SmallExport

ROOT = Path(__file__).resolve().parent.parent

# No test may fail because the machine was busy.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the wheel in it, away from the checkout.

    Attributes:
        folder: The environment.
        sizes: Megabytes of each folder and file directly below site-packages when only the base install was there.
    """

    folder: Path
    sizes: dict[str, float]

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def run(self, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Runs a program of the environment (`python`, `scalenas-export`) with nothing of the caller's in its way."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
        path = os.pathsep.join([str(self.folder / "bin"), clean.get("PATH", "")])
        return subprocess.run(
            [str(self.folder / "bin" / command[0]), *command[1:]],
            check=False,
            capture_output=True,
            text=True,
            cwd=cwd or self.folder,
            env={**clean, "PATH": path},
        )


@pytest.fixture(scope="session")
def built_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout for the running Python, with native kernels."""
    out = tmp_path_factory.mktemp("wheel")
    script = str(ROOT / "tools" / "build_wheels.py")
    done = subprocess.run(
        [sys.executable, script, "--out", str(out), "--python", sys.executable],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def base_venv(built_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A fresh environment with the wheel and its base dependencies, pinned as the constraints file says."""
    folder = tmp_path_factory.mktemp("venv") / "base"
    venv.create(folder)
    _install(folder, str(built_wheel))
    (packages,) = folder.glob("lib/python*/site-packages")
    return Environment(folder, {path.name: _megabytes(path) for path in packages.iterdir()})


@pytest.fixture(scope="session")
def runtime_venv(base_venv: Environment, built_wheel: Path) -> Environment:
    """The environment of `base_venv` with the extra `onnxruntime` added: no torch, no onnx."""
    _install(base_venv.folder, f"{built_wheel}[onnxruntime]")
    return base_venv


def _install(folder: Path, requirement: str) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(folder / "bin" / "python")]
    constraints = ["--quiet", "-c", str(ROOT / "constraints.txt")]
    done = subprocess.run([*pip, "install", *constraints, requirement], check=False, capture_output=True, text=True)
    if done.returncode != 0 and "No matching distribution found" in done.stderr:
        pytest.skip(f"pip reaches no index that has the dependencies: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stdout + done.stderr


def _megabytes(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


@pytest.fixture(scope="session")
def small_pose(tmp_path_factory: pytest.TempPathFactory) -> SmallExport:
    """A pose bundle with engines for ONNX Runtime and OpenVINO, batch 1 and 2, raw and end2end."""
    from tests.small_exports import small_export

    return small_export("pose", tmp_path_factory.mktemp("pose"))


@pytest.fixture(scope="session")
def small_segmentation(tmp_path_factory: pytest.TempPathFactory) -> SmallExport:
    """The same for segmentation."""
    from tests.small_exports import small_export

    return small_export("segmentation", tmp_path_factory.mktemp("segmentation"))
