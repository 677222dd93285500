"""Search over the nets of a family: torch-free, and without knowledge of any backend."""

from scalenas.search.candidates import Candidate, Trial
from scalenas.search.objectives import Constraint, Goal, Measured, MeasureFailed, Objective
from scalenas.search.options import SearchOptions, StudyHead
from scalenas.search.run import search
from scalenas.search.samplers import Context, Proposal, Sampler, get_sampler, list_samplers
from scalenas.search.study import Study

__all__ = [
    "Candidate",
    "Constraint",
    "Context",
    "Goal",
    "MeasureFailed",
    "Measured",
    "Objective",
    "Proposal",
    "Sampler",
    "SearchOptions",
    "Study",
    "StudyHead",
    "Trial",
    "get_sampler",
    "list_samplers",
    "search",
]
