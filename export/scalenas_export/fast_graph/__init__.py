"""From a static net to an engine's graph in a fraction of a second: what search measures, not what bundles ship."""

from scalenas_export.fast_graph.candidate import CandidateGraph, candidate_graph
from scalenas_export.fast_graph.writer import CannotEmit, GraphWriter, Value

__all__ = ["CandidateGraph", "CannotEmit", "GraphWriter", "Value", "candidate_graph"]
