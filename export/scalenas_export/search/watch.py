"""`Watch`: follows a search, tells the view, and says when to stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from scalenas.search import Study, Trial
from scalenas_export.search.rows import measured_interval
from scalenas_export.search.setup import Frame
from scalenas_export.search.view import View
from scalenas_runtime.errors import UserError

# So many failures in a row are the device's, not the candidates'.
FAILURES = 5
# After so many candidates over the budget, the smallest member among them, it is out of reach.
HOPELESS = 20


@dataclass
class Watch:
    """Follows a search: tells the view, and says when to stop.

    Attributes:
        frame: What all candidates have in common.
        view: Shows what is going on.
        asked: Says whether the user wants an end.
        failures: Of the candidates in a row that could not be measured.
        hopeless: Nothing will meet the budget, as far as can be said.
        told_slow: It was said that candidates go the slow way.
    """

    frame: Frame
    view: View
    asked: Callable[[], bool]
    failures: list[str] = field(default_factory=list)
    hopeless: bool = False
    told_slow: bool = False

    def on_trial(self, study: Study, trial: Trial) -> None:
        """Takes note of a finished candidate."""
        trials = study.trials
        self.view.trial(trials, trial)
        slow = next((details["slow_graph"] for details in trial.details.values() if "slow_graph" in details), None)
        if slow is not None and not self.told_slow:
            self.told_slow = True
            self.view.note(f"candidates go through the full export, which takes some ten times longer: {slow}")
        if trial.state == "failed":
            self.failures.append(trial.failure)
        else:
            self.failures.clear()
        if not self.hopeless and len(trials) >= HOPELESS and self._is_out_of_reach(study):
            self.hopeless = True
            self.view.note(
                f"none of {len(trials)} candidates meets the budget, and the smallest net is over it by more than its "
                "95 % interval: the search ends here"
            )

    @property
    def broken(self) -> UserError | None:
        """Why the search ended early: so many in a row could not be measured that it must be the device."""
        if len(self.failures) < FAILURES:
            return None
        return UserError(
            f"{FAILURES} candidates in a row could not be measured, so that the search ended early; the last one: "
            f"{self.failures[-1]}"
        )

    def stop(self) -> bool:
        """Returns whether to begin no further candidate."""
        return self.broken is not None or self.hopeless or self.asked()

    def _is_out_of_reach(self, study: Study) -> bool:
        """Returns whether nothing met the budget, and the smallest net broke it clearly at every precision and size."""
        trials = study.trials
        if "min" not in self.frame.members or any(each.state == "complete" for each in trials):
            return False
        smallest = self.frame.space.live(self.frame.members["min"]).digest
        broken = [each for each in trials if each.candidate.digest == smallest and _breaks_clearly(each, study.limits)]
        return len(broken) >= len(self.frame.deployments)


def _breaks_clearly(trial: Trial, limits: Mapping[str, float]) -> bool:
    """Returns whether a figure's 95 % interval lies over its limit as a whole; the figure, where it has none."""
    for name, upper in limits.items():
        interval = measured_interval(trial, name)
        low = trial.values.get(name) if interval is None else interval[0]
        if low is not None and low > upper:
            return True
    return False
