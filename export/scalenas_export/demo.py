"""The whole chain in minutes: search a shipped supernet under a budget, export, verify and run what was found."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from scalenas_export.demo_pictures import Picture, drawn_picture, run_apart
from scalenas_export.demo_place import check_folder, claim, distinct
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import MissingExtra, NothingMeetsBudget, UserError
from scalenas_runtime.targets import EngineConfig, Target

if TYPE_CHECKING:
    from scalenas.weights import Weights
    from scalenas_export.calibration import Calibration
    from scalenas_export.search.request import Finalist, SearchRequest, SearchResult
    from scalenas_export.search.view import View
    from scalenas_runtime.measure import Measurement

# The fastest first: the demo searches on the first that works here.
TARGETS = ("openvino:cpu/bf16", "openvino:cpu/fp32", "onnxruntime:cpu/fp32")
# Shipped supernets, the best first: the demo searches the first that is there.
POSE_WEIGHTS = ("pose-w16", "pose-w8-drawn")
STREET_WEIGHTS = "seg-w16"
# The budget, where none is given: this share of what the HRNet member takes.
BUDGET_SHARE = 1 / 1.3
DIFFERS = "DIFFERS"
HEADS = ("net", "role", "accuracy", "95 %", "median ms", "95 %", "p90 ms", "params", "engine MB", "golden pictures")


@dataclass(frozen=True, slots=True)
class DemoRequest:
    """What the demo does.

    Attributes:
        folder: Where bundles, pictures and the search's files go: new, empty, or that of an earlier demo, whose files
            are replaced.
        pose: Weights of the supernet that is searched; None for the first of `POSE_WEIGHTS` that is shipped.
        street: Weights of the supernet whose HRNet member is exported beside; None leaves it out.
        target: Engine, None for the first of `TARGETS` that works here.
        seconds: How long the search may take.
        n_trials: Candidates, None for as many as there is time for.
        latency_ms: Budget, None for the member's latency times `BUDGET_SHARE`.
        data: A `data.yaml` whose splits `calibrate` and `search` candidates are judged on; None for drawn pictures.
        data_root: Folder that its paths start at, in place of its own.
        limit: Judge candidates on the first so many pictures.
        pictures: Pictures of the user's that both nets also run on.
        final_grade: How thoroughly the winner and the members are measured at the end.
    """

    folder: Path
    pose: str | None = None
    street: str | None = None
    target: Target | None = None
    seconds: float = 150.0
    n_trials: int | None = None
    latency_ms: float | None = None
    data: str | None = None
    data_root: str | None = None
    limit: int | None = None
    pictures: tuple[Path, ...] = ()
    final_grade: str = "report"


@dataclass(frozen=True, slots=True)
class Exported:
    """A bundle that was verified, with the name of its net and the size of its engine in bytes."""

    name: str
    bundle: Path
    size: int
    verdict: str


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo made.

    Attributes:
        rows: Rows under `HEADS`.
        sentences: What the figures mean.
        files: Bundles and overlays, by what they are.
        missed: Why nothing meets the budget; empty where something does.
        differing: Nets whose engine does not agree with the golden pictures.
        stopped: The user ended the search, so that no winner was confirmed.
    """

    rows: tuple[tuple[str, ...], ...]
    sentences: str
    files: dict[str, Path]
    missed: str
    differing: tuple[str, ...] = ()
    stopped: bool = False

    def to_json(self) -> dict[str, Json]:
        """Returns the result as JSON values."""
        return {
            "rows": [dict(zip(_KEYS, row, strict=True)) for row in self.rows],
            "meaning": self.sentences,
            "files": {name: str(path) for name, path in self.files.items()},
            "missed": self.missed,
            "differing": list(self.differing),
        }


_KEYS = ("net", "role", "accuracy", "accuracy_95", "median_ms", "median_95", "p90_ms", "params", "engine_mb", "golden")


def demo(request: DemoRequest, *, view: View, stop: Callable[[], bool]) -> DemoResult:
    """Searches, exports, verifies and runs, and returns what came out.

    Raises:
        UserError: no engine works here, weights are not there, a picture cannot be read, the budget is no finite
            number above 0, the data cannot be read, or the folder holds files that no demo wrote.
    """
    from scalenas_export.search.report import write_reports
    from scalenas_export.search.wording import meaning, promise
    from scalenas_export.weight_sources import find_weights

    check_folder(request.folder)
    asked_ms = request.latency_ms
    if request.data is None and request.data_root is not None:
        raise UserError("--data-root goes with --data; without it pictures are drawn")
    if asked_ms is not None and not (isfinite(asked_ms) and asked_ms > 0):
        raise UserError(f"the budget must be a finite number of milliseconds above 0, got {asked_ms}")
    target = request.target or usable_target(view.note)
    config = EngineConfig(target)
    name = request.pose or shipped_pose()
    pose = find_weights(name).weights
    calibration = _calibration(request, pose)
    street = None if request.street is None else find_weights(request.street).weights
    for path in request.pictures:
        if not path.is_file():
            raise UserError(f"there is no picture {path}")
    claim(request.folder)
    view.note("== the HRNet member of the pose supernet")
    member = _export_member(name, pose, request.folder / "pose-hrnet.bundle", target, view, calibration)
    took = _headline(member.bundle, config)
    budget = round(took * BUDGET_SHARE, 3) if asked_ms is None else asked_ms
    view.note(
        f"== search: {member.name} takes {took:.3f} ms; at most {budget:g} ms, for at most {request.seconds:.0f} s"
    )
    asked, result = _search(replace(request, pose=name), config, (took, budget), view, stop)
    with closing(result.study):
        kept = _kept(result) if asked_ms is None else promise(asked, result.finalists)
        sentences = "\n".join(part for part in (kept, meaning(asked, result)) if part)
        files = write_reports(asked, result, sentences, note=view.note)
        exported = {name: _verified(path, target) for name, path in result.bundles.items()}
        rows = [
            _finalist_row(each, exported.get(each.label, member if each.label == member.name else None), result)
            for each in result.finalists
        ]
        missed = _missed(asked, result)
    bundles = {"hrnet": member.bundle, **{f"found {name}": path for name, path in result.bundles.items()}}
    files |= bundles
    shown = _shown("pose", request)
    for name, bundle in bundles.items():
        for label, picture in shown.items():
            view.note(f"== {name} on {picture.path.name}, in a process without torch")
            out = request.folder / f"{bundle.stem}-{label}"
            files[_file_key(name, label, picture)] = run_apart(bundle, picture, out, str(target))
    differing = [each.name for each in (member, *exported.values()) if each.verdict == DIFFERS]
    if request.street is not None and street is not None:
        row = _street(request, (request.street, street), config, files, view)
        rows.append(row)
        differing += [row[0]] if row[-1] == DIFFERS else []
    stopped = result.ended == "stopped"
    return DemoResult(tuple(rows), sentences, files, missed, tuple(dict.fromkeys(differing)), stopped)


def _shown(task: str, request: DemoRequest) -> dict[str, Picture]:
    """Returns the pictures that nets of a task run on, a drawn one first, by names that are theirs alone."""
    pictures = [drawn_picture(task, request.folder), *map(Picture, request.pictures)]
    return dict(zip(distinct(picture.path.stem for picture in pictures), pictures, strict=True))


def _file_key(name: str, label: str, picture: Picture) -> str:
    file = picture.path.name
    return f"{name} on {file}" if label == picture.path.stem else f"{name} on {file} ({label})"


def usable_target(progress: Callable[[str], None]) -> Target:
    """Returns the first of the demo's targets that this machine can run; says why one is passed over.

    Raises:
        UserError: none can.
    """
    from scalenas_runtime.backends import get_backend

    for text in TARGETS:
        target = Target.parse(text)
        try:
            get_backend(target.backend).check(target)
        except (UserError, MissingExtra) as error:
            progress(f"left out: {error}")
        else:
            return target
    raise UserError("no engine is installed; add one with: pip install 'scalenas-export[onnxruntime]'")


def shipped_pose() -> str:
    """Returns the name of the supernet that is searched where none is named.

    Raises:
        UserError: none is shipped here.
    """
    from scalenas.shipped import shipped_weights

    shipped = shipped_weights()
    for name in POSE_WEIGHTS:
        if name in shipped:
            return name
    raise UserError(
        f"the demo searches shipped weights ({' or '.join(POSE_WEIGHTS)}) in the folder weights/, and none are here; "
        "train some as docs/training.md shows and name them with --weights"
    )


def _search(
    request: DemoRequest,
    config: EngineConfig,
    latencies: tuple[float, float],
    view: View,
    stop: Callable[[], bool],
) -> tuple[SearchRequest, SearchResult]:
    from scalenas_export.search.data import DataSource
    from scalenas_export.search.request import SearchRequest
    from scalenas_export.search.run import run_search
    from scalenas_runtime.files import new_directory

    assert request.pose is not None
    folder = request.folder / "search"
    with new_directory(folder, overwrite=True):
        pass
    asked = SearchRequest(
        weights=request.pose,
        configs=(config,),
        folder=folder,
        latency_ms=latencies[1],
        headlines={str(config.target): latencies[0]},
        promise=request.latency_ms is not None,
        data=DataSource(description=request.data, root=request.data_root),
        limit=request.limit,
        n_trials=request.n_trials,
        timeout=request.seconds,
        # Two minutes are a few dozen candidates: offspring must begin early.
        sampler_options={"initial": 9, "parents": 8},
        finalists=1,
        final_grade=request.final_grade,
        export_best=1,
    )
    return asked, run_search(asked, view=view, stop=stop)


def _kept(result: SearchResult) -> str:
    """Returns what the found nets take of the member's time in the same run; the machine's pace drops out."""
    found = [each for each in result.finalists if each.label != result.reference and each.ratio is not None]
    shares = ", ".join(f"{each.label} {each.ratio:.2f}" for each in found)
    return (
        f"Of {result.reference}'s latency in the same run, asked at most {BUDGET_SHARE:.2f}: {shares}." if found else ""
    )


def _missed(asked: SearchRequest, result: SearchResult) -> str:
    """Returns why nothing meets the budget; empty where something does."""
    from scalenas_export.search.finalists import check_promise

    try:
        check_promise(asked, result)
    except NothingMeetsBudget as error:
        return str(error)
    if result.ended == "stopped":
        return ""
    found = [each for each in result.finalists if each.label != result.reference and each.ratio is not None]
    if asked.promise or any(each.ratio is not None and each.ratio <= BUDGET_SHARE for each in found):
        return ""
    return f"no found net took at most {BUDGET_SHARE:.2f} of {result.reference}'s latency when measured again"


def _calibration(request: DemoRequest, weights: Weights) -> Calibration | None:
    """Returns the pictures that BN statistics come from where there are data, as the search takes them."""
    from scalenas_export.search.data import DataSource
    from scalenas_export.search.evaluator import CalibrationPictures
    from scalenas_export.search.request import CALIBRATION

    if request.data is None or weights.recipe is None:
        return None
    source = DataSource(description=request.data, root=request.data_root)
    return CalibrationPictures(source, CALIBRATION)(weights.recipe)


def _export_member(
    name: str, weights: Weights, out: Path, target: Target, view: View, calibration: Calibration | None = None
) -> Exported:
    from scalenas.registry import get_space
    from scalenas_export.export_bundle import ExportRequest, export_bundle
    from scalenas_export.packing import Wanted
    from scalenas_export.recipes import spec_recipe
    from scalenas_export.weight_sources import FoundWeights

    recipe = weights.recipe
    found = (
        None if recipe is None else get_space(weights.space).pattern(weights.settings, (recipe.height, recipe.width))
    )
    if found is None or recipe is None:
        raise UserError(f"{name} has no HRNet member to compare with, or no recipe; name other weights")
    wanted = Wanted(found[0], (target,), out, overwrite=True)
    export_bundle(
        ExportRequest(
            found[1],
            spec_recipe(found[1], given=recipe),
            wanted,
            FoundWeights(weights, name),
            calibration=calibration,
            failures=out.parent / "failures",
        ),
        progress=view.note,
    )
    return _verified(out, target)


def _verified(bundle: Path, target: Target) -> Exported:
    from scalenas_runtime.bundle import Bundle
    from scalenas_runtime.verify import verify

    opened = Bundle.open(bundle)
    verdict = "verified" if verify(opened, EngineConfig(target)).verdict.passed else DIFFERS
    size = sum(path.stat().st_size for path in (bundle / "engines").rglob("*") if path.is_file())
    return Exported(opened.manifest.name, bundle, size, verdict)


def _headline(bundle: Path, config: EngineConfig) -> float:
    """Returns the median latency of a bundle in milliseconds, taken as a search takes that of its reference."""
    from scalenas_export.search.meter import LatencyMeter

    with LatencyMeter([config], reference=bundle) as meter:
        return meter.open(config)


def _measured(bundle: Path, config: EngineConfig) -> Measurement:
    from scalenas_runtime.measure import MeasureJob, Plan, run_jobs

    return run_jobs([MeasureJob(bundle, config)], Plan())[0]


def _finalist_row(finalist: Finalist, exported: Exported | None, result: SearchResult) -> tuple[str, ...]:
    from scalenas.cost import LIVE
    from scalenas.registry import get_space
    from scalenas_export.search.report import front_of
    from scalenas_export.search.rows import interval_of

    plan, spec = result.plan, finalist.trial.spec
    front = front_of(finalist, plan)
    accuracy, interval = finalist.trial.values.get(front.gain), interval_of(finalist.trial, plan, front.gain)
    return (
        finalist.label,
        "in the supernet" if finalist.member else "found",
        "-" if accuracy is None else plan.text(front.gain, accuracy),
        "-" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}",
        *_latency_cells(finalist.measurement),
        f"{get_space(spec.space).cost(spec, counting=LIVE).params / 1e6:.2f} M",
        *(("-", "-") if exported is None else (f"{exported.size / 1e6:.1f}", exported.verdict)),
    )


def _street(
    request: DemoRequest, street: tuple[str, Weights], config: EngineConfig, files: dict[str, Path], view: View
) -> tuple[str, ...]:
    """Exports and runs the HRNet member of the street supernet; returns its row, and adds its files."""
    from scalenas.cost import LIVE
    from scalenas.registry import get_space
    from scalenas.spec import SubnetSpec
    from scalenas_runtime.bundle import Bundle

    view.note("== the HRNet member of the street supernet")
    exported = _export_member(*street, request.folder / "street-hrnet.bundle", config.target, view)
    files["street"] = exported.bundle
    for label, picture in _shown("segmentation", request).items():
        out = request.folder / f"street-{label}"
        files[_file_key("street", label, picture)] = run_apart(exported.bundle, picture, out, str(config.target))
    manifest = Bundle.open(exported.bundle).manifest
    spec = SubnetSpec.from_json(manifest.spec)
    params = get_space(spec.space).cost(spec, counting=LIVE).params
    latency = _latency_cells(_measured(exported.bundle, config))
    cells = (*latency, f"{params / 1e6:.2f} M", f"{exported.size / 1e6:.1f}", exported.verdict)
    return (manifest.name, "in the supernet", "-", "-", *cells)


def _latency_cells(measurement: Measurement) -> tuple[str, str, str]:
    statistics = measurement.statistics
    low, high = statistics.interval
    p90 = "-" if statistics.p90 is None else f"{statistics.p90:.2f}"
    return f"{statistics.median:.2f}", f"{low:.2f} to {high:.2f}", p90
