"""Predictions of a study's own figures, learnt from its trials while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scalenas.search.candidates import Trial
from scalenas.search.options import StudyHead
from scalenas.search.predictor import AdditivePredictor, Features, block_features, place_features
from scalenas.space import SearchSpace
from scalenas.spec import SubnetSpec

# Fewer measurements do not settle even the coarse model.
LEAST = 10
# Nets whose features are kept: more than are proposed for one candidate.
KEPT = 256


class Ranker:
    """One predictor per measure and combination of choices."""

    def __init__(self, space: SearchSpace, head: StudyHead) -> None:
        self._space = space
        self._names = {name: _is_cost(name, head) for name in head.predict}
        self._models: dict[tuple[str, tuple[tuple[str, str], ...]], AdditivePredictor] = {}
        self._learnt: set[int] = set()
        self._known: dict[str, dict[bool, Features]] = {}

    @property
    def is_ready(self) -> bool:
        """Whether some measure can be predicted."""
        return any(len(model) >= LEAST for model in self._models.values())

    def learn(self, trials: Sequence[Trial]) -> None:
        """Adds the trials that are new since the last call."""
        if not self._names:
            return
        # Those of other workers may come late, with lower numbers than some that are known.
        for trial in [trial for trial in trials if trial.number not in self._learnt]:
            self._learnt.add(trial.number)
            features = self._features(trial.spec)
            for name, is_cost in self._names.items():
                if name in trial.values:
                    place = name, _chosen(trial.choices)
                    model = self._models.setdefault(place, AdditivePredictor(non_negative=is_cost))
                    model.add(features[is_cost], trial.values[name])

    def rank(self, spec: SubnetSpec, choices: Mapping[str, str]) -> dict[str, float]:
        """Returns the predicted figures by name; nothing for measures of which too little is known."""
        ready = {}
        for name, is_cost in self._names.items():
            model = self._models.get((name, _chosen(choices)))
            if model is not None and len(model) >= LEAST:
                ready[name] = is_cost, model
        if not ready:
            return {}
        features = self._features(spec)
        return {name: model.predict(features[is_cost]) for name, (is_cost, model) in ready.items()}

    def _features(self, spec: SubnetSpec) -> dict[bool, Features]:
        # A candidate is ranked among its siblings, when it is drafted, and learnt when it is measured.
        if spec.digest not in self._known:
            self._known[spec.digest] = self._new_features(spec)
            if len(self._known) > KEPT:
                del self._known[next(iter(self._known))]
        return self._known[spec.digest]

    def _new_features(self, spec: SubnetSpec) -> dict[bool, Features]:
        # What costs time adds up over kinds of blocks; what makes a net good depends on where they stand.
        result: dict[bool, Features] = {}
        if True in self._names.values():
            result[True] = block_features(self._space, spec)
        if False in self._names.values():
            result[False] = place_features(self._space, spec)
        return result


def _chosen(choices: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(choices.items()))


def _is_cost(name: str, head: StudyHead) -> bool:
    if any(name == limited for limited, *_ in head.limits):
        return True
    return any(name == goal and direction == "minimize" for goal, direction, _ in head.goals)
