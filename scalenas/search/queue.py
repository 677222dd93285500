"""From proposals to candidates of a study, and what a study measures first."""

from __future__ import annotations

from collections.abc import Mapping

from scalenas.search.candidates import Candidate, make_candidate
from scalenas.search.options import SearchOptions, StudyHead
from scalenas.search.samplers.base import Proposal
from scalenas.search.storage import Storage, shown, study_names
from scalenas.search.study import Study
from scalenas.space import SearchSpace
from scalenas.spec import SubnetSpec
from scalenas_runtime.canonical import canonical_json
from scalenas_runtime.errors import UserError

WARM_START = 20


def candidate_of(space: SearchSpace, head: StudyHead, proposal: Proposal, *, number: int) -> Candidate:
    """Returns the candidate of a proposal, with the study's inputs.

    Raises:
        UserError: the spec is of another family or supernet, or not valid; a choice is unknown, missing or has a value
            that the study does not search.
    """
    spec = proposal.spec
    if spec.space != head.space:
        raise UserError(f"a spec of family {spec.space!r} was proposed; this study searches {head.space!r}")
    settings = space.settings(spec.settings)
    for name, value in head.settings.items():
        if canonical_json(settings[name]) != canonical_json(value):  # type: ignore[arg-type]
            raise UserError(f"a spec with {name} {settings[name]!r} was proposed; this study's supernet has {value!r}")
    _check_choices(proposal.choices, head.choices)
    inputs = {name: tuple(shape) for name, shape in head.inputs.items()}
    own = SubnetSpec(spec.space, settings, inputs, spec.genes)
    return make_candidate(space, number, own, proposal.choices, identity=head.digest)


def starting_queue(space: SearchSpace, head: StudyHead, options: SearchOptions) -> list[tuple[Candidate, str]]:
    """Returns the candidates to measure before the sampler is asked, with their origins; their numbers mean nothing.

    A proposal that leaves choices out takes the first value of each.

    Raises:
        UserError: a proposal does not fit the study, or the study to start from is not there or of another family.
    """
    first = {name: values[0] for name, values in head.choices.items()}
    proposals = [(proposal, "enqueued") for proposal in options.enqueue]
    if options.warm_start is not None:
        proposals += [(proposal, "warm-start") for proposal in _earlier_front(options.warm_start, head, options)]
    return [
        (candidate_of(space, head, Proposal(item.spec, {**first, **item.choices}), number=0), origin)
        for item, origin in proposals
    ]


def _earlier_front(storage: Storage, head: StudyHead, options: SearchOptions) -> list[Proposal]:
    """Returns what is best in an earlier study, to be measured anew: its front, then what its samplers found last.

    Choices that the study of `head` does not have are left out.

    Raises:
        UserError: the storage has no such study, several of which none is named, or one of another family.
    """
    name = options.warm_start_study
    if name is None:
        # A search that is resumed may lie beside the study that it started from.
        names = [each for each in study_names(storage) if each != options.name] or [options.name]
        if len(names) > 1:
            known = ", ".join(map(repr, names))
            raise UserError(f"{shown(storage)} has the studies {known}; say which one (--warm-start-study)")
        (name,) = names
    study = Study.open(storage, name)
    try:
        if study.head.space != head.space:
            raise UserError(
                f"{shown(storage)} is a study of family {study.head.space!r}; this one searches {head.space!r}"
            )
        return [Proposal(trial.spec, _shared(trial.choices, head.choices)) for trial in study.elite(WARM_START)]
    finally:
        study.close()


def _shared(choices: Mapping[str, str], known: Mapping[str, list[str]]) -> dict[str, str]:
    return {name: value for name, value in choices.items() if value in known.get(name, ())}


def _check_choices(choices: Mapping[str, str], known: Mapping[str, list[str]]) -> None:
    for name in choices:
        if name not in known:
            raise UserError(f"choice {name!r} was proposed; this study has {', '.join(known) or 'none'}")
    for name, values in known.items():
        if name not in choices:
            raise UserError(f"a proposal lacks the choice {name!r}; its values are {', '.join(values)}")
        if choices[name] not in values:
            raise UserError(f"choice {name!r} is {choices[name]!r}; this study searches {', '.join(values)}")
