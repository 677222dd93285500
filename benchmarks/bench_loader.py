"""Pictures per second of the training loader, and how much it slows a net that trains beside it.

    python benchmarks/bench_loader.py --root FOLDER_OF_lspet_AND_camvid [--seconds 4] [--rounds 3]

Without --root only drawn scenes are measured. Ways: `here` makes each batch when it is asked for, `processes N` are the
loader's workers, `threads N` are what it does not use, for comparison. The second line of a case trains a small net for
some seconds from memory (`alone`) and from each way, in turns; ratios are medians over the rounds of step time to that
of `alone` in the same round: above 1 is what data cost. Milliseconds of processor time per picture depend least on what
else runs on the machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import torch
from torch import nn

from scalenas.data.augmentation import PoseAugmentation, SegmentationAugmentation
from scalenas.data.dataset import open_dataset
from scalenas.data.loader import Batch, batches
from scalenas.data.samples import Feed, Samples
from scalenas.data.workers import stack
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.files import write_text
from scalenas_runtime.fingerprint import fingerprint

ROOT = Path(__file__).resolve().parent.parent
RESULT = Path(__file__).parent / "results" / "loader.json"
WAYS = (("here", 0), ("processes", 1), ("processes", 2), ("threads", 1), ("threads", 2))
BESIDE = (("here", 0), ("processes", 1), ("threads", 1))
ENDLESS = 1_000_000


def cases(root: Path | None) -> dict[str, tuple[Samples, int]]:
    """Returns augmented samples and batch sizes by name."""
    found: dict[str, tuple[Samples, int]] = {}
    real = [] if root is None else ["lspet", "camvid"]
    for name in (*real, "synthetic-pose", "synthetic-street"):
        dataset = open_dataset(ROOT / "configs" / "data" / f"{name}.yaml", root=root)
        if dataset.joints is not None:
            recipe = dataset.recipe((160, 128))
            found[f"{name} 160x128"] = dataset.samples("fit", recipe, augmentation=PoseAugmentation(colour=0.1)), 32
        else:
            recipe, crops = dataset.recipe((352, 480)), SegmentationAugmentation(crop=(192, 256), colour=0.1)
            found[f"{name} 192x256"] = dataset.samples("fit", recipe, augmentation=crops), 8
    return found


def threaded(samples: Samples, batch: int, threads: int) -> Iterator[Batch]:
    """Yields the loader's batches, made by threads of this process."""
    feed = Feed(batch, 0)
    with ThreadPoolExecutor(threads) as pool:
        queue = deque(pool.submit(lambda step: stack(feed.make(samples, step)), step) for step in range(2 * threads))
        for step in range(2 * threads, ENDLESS):
            made = queue.popleft().result()
            try:
                weight = None if made.weight is None else torch.from_numpy(made.weight)
                yield Batch(torch.from_numpy(made.pictures), torch.from_numpy(made.target), weight)
            except GeneratorExit:
                for future in queue:
                    future.cancel()
                return
            queue.append(pool.submit(lambda step: stack(feed.make(samples, step)), step))


def stream(samples: Samples, batch: int, way: tuple[str, int]) -> Iterator[Batch]:
    """Returns endless batches made in one of the ways."""
    kind, count = way
    if kind == "threads":
        return threaded(samples, batch, count)
    return batches(samples, batch=batch, seed=0, steps=ENDLESS, workers=count)


def rate(samples: Samples, batch: int, way: tuple[str, int], seconds: float) -> float:
    """Returns pictures per second with nobody but the loader at work."""
    with closing(stream(samples, batch, way)) as made:  # type: ignore[type-var]
        for _ in range(4):
            next(made)
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            next(made)
            count += batch
        return count / (time.perf_counter() - start)


def step_time(made: Iterator[Batch], seconds: float) -> float:
    """Returns seconds per training step of a small net on these batches."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Conv2d(32, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU()]
    net = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(net.parameters(), 1e-4)

    def step() -> None:
        pictures = next(made).pictures.permute(0, 3, 1, 2).float() / 255
        optimiser.zero_grad()
        net(pictures).square().mean().backward()
        optimiser.step()

    for _ in range(4):
        step()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step()
        count += 1
    return (time.perf_counter() - start) / count


def memory(batch: Batch) -> Iterator[Batch]:
    """Yields one batch for ever."""
    while True:
        yield batch


def title(way: tuple[str, int]) -> str:
    """Returns what a way is called."""
    return f"{way[0]} {way[1]}" if way[1] else way[0]


def processor_ms(samples: Samples, count: int = 150) -> float:
    """Returns milliseconds of processor time per sample."""
    feed = Feed(1, 0)
    start = time.process_time()
    for step in range(count):
        feed.make(samples, step)
    return 1e3 * (time.process_time() - start) / count


def beside(samples: Samples, batch: int, seconds: float, rounds: int) -> dict[str, Json]:
    """Returns milliseconds of a step from memory, and for each way the median ratio and all of them."""
    one = next(iter(batches(samples, batch=batch, seed=0, steps=1)))
    alone: list[float] = []
    ratios: dict[str, list[float]] = {title(way): [] for way in BESIDE}
    for _ in range(rounds):
        alone.append(step_time(memory(one), seconds))
        for way in BESIDE:
            with closing(stream(samples, batch, way)) as made:  # type: ignore[type-var]
                ratios[title(way)].append(step_time(made, seconds) / alone[-1])
    medians = {name: round(statistics.median(values), 3) for name, values in ratios.items()}
    raw = {name: [round(value, 3) for value in values] for name, values in ratios.items()}
    return {"alone_ms": [round(1e3 * value, 1) for value in alone], "ratio": medians, "raw": raw}


def main() -> None:
    """Prints two lines a case and writes everything as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULT)
    options = parser.parse_args()
    rows: dict[str, Json] = {}
    for name, (samples, batch) in cases(options.root).items():
        spent = round(processor_ms(samples), 2)
        rates = {title(way): round(rate(samples, batch, way, options.seconds), 1) for way in WAYS}
        print(f"{name:26} {spent} ms of processor a picture; pictures/s: {rates}", flush=True)
        trained = beside(samples, batch, options.seconds, options.rounds)
        print(f"{'':26} step beside the loader / alone: {trained['ratio']}, alone {trained['alone_ms']} ms", flush=True)
        rows[name] = {"batch": batch, "processor_ms": spent, "pictures_per_s": rates, "beside_a_net": trained}
    command = f"python benchmarks/bench_loader.py --root DATA --seconds {options.seconds:g} --rounds {options.rounds}"
    write_text(options.json, pretty_json({"command": command, "fingerprint": fingerprint(), "rows": rows}))


if __name__ == "__main__":
    main()
