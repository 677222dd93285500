"""What the figures of a search mean, in sentences: nothing that a figure depends on is left out."""

from __future__ import annotations

from collections.abc import Sequence

from scalenas_export.search.progress import Front
from scalenas_export.search.request import Finalist, SearchRequest, SearchResult
from scalenas_runtime.measure.job import FLAGS
from scalenas_runtime.targets import EngineConfig

COST_MEANING = "Parameters and MACs are those of what is computed, for one picture."


def latency_meaning(request: SearchRequest, result: SearchResult, *, confirmed: bool, config: EngineConfig) -> str:
    """Returns what a latency of the search is: figure, boundary, persons, engine, threads, batch, grade and drift."""
    threads = "the engine's own number of threads" if config.threads is None else _count(config.threads, "thread")
    place = f"{config.target}, {threads}, batch {config.batch}"
    if request.precisions:
        place += f", precision one of {', '.join(request.precisions)}"
    grades = f"candidates at grade search, drift-corrected against {result.reference} in the same process"
    if confirmed:
        grades += f"; finalists at grade {request.final_grade}, in fresh processes, 95 % intervals"
        if request.final_grade == "report":
            grades += ", the engine built anew in each"
    question = str(request.question)
    if request.question.boundary == "pipeline" and request.question.persons == 1 and _is_of_people(result):
        question += ", 1 person"
    return f"Latency: {question} on {place}; {grades}."


def accuracy_meaning(result: SearchResult) -> str:
    """Returns what an accuracy of the search is: metric, pictures, and whether they are drawn."""
    if result.judged is None:
        return "Accuracy was not measured."
    metric = next(
        (
            str(details["metric"])
            for trial in result.study.trials
            for details in trial.details.values()
            if "metric" in details
        ),
        "the recipe's metric",
    )
    text = f"Accuracy: {metric} on {_count(result.judged.pictures, 'picture')} of {result.judged.title}"
    if result.judged.synthetic:
        text += ", all drawn (synthetic: it says little about photographs)"
    statistics = result.study.head.identity["statistics"]
    return f"{text}, through the same engine, BN statistics {statistics} anew for each net."


def meaning(request: SearchRequest, result: SearchResult) -> str:
    """Returns the closing sentences of a search, one a line."""
    confirmed = bool(result.finalists)
    lines = [latency_meaning(request, result, confirmed=confirmed, config=config) for config in request.configs]
    lines += [accuracy_meaning(result), COST_MEANING]
    flags = {flag for finalist in result.finalists for flag in finalist.measurement.flags}
    lines += [f"{flag}: {text}." for flag, text in FLAGS.items() if flag in flags]
    return "\n".join(lines)


def chart_footnote(request: SearchRequest, result: SearchResult, front: Front) -> str:
    """Returns what the figures of one chart mean."""
    config = next(config for config in request.configs if str(config.target) == front.title)
    confirmed = any(finalist.target == front.title for finalist in result.finalists)
    if not front.is_latency:
        return f"{COST_MEANING} {accuracy_meaning(result)} Bars: 95 % intervals."
    latency = latency_meaning(request, result, confirmed=confirmed, config=config)
    return f"{latency} {accuracy_meaning(result)} Bars: 95 % intervals."


def promise(request: SearchRequest, finalists: Sequence[Finalist]) -> str:
    """Returns what can be promised about the budget: which nets keep it with the upper end of their interval."""
    if request.latency_ms is None or not request.promise:
        return ""
    if not finalists:
        targets = ", ".join(str(config.target) for config in request.configs)
        return (
            f"Budget, {request.question} at most {request.latency_ms:g} ms on {targets}: nothing was measured "
            "again, so nothing is promised."
        )
    lines = []
    for config in request.configs:
        own = [finalist for finalist in finalists if finalist.target == str(config.target)]
        found = [finalist.label for finalist in own if finalist.keeps and not finalist.member]
        members = [finalist.label for finalist in own if finalist.keeps and finalist.member]
        budget = f"Budget, {request.question} at most {request.latency_ms:g} ms on {config.target}:"
        if found:
            lines.append(f"{budget} kept by {', '.join(dict.fromkeys(found))} (upper end of the 95 % interval).")
        elif members:
            kept = ", ".join(dict.fromkeys(members))
            lines.append(f"{budget} of the finalists only the named {kept} keeps it (upper end of the 95 % interval).")
        else:
            lines.append(f"{budget} the upper end of no finalist's 95 % interval keeps it.")
    return "\n".join(lines)


def _is_of_people(result: SearchResult) -> bool:
    return result.study.head.settings.get("task", "pose") == "pose"


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"
