"""Latencies of a table's nets: measured one after the other, kept line by line."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scalenas.registry import get_space
from scalenas.search.objectives import MeasureFailed
from scalenas.table.build import Latency, append_latency, read_latencies
from scalenas_export.recipes import spec_recipe
from scalenas_export.search.deployment import Deployed
from scalenas_export.search.evaluator import write_reference
from scalenas_export.search.meter import LatencyMeter
from scalenas_runtime.errors import UserError
from scalenas_runtime.fingerprint import fingerprint
from scalenas_runtime.targets import EngineConfig

if TYPE_CHECKING:
    from scalenas.spec import SubnetSpec
    from scalenas.weights import Weights


@dataclass(frozen=True, slots=True)
class LatencyPlan:
    """What is measured.

    Attributes:
        weights: The supernet's; only their shapes matter.
        nets: Nets of the family `scalenas`, those of the table first.
        configs: The engines.
        repeated: How many of the nets, spread over all, are measured again.
        repeats: How often these are measured in all.
        file: Lines that are kept; it is added to.
    """

    weights: Weights
    nets: Sequence[SubnetSpec]
    configs: Sequence[EngineConfig]
    repeated: int
    repeats: int
    file: Path

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the nets' input."""
        _, height, width = self.nets[0].inputs["image"]
        return int(height), int(width)

    def missing(self) -> list[tuple[SubnetSpec, EngineConfig, int]]:
        """Returns what is not in the file yet: nets, engines and repeats; whole rounds, so that repeats lie apart."""
        known = {(entry.spec, entry.target, entry.repeat) for entry in read_latencies(self.file)}
        return [item for item in self._wanted() if (item[0].digest, str(item[1].target), item[2]) not in known]

    def _wanted(self) -> Iterator[tuple[SubnetSpec, EngineConfig, int]]:
        stride = max(1, len(self.nets) // max(1, self.repeated))
        again = self.nets[::stride][: self.repeated]
        for repeat in range(self.repeats):
            for spec in self.nets if repeat == 0 else again:
                for config in self.configs:
                    yield spec, config, repeat


def measure_latencies(
    plan: LatencyPlan, *, seconds: float | None = None, progress: Callable[[str], object] | None = None
) -> int:
    """Returns how many measurements are still missing when all are done, or after so many seconds.

    All are ratios to one reference net, HRNet's pattern, times what that took when the first of them was made; a file
    that is gone on with keeps its scale.

    Raises:
        UserError: a target is not there, another process measures on the device, or the file's measurements are of
            other weights or of another device.
        MeasureFailed: an engine refuses a net, or the measuring process died twice.
    """
    deadline = float("inf") if seconds is None else time.monotonic() + seconds
    weights, space = plan.weights, get_space(plan.weights.space)
    reference_spec = next(iter(space.members(weights.settings, plan.size).values()))
    device = str(fingerprint()["device_key"])
    run: dict[str, int | str] = {"weights": weights.digest, "reference": reference_spec.digest, "device": device}
    headlines = _headlines(plan.file, run)
    missing = plan.missing()
    if not missing:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        model, reference = Path(folder) / "model.onnx", Path(folder) / "reference.onnx"
        recipe = spec_recipe(reference_spec, given=weights.recipe)
        write_reference(weights, space, Deployed(reference_spec, recipe), reference)
        with LatencyMeter(plan.configs, reference=reference, recipe=recipe, headlines=headlines) as meter:
            for done, (spec, config, repeat) in enumerate(missing):
                if time.monotonic() >= deadline:
                    return len(missing) - done
                write_reference(weights, space, Deployed(spec, spec_recipe(spec, given=weights.recipe)), model)
                try:
                    found = meter.measure(model, config)
                except MeasureFailed as error:
                    raise MeasureFailed(f"net {spec.digest[:12]}: {error}") from None
                entry = Latency(
                    spec=spec.digest,
                    target=str(config.target),
                    repeat=repeat,
                    milliseconds=round(found.value, 6),
                    headline=meter.headlines[str(config.target)],
                    run=run,
                )
                append_latency(plan.file, entry)
                if progress is not None:
                    progress(entry.target)
    return 0


def _headlines(file: Path, run: Mapping[str, int | str]) -> dict[str, float]:
    """Returns the scale of a file's measurements by target, none for a new one.

    Raises:
        UserError: they are of another run.
    """
    headlines: dict[str, float] = {}
    for entry in read_latencies(file):
        if entry.run != run:
            differing = ", ".join(
                f"{key} {entry.run.get(key)!r} there, {value!r} here"
                for key, value in run.items()
                if entry.run.get(key) != value
            )
            raise UserError(f"{file} holds measurements of something else ({differing}); name another file")
        headlines.setdefault(entry.target, entry.headline)
    return headlines
