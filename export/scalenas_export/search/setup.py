"""What a search needs before its first candidate: weights, family, engines, data, members, checked and opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scalenas.cost import LIVE
from scalenas.registry import get_space
from scalenas.search.candidates import Candidate
from scalenas.search.objectives import Constraint, Measure, Objective
from scalenas.search.samplers import Proposal
from scalenas.space import SearchSpace
from scalenas.spec import SubnetSpec
from scalenas_export.packing import check_targets
from scalenas_export.recipes import spec_recipe
from scalenas_export.search.data import data_identity
from scalenas_export.search.deployment import PRECISION, SIZE, deployed, deployed_spec, deployments
from scalenas_export.search.evaluator import LiveEvaluator
from scalenas_export.search.progress import Front, Plan
from scalenas_export.search.request import SearchRequest
from scalenas_export.weight_sources import FoundWeights, find_weights, weights_spec
from scalenas_runtime.canonical import Json, digest
from scalenas_runtime.errors import UserError
from scalenas_runtime.fingerprint import fingerprint
from scalenas_runtime.records import to_plain
from scalenas_runtime.tasks import PoseRecipe, Recipe

if TYPE_CHECKING:
    from scalenas.transferred_statistics import Rule
    from scalenas_export.search.accuracy import Judged


@dataclass(frozen=True, slots=True)
class Frame:
    """What all candidates of a search have in common.

    Attributes:
        found: The supernet's weights.
        space: Their family.
        recipe: Their recipe, at the study's input size.
        members: The nets that are measured first, by name; the first one is the reference.
        choices: Choices of deployment with their values.
        statistics: How the BN statistics of a candidate come from the calibration pictures.
    """

    found: FoundWeights
    space: SearchSpace
    recipe: Recipe
    members: Mapping[str, SubnetSpec]
    choices: Mapping[str, tuple[str, ...]]
    statistics: Rule

    @property
    def reference(self) -> str:
        """Name of the member whose engine drift is corrected against."""
        return next(iter(self.members))

    @property
    def deployments(self) -> list[dict[str, str]]:
        """Every combination of the choices of deployment, the first values first; one without any is empty."""
        return deployments(self.choices)

    @property
    def other_sizes(self) -> str:
        """What to know of searched sizes that the supernet was not trained at; empty where there are none."""
        own = f"{self.recipe.height}x{self.recipe.width}"
        others = [size for size in self.choices.get(SIZE, ()) if size != own]
        return (
            f"the supernet was trained at {own}: at {', '.join(others)} it sees things smaller or larger than the "
            "configuration of its training says, and what that costs is part of the accuracies"
            if others
            else ""
        )

    @property
    def inputs(self) -> Mapping[str, Sequence[int | str]]:
        """Input shapes of the study's specs."""
        return self.members[self.reference].inputs


def open_frame(request: SearchRequest) -> Frame:
    """Returns the frame of a search, after everything that needs no device or data was checked.

    Raises:
        UserError: no such weights, or not those of a supernet; a target or precision that is not here; a size or a
            net to enqueue that the family does not have.
    """
    from scalenas.transferred_statistics import rule_for

    found = find_weights(request.weights)
    weights = found.weights
    if weights.kind != "supernet":
        raise UserError(f"{found.source} holds the weights of one net; a search needs those of a supernet")
    _check_engines(request)
    space = get_space(weights.space)
    size = None if weights.recipe is None else (weights.recipe.height, weights.recipe.width)
    members = space.members(weights.settings, size)
    recipe = spec_recipe(next(iter(members.values())), given=weights.recipe)
    if request.metric is not None and not isinstance(recipe, PoseRecipe):
        raise UserError(f"metric {request.metric} is for pose; a segmentation supernet is judged by miou")
    if request.question.persons != 1 and not isinstance(recipe, PoseRecipe):
        raise UserError(f"{request.question.persons} persons are asked for; a segmentation net takes the whole picture")
    choices: dict[str, tuple[str, ...]] = {}
    if request.precisions:
        choices[PRECISION] = request.precisions
    if request.sizes:
        choices[SIZE] = tuple(f"{height}x{width}" for height, width in request.sizes)
        for text in choices[SIZE]:
            deployed(space, recipe, next(iter(members.values())), {SIZE: text})
    return Frame(found, space, recipe, members, choices, rule_for(weights, request.statistics))


def enqueued(request: SearchRequest, frame: Frame) -> list[Proposal]:
    """Returns what is measured first: the members, then what the request names.

    Where precision or size is searched, the reference and the smallest net are measured at every value: they show what
    a choice is worth, and whether the budget can be met at all.

    Raises:
        UserError: a name or spec file is not there, or no net of the supernet.
    """
    size = (frame.recipe.height, frame.recipe.width)
    asked = [weights_spec(text, frame.found.weights, size=size) for text in request.enqueue]
    proposals = [Proposal(spec, {}, "enqueued") for spec in frame.members.values()]
    ends = [frame.members[name] for name in dict.fromkeys([frame.reference, "min"]) if name in frame.members]
    proposals += [Proposal(spec, choices, "enqueued") for choices in frame.deployments[1:] for spec in ends]
    return proposals + [Proposal(spec, {}, "enqueued") for spec in asked]


def measures(
    request: SearchRequest, frame: Frame, evaluator: LiveEvaluator
) -> tuple[list[Objective], list[Constraint]]:
    """Returns what is improved and what is kept, by the names that figures have in the study."""
    objectives: list[Objective] = []
    for goal in request.goals:
        if goal in ("params", "macs"):
            objectives.append(Objective(goal, _cost(frame.space, goal), "minimize"))
            continue
        for config in request.configs:
            name = request.figure(goal, config)
            if goal == "latency":
                objectives.append(Objective(name, evaluator.latency(config), "minimize", "ms"))
            else:
                objectives.append(Objective(name, evaluator.accuracy(config), "maximize", "%"))
    constraints = []
    if request.latency_ms is not None:
        constraints = [
            Constraint(request.figure("latency", config), evaluator.latency(config), request.latency_ms, "ms")
            for config in request.configs
        ]
    return objectives, constraints


def search_plan(
    request: SearchRequest,
    frame: Frame,
    *,
    measured: tuple[Sequence[Objective], Sequence[Constraint]],
    judged: Judged | None,
) -> Plan:
    """Returns what a view must know before the first candidate."""
    objectives, constraints = measured
    items: list[Constraint | Objective] = [*constraints, *objectives]
    columns = tuple(dict.fromkeys(item.name for item in items))
    fronts = []
    for config in request.configs:
        cost = request.figure("latency", config)
        if cost not in columns:
            cost = next((name for name in ("macs", "params") if name in columns), "")
        gain = request.figure("accuracy", config)
        if cost and gain in columns:
            fronts.append(Front(str(config.target), cost, gain))
    notes = []
    if judged is not None and judged.synthetic:
        notes.append(f"accuracy is synthetic: on drawn pictures ({judged.title}), which say little about photographs")
    return Plan(
        title=f"search in {frame.found.source}",
        fronts=tuple(fronts),
        columns=columns,
        limits={item.name: item.upper for item in constraints},
        units={item.name: item.unit for item in items if item.unit},
        members={frame.space.live(spec).digest: name for name, spec in reversed(list(frame.members.items()))},
        n_trials=request.n_trials,
        timeout=request.timeout,
        notes=tuple(notes),
    )


def identity(request: SearchRequest, frame: Frame) -> dict[str, Json]:
    """Returns what must agree when a study is resumed, besides space, settings and goals.

    Raises:
        UserError: the data cannot be read.
    """
    found: dict[str, Json] = {
        "supernet": frame.found.weights.digest,
        "recipe": digest(to_plain(frame.recipe)),
        "target": [config.to_json() for config in request.configs],
        "latency": str(request.question),
        "device": fingerprint()["device_key"],
    }
    if "accuracy" in request.goals:
        dataset = request.data.open(frame.recipe)
        found["data"] = data_identity(dataset, part="search", limit=request.limit, pictures=request.calibration)
        found["metric"] = request.metric
        found["statistics"] = frame.statistics
    if request.replay is not None:
        # Their scale is that of the machine and moment they were measured in.
        found["figures"] = "replayed"
    return found


def _check_engines(request: SearchRequest) -> None:
    targets = [config.target for config in request.configs]
    if len(set(targets)) != len(targets):
        raise UserError(f"targets are {', '.join(map(str, targets))}; each may stand once")
    check_targets(targets)
    check_targets([replace(target, precision=each) for target in targets for each in request.precisions] or targets)


def _cost(space: SearchSpace, goal: str) -> Measure:
    def measure(candidate: Candidate) -> float:
        cost = space.cost(deployed_spec(space, candidate.spec, candidate.choices), counting=LIVE)
        return float(cost.params if goal == "params" else cost.macs)

    return measure
