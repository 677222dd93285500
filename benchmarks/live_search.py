"""What benchmarks of the search share: a supernet, and the instruments that measure its candidates."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from scalenas.registry import get_space
from scalenas.search.candidates import Candidate, make_candidate
from scalenas.shipped import find_weights_file
from scalenas.space import SearchSpace
from scalenas.spec import SubnetSpec
from scalenas.transferred_statistics import rule_for
from scalenas.weights import Weights, load_weights
from scalenas_export.recipes import spec_recipe
from scalenas_export.search.accuracy import AccuracyJudge
from scalenas_export.search.data import DataSource
from scalenas_export.search.deployment import Deployed, parse_size
from scalenas_export.search.evaluator import CalibrationPictures, Instruments, LiveEvaluator, write_reference
from scalenas_export.search.meter import LatencyMeter
from scalenas_runtime.canonical import Json, pretty_json
from scalenas_runtime.errors import UserError
from scalenas_runtime.files import write_text
from scalenas_runtime.fingerprint import fingerprint
from scalenas_runtime.targets import EngineConfig
from scalenas_runtime.tasks import Recipe

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Subject:
    """A supernet whose candidates are measured, with its recipe and the nets that go by a name, HRNet's first."""

    weights: Weights
    space: SearchSpace
    recipe: Recipe
    members: Mapping[str, SubnetSpec]

    @property
    def reference(self) -> SubnetSpec:
        """HRNet's pattern."""
        return next(iter(self.members.values()))

    def candidate(self, spec: SubnetSpec, choices: Mapping[str, str] | None = None) -> Candidate:
        """Returns a spec, with its choices of deployment, as the candidate of no study."""
        return make_candidate(self.space, 0, spec, choices or {}, identity="benchmark")


def subject_of(text: str, size: tuple[int, int]) -> Subject:
    """Returns the supernet of a file or shipped name, or with `random-18` a pose supernet of width 18, untrained.

    Latency does not depend on what the weights are, so that figures of it need no training.

    Raises:
        UserError: no such weights, or not those of a supernet with a recipe.
    """
    kind, _, width = text.partition("-")
    if kind == "random" and width.isdigit():
        space = get_space("scalenas")
        settings = space.settings({"width": int(width)})
        members = space.members(settings, size)
        tensors = space.supernet(settings).state_dict()
        return Subject(
            Weights("supernet", space.name, settings, tensors),
            space,
            spec_recipe(next(iter(members.values()))),
            members,
        )
    weights = load_weights(find_weights_file(text))
    if weights.kind != "supernet" or weights.recipe is None:
        raise UserError(f"{text} holds no supernet with a recipe; a search needs one")
    space = get_space(weights.space)
    members = space.members(weights.settings, (weights.recipe.height, weights.recipe.width))
    return Subject(weights, space, weights.recipe, members)


def add_subject(parser: argparse.ArgumentParser, *, weights: str) -> None:
    """Adds the options that say what is measured on which engine: `--weights`, `--size` and `--target`."""
    parser.add_argument("--weights", default=weights, help="A weights file, a shipped name, or random-WIDTH.")
    parser.add_argument("--size", type=parse_size, default=(256, 192), help="Input of a random supernet.")
    parser.add_argument("--target", default="openvino:cpu/bf16")


def write_record(arguments: argparse.Namespace, subject: Subject, found: Mapping[str, Json]) -> None:
    """Writes what was found to `--out`, with what was measured and on which machine, and says so."""
    record: dict[str, Json] = {
        "weights": arguments.weights,
        "size": [subject.recipe.height, subject.recipe.width],
        "target": arguments.target,
        **found,
        "machine": fingerprint(),
    }
    write_text(arguments.out, pretty_json(record))
    print(f"wrote {arguments.out}")


@contextmanager
def instruments(
    subject: Subject,
    config: EngineConfig,
    *,
    source: DataSource | None = None,
    headlines: Mapping[str, float] | None = None,
) -> Iterator[tuple[LiveEvaluator, LatencyMeter, Path]]:
    """Yields evaluator, meter and a folder; the measuring process is a new one and holds the device's lock."""
    data = source or DataSource()
    with TemporaryDirectory(prefix="scalenas-bench-") as place, AccuracyJudge(data) as judge:
        folder = Path(place)
        of = Deployed(subject.reference, subject.recipe)
        write_reference(subject.weights, subject.space, of, folder / "reference.onnx")
        reference = folder / "reference.onnx"
        with LatencyMeter([config], reference=reference, recipe=subject.recipe, headlines=headlines) as meter:
            parts = Instruments(meter, judge, CalibrationPictures(data, 64), folder, rule_for(subject.weights))
            yield LiveEvaluator(subject.weights, subject.space, subject.recipe, parts), meter, folder
