"""Makes the virtual environment: pinned packages, CPU torch where there is no GPU, the project editable."""

import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def pinned(package: str) -> str:
    """Returns the `package==version` line of the constraints file."""
    for line in CONSTRAINTS.read_text().splitlines():
        if line.startswith(f"{package}=="):
            return line.strip()
    raise LookupError(f"{CONSTRAINTS.name} has no line {package}==...")


def install_torch(pip: list[str]) -> None:
    """Installs the pinned torch: the CPU wheel wherever no NVIDIA driver is found.

    PyPI's Linux wheel of torch brings gigabytes of CUDA, so a machine without a GPU takes a wheel that
    lies in one of pip's local folders, and else the one of PyTorch's CPU index.
    """
    torch = pinned("torch")
    if shutil.which("nvidia-smi"):
        subprocess.run([*pip, "install", torch], check=True)
        return
    offline = [*pip, "install", "--no-index", "--no-deps", "--quiet", torch]
    local = subprocess.run(offline, check=False, capture_output=True)
    if local.returncode != 0:
        subprocess.run([*pip, "install", "--no-deps", "--index-url", TORCH_CPU_INDEX, torch], check=True)
    subprocess.run([*pip, "install", "--quiet", torch], check=True)


def main() -> None:
    """Creates the environment named by the first argument, or brings it up to date."""
    folder = Path(sys.argv[1])
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"creating {folder}", flush=True)
        venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    print("installing pinned packages (a minute or two the first time)", flush=True)
    install_torch(pip)
    tools = [pinned(package) for package in ("scikit-build-core", "nanobind", "ninja")]
    subprocess.run([*pip, "install", "--quiet", "cmake", *tools], check=True)
    project = ["-c", str(CONSTRAINTS), "--no-build-isolation", "-e", f"{ROOT}[dev]"]
    subprocess.run([*pip, "install", "--quiet", *project], check=True)


if __name__ == "__main__":
    main()
