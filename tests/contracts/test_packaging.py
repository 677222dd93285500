"""The wheel: what is in it, what it installs, and the pure-Python one of a machine without a compiler."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.conftest import ROOT, Environment

pytestmark = pytest.mark.slow

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
SOURCES = {"scalenas": ROOT / "scalenas", "scalenas_export": ROOT / "export", "scalenas_runtime": ROOT / "runtime"}


def files_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def package_files() -> set[str]:
    """Every file of the three packages in the checkout, by its path in a wheel."""
    found = set()
    for package, place in SOURCES.items():
        parent = place.parent if place.name == package else place
        for path in (parent / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                found.add(path.relative_to(parent).as_posix())
    return found


def test_wheel_holds_the_packages_and_the_kernels_and_nothing_else(built_wheel: Path) -> None:
    files = {name for name in files_of(built_wheel) if ".dist-info/" not in name}
    native = {name for name in files if name.endswith(".so")}
    assert len(native) == 1
    assert native.pop().startswith("scalenas_runtime/_native.")
    assert {name for name in files if not name.endswith(".so")} == package_files()
    for package in SOURCES:
        assert f"{package}/py.typed" in files


def test_wheel_is_small_and_carries_its_licence(built_wheel: Path) -> None:
    assert built_wheel.stat().st_size < 2e6
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in files_of(built_wheel))


def test_base_dependencies_name_no_engine_and_no_torch(built_wheel: Path) -> None:
    with zipfile.ZipFile(built_wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    base = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    names = {line.split(">")[0].strip().lower() for line in base}
    assert names == {"numpy", "opencv-python-headless", "msgspec", "click", "tqdm", "pyyaml"}
    assert metadata["Requires-Python"] == ">=3.10"


def test_base_install_is_under_242_megabytes(base_venv: Environment) -> None:
    parts = sorted(base_venv.sizes.items(), key=lambda part: -part[1])
    table = "\n".join(f"{size:8.2f} MB  {name}" for name, size in parts)
    print(table)
    assert sum(base_venv.sizes.values()) < 242, table


def test_base_install_imports_the_runtime_without_torch_or_onnx(base_venv: Environment) -> None:
    for name in ("torch", "onnx", "openvino"):
        assert name not in base_venv.sizes
    done = base_venv.run(
        "python",
        "-c",
        "import scalenas_runtime as runtime\n"
        "for name in runtime.__all__:\n"
        "    getattr(runtime, name)\n"
        "from scalenas_runtime import kernels\n"
        "print(kernels.status().native, runtime.__file__)",
    )
    assert done.returncode == 0, done.stderr
    native, place = done.stdout.split()
    assert native == "True"
    assert Path(place).is_relative_to(base_venv.folder)


def test_base_install_answers_help(base_venv: Environment) -> None:
    for program in ("scalenas-export", "scalenas"):
        done = base_venv.run(program, "--help")
        assert done.returncode == 0, done.stderr
        assert "doctor" in done.stdout


def test_one_extra_adds_its_engine(runtime_venv: Environment) -> None:
    code = "from scalenas_runtime.backends import get_backend; print(get_backend('onnxruntime').version())"
    done = runtime_venv.run("python", "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(".") == 2
    missing = runtime_venv.run("python", "-c", code.replace("onnxruntime", "openvino"))
    assert missing.returncode == 1
    assert "pip install 'scalenas-export[openvino]'" in missing.stderr


def build_wheel(source: Path, folder: Path, *settings: str, **variables: str) -> tuple[Path, str]:
    """Returns the wheel that pip builds of `source`, and everything that it printed."""
    given = [f"build-dir={folder / 'build'}", *settings]
    options = ["--no-deps", "--no-build-isolation", "--verbose", "--wheel-dir", str(folder / "wheel")]
    options += [word for setting in given for word in ("--config-settings", setting)]
    done = subprocess.run(
        [*PIP, "wheel", *options, str(source)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    (wheel,) = (folder / "wheel").glob("*.whl")
    return wheel, output


def test_without_a_compiler_the_wheel_is_pure_python_and_says_so_once(base_venv: Environment, tmp_path: Path) -> None:
    wheel, output = build_wheel(ROOT, tmp_path, CXX="/nonexistent/compiler")
    assert "No native kernels were built" in output
    assert wheel.name.endswith("-py3-none-any.whl")
    files = files_of(wheel)
    assert not [name for name in files if name.endswith(".so")]
    assert {name for name in files if ".dist-info/" not in name} == package_files()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "pure")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import numpy as np\n"
        "from scalenas_runtime import kernels\n"
        "from scalenas_runtime.decode.segmentation import class_map\n"
        "logits = np.random.default_rng(0).normal(size=(5, 8, 9)).astype(np.float32)\n"
        "print(kernels.status().instructions, class_map(logits, (8, 9)).tolist() == logits.argmax(0).tolist())\n"
        "class_map(logits, (16, 18))"
    )
    used = base_venv.run("python", "-c", code, str(tmp_path / "pure"))
    assert used.stdout.split() == ["numpy", "True"], used.stderr
    assert used.stderr.count("NumPy fallback") == 1


def test_sdist_holds_all_that_a_wheel_needs(tmp_path: Path) -> None:
    code = "import sys; from scikit_build_core.build import build_sdist; print(build_sdist(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=ROOT, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        inside = {name.split("/", 1)[1] for name in packed.getnames() if "/" in name}
        # Python 3.10 and 3.11 know filters from a late patch release on.
        packed.extraction_filter = getattr(tarfile, "data_filter", None)
        packed.extractall(tmp_path)
    assert {"CMakeLists.txt", "pyproject.toml", "LICENSE"} <= inside
    assert not [name for name in inside if name.startswith(("weights/", "tests/", ".venv/", "build/", "dist/"))]
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "runtime" / "native").iterdir()} <= inside
    source = tmp_path / archive.name.removesuffix(".tar.gz")
    wheel, _ = build_wheel(source, tmp_path, "wheel.cmake=false", "wheel.py-api=py3")
    assert {name for name in files_of(wheel) if ".dist-info/" not in name} == package_files()
