"""Time and peak memory of `export hrnet-w32 --target onnxruntime:cpu/fp32 --target openvino:cpu/fp32`, full ladder.

Prints a table and writes `benchmarks/results/export.json`. The command runs in processes of its own, as a user's does;
the figure to hold is under 60 s and under 3 GB on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.files import write_text
from scalenas_runtime.fingerprint import fingerprint

RESULTS = Path(__file__).resolve().parent / "results"
COMMAND = ("export", "hrnet-w32", "--target", "onnxruntime:cpu/fp32", "--target", "openvino:cpu/fp32", "--json")
# Peak memory is the child's own: ru_maxrss of an exited process, in kilobytes on Linux and bytes on macOS.
CHILD = """
import json, resource, sys
from scalenas_export.cli.app import run
code = run(sys.argv[1:])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({"peak": peak}), file=sys.stderr)
sys.exit(code)
"""


def measure() -> dict[str, Json]:
    """Returns wall seconds, peak bytes and the seconds of each step of one export."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        command = [sys.executable, "-c", CHILD, *COMMAND, "--out", str(Path(folder) / "out")]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        wall = time.monotonic() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    return {
        "wall_seconds": round(wall, 2),
        "peak_bytes": json.loads(done.stderr.strip().splitlines()[-1])["peak"],
        "steps": json.loads(done.stdout)["seconds"],
    }


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="How many exports, one after another.")
    repeat: int = parser.parse_args().repeat
    runs = [measure() for _ in range(repeat)]
    print(f"{'run':<5}{'seconds':>9}{'peak MB':>9}")
    for index, each in enumerate(runs):
        peak = each["peak_bytes"]
        assert isinstance(peak, int)
        print(f"{index:<5}{each['wall_seconds']:>9}{peak / 1e6:>9.0f}")
    record: Json = {"command": ["scalenas-export", *COMMAND], "runs": runs, "machine": fingerprint()}
    write_text(RESULTS / "export.json", pretty_json(record))
    print(f"wrote {RESULTS / 'export.json'}")


if __name__ == "__main__":
    main()
