"""`explain`: which step moves a result, on one picture."""

from __future__ import annotations

from pathlib import Path

import click

from scalenas_export.cli.common import emit, run_folder, verb
from scalenas_export.cli.tables import table


@verb("explain")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("picture", type=click.Path(path_type=Path))
@click.option("--target", multiple=True, help="backend:device/precision; all of the bundle's by default.")
@click.option("--boxes", type=click.Path(path_type=Path), help="Person boxes: COCO detections JSON.")
@click.option("--trust", is_flag=True, help="Load native engines from other machines.")
def command(
    *, bundle: Path, picture: Path, target: tuple[str, ...], boxes: Path | None, trust: bool, as_json: bool
) -> None:
    """Run PICTURE through every step of BUNDLE and name the first that moves a joint or a class.

    The steps: pre-processing, the fp32 graph, each engine, decoding. A page with pictures goes to runs/explain/<n>.
    """
    from scalenas_export.explain import explain, page
    from scalenas_runtime.boxes import read_boxes
    from scalenas_runtime.bundle import Bundle
    from scalenas_runtime.canonical import Json, pretty_json
    from scalenas_runtime.files import write_text
    from scalenas_runtime.sources import open_source

    opened = Bundle.open(bundle, trust=trust)
    frame = next(iter(open_source(picture)))
    found = read_boxes(boxes).of(frame).boxes if boxes else None
    explanation = explain(opened, frame.picture, targets=target, boxes=found)
    folder = run_folder("explain")
    value: dict[str, Json] = {
        "bundle": str(bundle),
        "picture": str(picture),
        "verdict": explanation.verdict,
        "first": explanation.first.name if explanation.first else None,
        "joints_found": explanation.found,
        "steps": [step.to_json() for step in explanation.steps],
        "page": str(folder / "index.html"),
    }
    write_text(folder / "explain.json", pretty_json(value))
    write_text(folder / "index.html", page(explanation, f"{opened.manifest.name} on {picture.name}"))
    rows = [
        [step.name, step.against, f"{step.moved:.4g}", "moves" if step.moves else "-", ", ".join(step.names[:4])]
        for step in explanation.steps
    ]
    heads = ("step", "held against", "moved", "verdict", "which")
    none_found = "no joint is above the threshold, so all were followed\n" if explanation.found == 0 else ""
    text = f"{table(heads, rows)}\n{none_found}{explanation.verdict}\n{folder / 'index.html'}\n"
    emit(value, text, as_json=as_json)
