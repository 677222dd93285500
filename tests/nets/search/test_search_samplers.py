"""What every sampler keeps to, and how samplers are found."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable

import numpy as np
import pytest

from scalenas.registry import get_space
from scalenas.search import (
    Candidate,
    Constraint,
    Context,
    MeasureFailed,
    Objective,
    Proposal,
    Sampler,
    SearchOptions,
    Study,
    get_sampler,
    list_samplers,
    search,
)
from scalenas.search.samplers.variation import mutation_rates
from scalenas.table.space import SPACE
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError

NAMES = ["topology", "aging", "random", "nsga2"]
SETTINGS: dict[str, Json] = {"width": 4, "modules": [1, 1, 1], "stage1_blocks": 1, "joints": 3}
INPUTS = {"image": (3, 64, 64)}


def cost(candidate: Candidate) -> float:
    return SPACE.cost(candidate.spec).macs / 1e6


def merit(candidate: Candidate) -> float:
    genes = [len(str(value)) + (value if isinstance(value, int) else 0) for value in candidate.spec.genes.values()]
    return float(np.sqrt(sum(genes)))


def flaky(candidate: Candidate) -> float:
    if int(candidate.digest[:2], 16) < 40:
        raise MeasureFailed("the device went away")
    return merit(candidate)


def ran(
    sampler: Sampler | str,
    *,
    seed: int = 0,
    n_trials: int = 36,
    upper: float | None = None,
    measure: Callable[[Candidate], float] = merit,
    choices: dict[str, tuple[str, ...]] | None = None,
) -> Study:
    limits = [] if upper is None else [Constraint("cost", cost, upper)]
    goals = [Objective("cost", cost, "minimize"), Objective("merit", measure, "maximize")]
    options = SearchOptions(settings=SETTINGS, inputs=INPUTS, seed=seed, n_trials=n_trials, choices=choices or {})
    return search(SPACE, goals, limits, sampler, None, options=options)


def keys(study: Study) -> list[str]:
    return [trial.candidate.key for trial in study.trials]


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_and_figures_give_the_same_valid_candidates_none_twice(name: str) -> None:
    study = ran(name)
    assert keys(study) == keys(ran(name))
    assert keys(study) != keys(ran(name, seed=1))
    assert len(set(keys(study))) == 36
    for trial in study.trials:
        SPACE.validate(trial.spec)
        assert SPACE.normalise(trial.spec) == trial.spec


@pytest.mark.parametrize("name", NAMES)
def test_limits_failures_and_choices_do_not_stop_a_sampler(name: str) -> None:
    middle = float(np.median([trial.values["cost"] for trial in ran("random").trials]))
    study = ran(name, upper=middle, measure=flaky, choices={"precision": ("fp32", "bf16"), "size": ("64x64",)})
    states = {trial.state for trial in study.trials}
    assert "complete" in states
    assert len(set(keys(study))) == 36
    assert {trial.choices["precision"] for trial in study.trials} == {"fp32", "bf16"}
    for trial in study.trials:
        assert (trial.state == "infeasible") == (trial.values["cost"] > middle)
        assert ("merit" in trial.values) == (trial.state == "complete")


@pytest.mark.parametrize("name", NAMES)
def test_a_proposal_depends_on_context_and_random_numbers_alone(name: str) -> None:
    study = ran(name)
    trials = list(study.trials)

    def proposed(sampler: Sampler) -> Proposal:
        context = Context(SPACE, SETTINGS, INPUTS, {}, trials, study.goals, {}, len(trials), budget=60)
        return sampler.propose(context, np.random.default_rng(5))

    used = get_sampler(name)
    first = proposed(used)
    assert proposed(used) == first == proposed(get_sampler(name))


def test_predictions_of_the_study_go_before_the_model_over_genes() -> None:
    study = ran("random")
    table = SPACE.gene_table(SPACE.settings(SETTINGS))
    asked = []

    def rank(spec: object, choices: object) -> dict[str, float]:
        asked.append(spec)
        return {"cost": float(len(asked)), "merit": 1.0}

    context = Context(SPACE, SETTINGS, INPUTS, {}, study.trials, study.goals, {}, 36, rank=rank, budget=60)
    sampler = get_sampler("topology", unscreened=0.0, offspring=6)
    proposal = sampler.propose(context, np.random.default_rng(0))
    assert 1 <= len(asked) <= 6
    # Equal merit, growing cost: the first one is the cheapest.
    assert proposal.spec == asked[0]
    assert len(table) == 5


def test_the_papers_own_evolution_can_be_had() -> None:
    study = ran("random")
    context = Context(SPACE, SETTINGS, INPUTS, {}, study.trials, study.goals, {}, 36, budget=60)
    plain = get_sampler("topology", initial=1, offspring=1, spread=False, mutation=0, depth_mutation=0, crossover=0)
    parents = {trial.spec for trial in study.trials}
    rng = np.random.default_rng(0)
    assert all(plain.propose(context, rng).spec in parents for _ in range(50))
    # Depths come from a parent's modules; patterns of fusions, which have four choices here, change at their own rate.
    pairs = {(trial.spec.genes["stage3.depth"], trial.spec.genes["stage3.fusion"]) for trial in study.trials}
    fixed = get_sampler("topology", initial=1, offspring=1, spread=False, mutation=0.5, depth_mutation=0)
    depths = {tuple(trial.spec.genes[f"stage{stage}.depth"] for stage in (2, 3, 4)) for trial in study.trials}
    seen = [fixed.propose(context, rng).spec.genes for _ in range(50)]
    assert {(genes["stage3.depth"], genes["stage3.fusion"]) for genes in seen} - pairs
    for stage in (2, 3, 4):
        known = {depth[stage - 2] for depth in depths}
        assert {genes[f"stage{stage}.depth"] for genes in seen} <= known
    spread = get_sampler("topology", initial=1, offspring=1, mutation=0, depth_mutation=0, crossover=0)
    assert all(spread.propose(context, rng).spec in parents for _ in range(50))


def test_aging_changes_one_gene_and_more_when_children_are_known() -> None:
    study = ran("random")
    parents = [trial.spec for trial in study.trials]

    def changes(attempt: int) -> set[int]:
        context = Context(SPACE, SETTINGS, INPUTS, {}, study.trials, study.goals, {}, 36, attempt=attempt, budget=60)
        rng = np.random.default_rng(1)
        found = set()
        for _ in range(40):
            child = get_sampler("aging", sample=36).propose(context, rng).spec
            found.add(min(sum(child.genes[key] != parent.genes[key] for key in child.genes) for parent in parents))
        return found

    assert changes(0) <= {0, 1}
    assert 1 in changes(0)
    assert max(changes(30)) > 1


def test_rates_of_mutation_go_by_what_choices_are() -> None:
    whole = get_space("scalenas")
    two = whole.gene_table(whole.settings({"width": 8, "depths": [1, 2]}))
    assert mutation_rates(two, 0.5, 0.0) == {"depth": 0.0, "fuse": 0.5}
    assert mutation_rates(SPACE.gene_table(SPACE.settings(SETTINGS)), 0.5, 0.0) == {"depth": 0.0, "fuse": 0.5}


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("topolgy", {}, "unknown sampler 'topolgy'.*topology"),
        ("topology", {"mutatoin": 0.1}, "mutatoin.*mutation"),
        ("topology", {"mutation": 1.5}, "mutation is 1.5; a probability is in 0..1"),
        ("topology", {"parents": 0}, "parents is 0"),
        ("aging", {"sample": 0}, "sample is 0"),
        ("topology", {"offspring": 2.5}, "offspring is 2.5; needed is a whole number from 1"),
        ("topology", {"crossover": "often"}, "crossover is 'often'; a probability is in 0..1"),
        ("aging", {"population": True}, "population is True"),
        ("nsga2", {"crossover": -1.0}, "crossover is -1"),
        ("nsga2", {"population": 1}, "population is 1; needed is a whole number from 2"),
        # What has no "by itself" takes no null either.
        ("topology", {"offspring": None}, "offspring is None"),
        ("topology", {"spread": "no"}, "spread is 'no'; needed is true or false"),
        ("aging", {"sample": None}, "sample is None"),
        ("nsga2", {"crossover": None}, "crossover is None"),
        ("nsga2", {"swapping": None}, "swapping is None"),
        ("random", {"stratified": "nonsense"}, "stratified is 'nonsense'; needed is true or false"),
    ],
)
def test_bad_samplers_and_options_are_named(name: str, options: dict[str, Json], text: str) -> None:
    with pytest.raises(UserError, match=text):
        get_sampler(name, **options)


def test_a_sampler_of_another_package_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("mine", f"{__name__}:Smallest", "scalenas.samplers")
    broken = importlib.metadata.EntryPoint("broken", "no.such.module:Sampler", "scalenas.samplers")
    odd = importlib.metadata.EntryPoint("odd", "scalenas.search:search", "scalenas.samplers")
    module = importlib.import_module("scalenas.search.samplers")
    monkeypatch.setattr(module, "entry_points", lambda group: [point, broken, odd] if group == module.GROUP else [])
    monkeypatch.setitem(__import__("sys").modules, __name__, __import__("sys").modules[Smallest.__module__])
    assert list_samplers() == [*NAMES, "broken", "mine", "odd"]
    study = ran(get_sampler("mine"), n_trials=3)
    assert study.trials[0].spec == SPACE.min(SETTINGS, INPUTS)
    assert [trial.origin for trial in study.trials] == ["mine", "fallback", "fallback"]
    with pytest.raises(UserError, match=r"sampler 'broken' \(no.such.module:Sampler\) cannot be loaded"):
        get_sampler("broken")
    with pytest.raises(UserError, match="sampler 'odd' must be a class"):
        get_sampler("odd")
    point = importlib.metadata.EntryPoint("theirs", f"{__name__}:Smallest", "scalenas.samplers")
    with pytest.raises(UserError, match="sampler 'theirs' calls itself 'mine'"):
        get_sampler("theirs")


class Smallest(Sampler):
    """Always the same net."""

    name = "mine"

    def propose(self, context: Context, rng: np.random.Generator) -> Proposal:
        return Proposal(context.space.min(context.settings, context.inputs), {}, "mine")
