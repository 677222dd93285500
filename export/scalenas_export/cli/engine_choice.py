"""The options by which `run` and `eval` choose and load a bundle's engine."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from scalenas_export.cli.common import note

if TYPE_CHECKING:
    from scalenas_runtime.bundle import Bundle
    from scalenas_runtime.pose import PoseEstimator
    from scalenas_runtime.segmentation import Segmenter

R = TypeVar("R")

_OPTIONS = (
    click.option("--target", help="backend:device/precision; the bundle's first that fits here."),
    click.option(
        "--build",
        type=click.Choice(["never", "cached", "auto"]),
        default="auto",
        show_default=True,
        help="What to do when no engine fits: fail, look into the cache, or build one there.",
    ),
    click.option("--threads", type=click.IntRange(min=1), help="CPU threads of one inference."),
    click.option("--batch", type=click.IntRange(min=1), help="Crops in one inference, of a batch that the bundle has."),
    click.option("--trust", is_flag=True, help="Load native engines that were built on another machine."),
)


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """What the user said about the engine; None leaves a choice to the bundle or the backend."""

    target: str | None
    build: Literal["never", "cached", "auto"]
    batch: int | None
    threads: int | None
    trust: bool

    def open(self, path: Path) -> Bundle:
        """Returns the opened bundle; says so on stderr where its weights are random.

        Raises:
            UserError: not a bundle, or one that was tampered with.
        """
        from scalenas_runtime.bundle import Bundle

        bundle = Bundle.open(path, trust=self.trust)
        if bundle.manifest.provenance.weights.source == "random":
            note("note: this bundle's weights are random, so its results mean nothing")
        return bundle

    def target_of(self, bundle: Bundle) -> str:
        """Returns the target asked for, or the bundle's first that fits here.

        Raises:
            UserError: none was asked for, and none in the bundle fits.
        """
        from scalenas_runtime.loading import default_target

        return self.target or default_target(bundle)

    def pose(self, bundle: Bundle) -> PoseEstimator:
        """Returns the estimator of a pose bundle; the caller closes it.

        Raises:
            UserError: no engine fits.
        """
        from scalenas_runtime.pose import PoseEstimator

        target = self.target_of(bundle)
        return PoseEstimator.load(bundle, target, build=self.build, batch=self.batch, threads=self.threads)

    def segmenter(self, bundle: Bundle) -> Segmenter:
        """Returns the segmenter of a segmentation bundle; the caller closes it.

        Raises:
            UserError: no engine fits.
        """
        from scalenas_runtime.segmentation import Segmenter

        target = self.target_of(bundle)
        return Segmenter.load(bundle, target, build=self.build, batch=self.batch or 1, threads=self.threads)


def engine_options(function: Callable[..., R]) -> Callable[..., R]:
    """Adds the engine's options to a verb, whose function takes them together as `engine: EngineChoice`."""

    @functools.wraps(function)
    def body(*args: Any, **kwargs: Any) -> R:
        names = EngineChoice.__dataclass_fields__
        engine = EngineChoice(**{name: kwargs.pop(name) for name in names})
        return function(*args, engine=engine, **kwargs)

    for option in reversed(_OPTIONS):
        body = option(body)
    return body
