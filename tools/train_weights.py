"""Trains both small supernets and their baselines side by side on one GPU, in a given time.

    python tools/train_weights.py --root FOLDER_OF_lspet_AND_camvid --out FOLDER [--fit-seconds 680]

Four runs share the GPU: for pose and for segmentation a teacher and then the supernet that it starts and teaches, and
HRNet's pattern alone. The configurations are those of a CPU core; `GPU` below says what a GPU changes in them. With
`--fit-seconds` there are as many steps as fit: how many is measured under that very load, in short trials before every
phase, so that all schedules come to their end in time.
Under the folder: `<run>/` as `train` leaves it, `steps.json` with the steps of every phase, and `driver.log`. The
weights are copied to `<run>.safetensors` as soon as they are written; a run whose weights lie there is not repeated, so
that what one machine began another one can end. Judge them with benchmarks/evaluate_members.py, which takes longer than
training one of them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scalenas.training.config import TrainConfig, read_config
from scalenas_runtime.files import write_bytes

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "train"
TRIAL, SUPERNET_TRIAL = 38, 32
# Shares of the time: the teacher ends after so much, and a run leaves some for writing its weights.
TEACHER_SHARE, MARGIN = 0.3, 26
# What a GPU changes in the configurations of a task, and in those of a run.
GPU = {
    "pose": (
        "batch=128",
        "data.workers=3",
        "model.size=[160, 128]",
        "optimiser.lr=0.003",
        "data.augmentation={rotation: 45, scale: 0.3, half_body: 0.1, colour: 0.15}",
    ),
    "seg": ("batch=32", "data.workers=2", "data.augmentation.crop=[256, 320]", "optimiser.lr=0.003"),
}
GPU_RUNS = {
    "pose-w16-teacher": ("schedule.steps=1800",),
    "pose-w16-supernet": ("schedule.steps=4200", "optimiser.lr=0.002"),
    "pose-w16-alone": ("schedule.steps=6000",),
    "seg-w16-teacher": ("schedule.steps=1640",),
    "seg-w16-supernet": ("schedule.steps=3700", "optimiser.lr=0.002"),
    "seg-w16-alone": ("schedule.steps=5340",),
}


def of_gpu(config: str) -> list[str]:
    """Returns what `--set` changes in a configuration on a GPU."""
    always = ["cuda_graphs=true", "checkpoint_steps=1000000"]
    return [*GPU[config.split("-", 1)[0]], *GPU_RUNS[config], *always]


@dataclass
class Driver:
    """Starts runs and knows the time.

    Attributes:
        root: Folder of the data.
        out: Folder of the runs.
        seconds: When everything must be there, counted from the start; None: whenever the configured steps are done.
        steps: Steps of the phases that were started, by run.
    """

    root: Path
    out: Path
    seconds: float | None = None
    started: float = field(default_factory=time.monotonic)
    steps: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def say(self, text: str) -> None:
        """Writes a line to the log and to stderr."""
        line = f"{self.now:6.1f} {text}"
        with self._lock:
            print(line, file=sys.stderr, flush=True)
            with (self.out / "driver.log").open("a", encoding="utf-8") as log:
                log.write(line + "\n")

    def fitting(
        self, name: str, config: str, sets: Sequence[str], trial: float, steps: Callable[[float], float]
    ) -> int:
        """Returns the steps of a phase: the configured ones, or those that fit the time; 0 where its weights are there.

        Args:
            name: The run.
            config: Its configuration.
            sets: What `--set` changes in it.
            trial: Seconds of the trial that measures its rate.
            steps: The steps that fit, for a rate in steps a second.

        Raises:
            RuntimeError: the trial ended by itself.
        """
        if self._weights(name).exists():
            return 0
        if self.seconds is None:
            configured = _config(config).schedule.steps
            assert configured is not None
            return configured
        return max(1, int(steps(self.trial(name, config, sets, trial))))

    @property
    def left(self) -> float:
        """Seconds until everything must be there."""
        return math.inf if self.seconds is None else self.seconds - self.now

    def trial(self, name: str, config: str, sets: Sequence[str], seconds: float) -> float:
        """Returns steps a second of a run that is thrown away.

        Raises:
            RuntimeError: the run ended by itself.
        """
        folder = self.out / "trials" / name
        process = self._start(folder, config, [*sets, "schedule.steps=1000000", "log_steps=10"])
        until = self.now + seconds
        while self.now < until and process.poll() is None:
            time.sleep(0.2)
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended: {_tail(folder)}")
        _kill(process)
        pictures = _rate(folder)
        rate = pictures / _config(config).batch
        shutil.rmtree(folder)
        self.say(f"{name}: {rate:.2f} steps/s")
        return max(rate, 0.1)

    def run(self, name: str, config: str, sets: Sequence[str], steps: int) -> Path:
        """Returns the weights of a run, copied beside its folder; a run whose weights lie there is not repeated.

        Raises:
            RuntimeError: the run left no weights in time.
        """
        if self._weights(name).exists():
            return self._weights(name)
        with self._lock:
            self.steps[name] = steps
            (self.out / "steps.json").write_text(json.dumps(self.steps, indent=1), encoding="utf-8")
        folder = self.out / name
        self.say(f"{name}: {steps} steps")
        process = self._start(folder, config, [*sets, f"schedule.steps={steps}"])
        weights = folder / "weights.safetensors"
        while not weights.exists() and process.poll() is None and self.left > 0:
            time.sleep(0.2)
        # What follows the weights is their judgement.
        _kill(process)
        if not weights.exists():
            raise RuntimeError(f"{name} left no weights: {_tail(folder)}")
        self.say(f"{name}: done, {_rate(folder) / _config(config).batch:.2f} steps/s")
        write_bytes(self._weights(name), weights.read_bytes())
        return self._weights(name)

    def _weights(self, name: str) -> Path:
        return self.out / f"{name}.safetensors"

    def _start(self, folder: Path, config: str, sets: Sequence[str]) -> subprocess.Popen[bytes]:
        folder.parent.mkdir(parents=True, exist_ok=True)
        program = "from scalenas_export.cli import main; main()"
        command = [sys.executable, "-c", program, "train", str(CONFIGS / f"{config}.yaml"), "--out", str(folder)]
        command += ["--data-root", str(self.root)]
        for item in (*of_gpu(config), *sets):
            command += ["--set", item]
        # One thread each: the workers and the four runs are the parallelism.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with _output(folder).open("wb") as output:
            return subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )


def chain(driver: Driver, task: str, together: threading.Barrier) -> None:
    """Trains teacher and supernet of a task."""
    name = f"{task}-w16-teacher"
    steps = driver.fitting(name, name, [], TRIAL, lambda rate: rate * (TEACHER_SHARE * driver.left - 12))
    together.wait()
    teacher = driver.run(name, name, [], steps)
    sets = [f"model.weights={teacher}", f"distillation.teacher={teacher}"]
    name, config = f"{task}-w16", f"{task}-w16-supernet"
    steps = driver.fitting(name, config, sets, SUPERNET_TRIAL, lambda rate: 0.93 * rate * (driver.left - MARGIN))
    driver.run(name, config, sets, steps)


def alone(driver: Driver, task: str, together: threading.Barrier) -> None:
    """Trains HRNet's pattern alone; it ends earlier, so that the supernets have the GPU to themselves at the end."""
    name = f"{task}-w16-alone"
    steps = driver.fitting(name, name, [], TRIAL, lambda rate: 0.88 * rate * (driver.left - 70))
    together.wait()
    driver.run(name, name, [], steps)


def main() -> int:
    """Trains everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fit-seconds", type=float, help="Default: the steps of the configurations.")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    driver, together = Driver(arguments.root, arguments.out, arguments.fit_seconds), threading.Barrier(4)
    failed: list[str] = []

    def guarded(part: object, task: str) -> None:
        try:
            part(driver, task, together)  # type: ignore[operator]
        except (RuntimeError, threading.BrokenBarrierError) as error:
            together.abort()
            failed.append(str(error))
            driver.say(str(error))

    threads = [threading.Thread(target=guarded, args=(part, task)) for part in (chain, alone) for task in GPU]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 1 if failed else 0


def _config(config: str) -> TrainConfig:
    return read_config(CONFIGS / f"{config}.yaml", of_gpu(config))


def _rate(folder: Path) -> float:
    """Returns pictures a second: the median over the later two thirds of the log."""
    log = folder / "log.jsonl"
    if not log.exists():
        return 0.0
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    rates = [line["pictures_per_second"] for line in lines if "pictures_per_second" in line]
    return statistics.median(rates[len(rates) // 3 :]) if rates else 0.0


def _output(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.txt")


def _tail(folder: Path) -> str:
    return _output(folder).read_text(encoding="utf-8", errors="replace")[-800:]


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
