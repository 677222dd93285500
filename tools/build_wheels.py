"""Builds the wheels of this machine's architecture into dist/ and checks what is in them.

    python tools/build_wheels.py [--out dist] [--python python3.12 ...]

Without `--python`: one wheel for the running Python, and one for each other supported Python on the PATH. From 3.12
on one wheel (`cp312-abi3`) serves all versions; 3.10 and 3.11 need one each. The same script builds aarch64 wheels on
an aarch64 machine. Wheels carry the plain `linux_<architecture>` tag.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
PACKAGES = ("scalenas", "scalenas_export", "scalenas_runtime")
SUFFIXES = (".py", ".pyi", ".typed", ".json", ".so")
REQUIRED = (*(f"{package}/py.typed" for package in PACKAGES), "scalenas_runtime/_native.pyi")
LIMIT = 5_000_000


def wheel_kind(python: str) -> str | None:
    """Returns which wheel a Python would build (`cp310`, `cp311`, `abi3`), or None if it does not run or is too old."""
    code = "import sys; print(*sys.version_info[:2])"
    answer = subprocess.run([python, "-c", code], check=False, capture_output=True, text=True)
    if answer.returncode != 0:
        return None
    major, minor = map(int, answer.stdout.split())
    if (major, minor) < (3, 10):
        return None
    return "abi3" if minor >= 12 else f"cp3{minor}"


def pythons() -> dict[str, str]:
    """Returns the Python to build each kind of wheel with; the running one comes first."""
    found: dict[str, str] = {}
    names = [shutil.which(f"python3.{minor}") for minor in range(10, 16)]
    for python in [sys.executable, *(name for name in names if name)]:
        kind = wheel_kind(python)
        if kind is not None:
            found.setdefault(kind, python)
    return found


def build(python: str, out: Path) -> Path:
    """Returns the wheel that `python` builds into the folder `out`; nothing else is left behind.

    The running Python builds with the packages that it has; another one gets its build packages from pip.

    Raises:
        subprocess.CalledProcessError: pip failed; its output is on the terminal.
    """
    here = Path(python).absolute() == Path(sys.executable) and importlib.util.find_spec("scikit_build_core") is not None
    with tempfile.TemporaryDirectory() as folder:
        command = [python, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps", str(ROOT)]
        command += ["--wheel-dir", f"{folder}/wheel", "--config-settings", f"build-dir={folder}/build"]
        command += ["--no-build-isolation"] if here else []
        subprocess.run(command, check=True, env={**os.environ, "PIP_CONSTRAINT": str(CONSTRAINTS)})
        (built,) = Path(folder, "wheel").glob("*.whl")
        out.mkdir(parents=True, exist_ok=True)
        return Path(shutil.move(built, out / built.name))


def problems(wheel: Path) -> list[str]:
    """Returns what is wrong with a wheel's content, one line each; an empty list if nothing is."""
    found = []
    with zipfile.ZipFile(wheel) as archive:
        entries = {entry.filename: entry.file_size for entry in archive.infolist()}
    for name, size in entries.items():
        top = name.split("/")[0]
        if top.endswith(".dist-info"):
            continue
        if top not in PACKAGES or not name.endswith(SUFFIXES):
            found.append(f"{name} does not belong into a wheel")
        if size > LIMIT:
            found.append(f"{name} has {size:,} bytes, over {LIMIT:,}")
    found += [f"{name} is missing" for name in REQUIRED if name not in entries]
    if not any(name.startswith("scalenas_runtime/_native.") and name.endswith(".so") for name in entries):
        found.append("scalenas_runtime/_native*.so is missing: the native kernels were not built")
    return found


def main() -> int:
    """Builds, checks and lists the wheels; returns 1 if one is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--python", action="append", help="Python to build with; may be given several times")
    arguments = parser.parse_args()
    failed = False
    for python in arguments.python or pythons().values():
        wheel = build(python, arguments.out)
        wrong = problems(wheel)
        failed = failed or bool(wrong)
        print(f"{wheel.name}  {wheel.stat().st_size / 1e6:.2f} MB", *wrong, sep="\n  ", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
