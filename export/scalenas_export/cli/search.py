"""`search`: the best subnets of a supernet for a device, by measuring engines on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing as closing_study
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from scalenas_export.cli.common import SIZE, STATISTICS, emit, note, resume_line, verb, working_folder
from scalenas_export.cli.tables import table
from scalenas_runtime.errors import UserError

if TYPE_CHECKING:
    from scalenas_export.search.request import SearchRequest
    from scalenas_export.search.view import LineView, LiveView, View
    from scalenas_runtime.canonical import Json

_FOLDER = click.Path(path_type=Path)
# Options that the request has under the same name.
_SAME = (
    "latency_ms",
    "metric",
    "limit",
    "calibration",
    "statistics",
    "sampler",
    "seed",
    "n_trials",
    "timeout",
    "storage",
    "study_name",
    "resume",
    "join",
    "warm_start",
    "warm_start_study",
    "replay",
    "finalists",
    "final_grade",
    "export_best",
    "device_timeout",
)


@verb("search")
@click.option("--weights", required=True, help="W.safetensors of a supernet, or the name of shipped ones.")
@click.option(
    "--target", multiple=True, required=True, help="backend:device/precision; again for one front per device."
)
@click.option("--latency-ms", type=float, help="Budget of every target; without it the whole front is searched.")
@click.option("--boundary", default="engine_wall", show_default=True, help="engine_wall, pipeline, paced@<fps>, ...")
@click.option("--stat", type=click.Choice(["median", "p90", "p95", "p99"]), default="median", show_default=True)
@click.option("--persons", type=int, default=1, show_default=True, help="Boxes a picture, for the boundary pipeline.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of one inference.")
@click.option("--data", help="D.yaml whose splits calibrate and search are used; drawn pictures without it.")
@click.option("--data-root", help="Folder that the paths in the data's description start at.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a key of the data's description.")
@click.option("--metric", type=click.Choice(["pck", "pckh", "oks"]), help="Of joints; by the recipe otherwise.")
@click.option("--limit", type=int, help="Judge candidates on the first so many pictures of the split.")
@click.option("--calibration", type=int, default=64, show_default=True, help="Pictures that BN statistics come from.")
@click.option("--statistics", type=click.Choice(["transferred", "measured"]), help=STATISTICS)
@click.option("--objective", multiple=True, help="latency, accuracy, params or macs; again for more. By the budget.")
@click.option("--precision-gene", multiple=True, metavar="PRECISION", help="Search the precision too: one of these.")
@click.option("--size-gene", multiple=True, type=SIZE, help="Search the input size too: one of these.")
@click.option("--sampler", default="topology", show_default=True, help="topology, aging, nsga2, random, or your own.")
@click.option("--sampler-option", multiple=True, metavar="KEY=VALUE", help="An option of the sampler; again for more.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all random choices.")
@click.option("--n-trials", type=int, help="Candidates the study has in the end, earlier ones included.")
@click.option("--timeout", type=float, help="Seconds after which no candidate is begun.")
@click.option("--storage", help="File or URL of the study: study.db, postgresql+psycopg://...; in --out otherwise.")
@click.option("--study-name", default="search", show_default=True, help="Name of the study in its storage.")
@click.option("--resume", is_flag=True, help="Go on with the study of --out, or of the last search here.")
@click.option("--join", is_flag=True, help="Work on a study that others began, and leave its finish to them.")
@click.option("--enqueue", multiple=True, metavar="SPEC", help="Measure this net first, after HRNet's; again for more.")
@click.option("--warm-start", metavar="OLD.db", help="Measure the front of an earlier study first.")
@click.option("--warm-start-study", metavar="NAME", help="Name of that study, where its storage has several.")
@click.option("--replay", type=_FOLDER, metavar="RECORDS.jsonl", help="Take figures from a file in place of measuring.")
@click.option("--finalists", type=int, default=3, show_default=True, help="Measure so many again, in fresh processes.")
@click.option("--final-grade", type=click.Choice(["standard", "report"]), default="report", show_default=True)
@click.option("--export-best", type=int, default=0, metavar="K", help="Make bundles of the best K finalists.")
@click.option("--device-timeout", type=float, default=120.0, show_default=True, help="Seconds a device may be silent.")
@click.option("--dry-run", is_flag=True, help="Measure three candidates, print candidates an hour, and stop.")
@click.option("--out", type=_FOLDER, help="Folder of the run; runs/search/<n> where left out.")
@click.option("--runs", type=_FOLDER, default="runs", show_default=True, help="Folder of all runs.")
def command(*, as_json: bool, **options: Any) -> int:
    """Search a supernet for the subnets that are most accurate on TARGET, under a latency budget or along the front.

    Every candidate is compiled and timed on the device, and judged through the same engine on the `search` split.
    Ctrl-C finishes the candidate in flight (exit code 130); --resume goes on, also after kill -9. Exit code 3:
    nothing meets the budget.
    """
    from scalenas_export.extras import need_search_extras

    need_search_extras()
    from scalenas_export.search.view import open_view

    view = open_view(note)
    if options["dry_run"]:
        with TemporaryDirectory(prefix="scalenas-search-") as place:
            _dry_run(_request({**options, "n_trials": options["n_trials"] or 3}, Path(place)), view, as_json=as_json)
        return 0
    # Once before there is a folder, so that a wrong option leaves none.
    _request(options, Path())
    # A study in a storage of its own may be reported on from anywhere: what else lies in runs is another's.
    here = options["storage"] is None or options["out"] is not None
    resume = options["resume"] and here
    folder = working_folder("search", options["out"], options["runs"], resume=resume, holds="study.db")
    return _search(_request(options, folder), view, as_json=as_json)


def _search(request: SearchRequest, view: LineView | LiveView, *, as_json: bool) -> int:
    """Searches, reports, and returns the exit code."""
    from scalenas_export.interrupts import AFTER_CANDIDATE, INTERRUPTED, Interrupts
    from scalenas_export.search.finalists import check_promise
    from scalenas_export.search.report import closing, heads, result_json, table_rows, write_reports
    from scalenas_export.search.run import run_search

    try:
        with Interrupts(view.note, AFTER_CANDIDATE) as stop:
            result = run_search(request, view=view, stop=stop)
    except KeyboardInterrupt:
        view.end()
        note(f"stopped; go on with {resume_line(request.folder)}")
        raise
    finally:
        view.end()
    with closing_study(result.study):
        rows = table_rows(request, result)
        shown = table(heads(request), rows) if rows else "no candidate has both a cost and an accuracy"
        sentences = closing(request, result)
        files = write_reports(request, result, f"{shown}\n\n{sentences}\n", note=note)
        lines = [shown, "", sentences, *(f"{label}: {path}" for label, path in result.bundles.items())]
        lines += [f"wrote {', '.join(str(path) for path in files.values())}"]
        if result.ended == "stopped":
            lines.append(
                f"stopped after {len(result.study.trials)} candidates; go on with {resume_line(request.folder)}"
            )
        emit(result_json(request, result, files), "\n".join(lines) + "\n", as_json=as_json)
        check_promise(request, result)
    return INTERRUPTED if stop() else 0


def _dry_run(request: SearchRequest, view: View, *, as_json: bool) -> None:
    from scalenas_export.search.run import dry_run

    found = dry_run(request, view=view)
    emit(found.to_json(), found.text(), as_json=as_json)


def _request(options: Mapping[str, Any], folder: Path) -> SearchRequest:
    from scalenas_export.search.data import DataSource
    from scalenas_export.search.meter import LatencyQuestion
    from scalenas_export.search.request import SearchRequest
    from scalenas_runtime.targets import EngineConfig, Target

    if options["join"] and not options["storage"]:
        raise UserError("--join works on a study that others began: say where it is with --storage")
    if options["data"] is None and (options["data_root"] or options["changes"]):
        raise UserError("--data-root and --set go with --data; without it pictures are drawn")
    targets = [Target.parse(text) for text in dict.fromkeys(options["target"])]
    return SearchRequest(
        **{name: options[name] for name in _SAME},
        weights=options["weights"],
        configs=tuple(EngineConfig(target, options["threads"]) for target in targets),
        folder=folder,
        question=LatencyQuestion(options["boundary"], options["stat"], options["persons"]),
        objectives=options["objective"],
        data=DataSource(description=options["data"], root=options["data_root"], changes=options["changes"]),
        precisions=options["precision_gene"],
        sizes=options["size_gene"],
        sampler_options=_pairs(options["sampler_option"]),
        enqueue=options["enqueue"],
    )


def _pairs(texts: Sequence[str]) -> dict[str, Json]:
    """Returns options of a sampler; values are read as YAML, so that 3 is a number and true a truth value."""
    import yaml

    pairs: dict[str, Json] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not (key and sign):
            raise UserError(f"--sampler-option takes KEY=VALUE, such as population=40, got {text!r}")
        try:
            pairs[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"the value of --sampler-option {text!r} is not YAML") from None
    return pairs
