"""Times how long the command line and the runtime take to start, as whole processes in turns.

python benchmarks/bench_startup.py [--rounds 20] [--json benchmarks/results/startup.json]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.files import write_text
from scalenas_runtime.fingerprint import fingerprint

SCRIPTS = Path(sys.executable).parent
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "scalenas-export --help": [str(SCRIPTS / "scalenas-export"), "--help"],
    "import scalenas_runtime": [sys.executable, "-c", "import scalenas_runtime"],
    "import PoseEstimator": [sys.executable, "-c", "from scalenas_runtime import PoseEstimator"],
}


def main() -> None:
    """Runs the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/startup.json"))
    arguments = parser.parse_args()
    samples: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for round_ in range(-1, arguments.rounds):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if round_ >= 0:
                samples[name].append(time.perf_counter() - start)
    for name, values in samples.items():
        print(f"{name:26s} median {statistics.median(values):.3f} s  (n = {len(values)}, max {max(values):.3f})")
    results: dict[str, Json] = {name: {"samples_s": list(values)} for name, values in samples.items()}
    record: dict[str, Json] = {"benchmark": "startup", "fingerprint": fingerprint(), "results": results}
    write_text(arguments.json, pretty_json(record))


if __name__ == "__main__":
    main()
