"""The public contract suite on ScaleNAS, on a family of a user's own, and on families that break it."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from scalenas.graph import Graph
from scalenas.registry import get_space
from scalenas.space import SearchSpace
from scalenas.spaces.scalenas import ScaleNasSpace
from scalenas.spec import SubnetSpec
from scalenas.testing import SPACE_CHECKS, Case, check_space, check_supernet
from scalenas_runtime.canonical import Json
from scalenas_runtime.errors import UserError

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_space.py"


def own_space() -> SearchSpace:
    found = importlib.util.spec_from_file_location("own_space", EXAMPLE)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    space = module.SPACE
    assert isinstance(space, SearchSpace)
    return space


OWN = own_space()
SCALENAS = get_space("scalenas")
CASES = [
    Case(OWN),
    Case(OWN, {"width": 4, "joints": 3}),
    Case(SCALENAS),
    Case(SCALENAS, {"task": "segmentation", "width": 18}, count=10),
    Case(SCALENAS, {"modules": [1, 2, 1], "depths": [1, 3], "width": 8}),
    Case(SCALENAS, {"modules": [2, 1, 2], "depths": [4], "width": 2, "stage1_blocks": 1}),
    Case(SCALENAS, {"modules": [1, 1, 1], "depths": [1, 2, 5], "task": "segmentation"}),
]


def name_of(case: Case) -> str:
    return f"{case.space.name}-{'-'.join(f'{key}{value}' for key, value in case.settings.items()) or 'default'}"


@pytest.mark.parametrize("check", SPACE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_families_keep_the_contract(case: Case, check: Callable[[Case], None]) -> None:
    check(case)


@pytest.mark.parametrize(
    "case",
    [Case(OWN, count=4), Case(SCALENAS, {"modules": [1, 1, 1], "depths": [1, 3], "width": 4, "joints": 2}, count=4)],
    ids=name_of,
)
def test_supernets_of_families_keep_the_contract(case: Case) -> None:
    import torch

    threads = torch.get_num_threads()
    # Maps of a few pixels: handing them to several threads takes longer than computing them.
    torch.set_num_threads(1)
    try:
        check_supernet(case, size=(64, 32))
    finally:
        torch.set_num_threads(threads)


def test_a_family_of_your_own_takes_at_most_sixty_lines() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 60


class Shrunken(type(OWN)):  # type: ignore[misc]
    """Gives a supernet the modules of its smallest subnet alone."""

    def supergraph(self, settings: Mapping[str, Json] | None = None, inputs: object = None) -> Graph:
        smallest: Graph = self.graph(self.min(settings))
        return smallest


class Forgetful(ScaleNasSpace):
    """Keeps dead parts in the live form."""

    def live(self, spec: SubnetSpec) -> SubnetSpec:
        return self.max(spec.settings)


@pytest.mark.parametrize(
    ("space", "text"),
    [
        (Shrunken(), r"node trunk\.block1 of .* is not in the supergraph"),
        (Forgetful(), "the live form of .* computes something else"),
    ],
    ids=["supergraph", "live"],
)
def test_the_suite_finds_broken_families(space: SearchSpace, text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        check_space(Case(space))


def test_default_form_of_genes_is_strict_too() -> None:
    spec = OWN.max()
    for genes, text in (
        ({**spec.genes, "deptj": 1}, r"unknown gene 'deptj' \(did you mean 'depth'\?\); known: depth, wide"),
        ({"depth": 1}, "gene wide is missing"),
        ({"depth": 4, "wide": True}, "gene depth is 4; allowed: 1, 2, 3"),
        ({"depth": True, "wide": True}, "gene depth is True; allowed: 1, 2, 3"),
    ):
        with pytest.raises(UserError, match=text):
            OWN.validate(SubnetSpec(OWN.name, spec.settings, spec.inputs, genes))
    for settings, text in (
        ({"widht": 8}, r"unknown setting of tiny 'widht' \(did you mean 'width'"),
        ({"width": "8"}, "setting width of tiny is '8'; needed is a value like 8"),
        ({"task": "segmentation"}, "setting task is 'segmentation'; tiny has pose"),
    ):
        with pytest.raises(UserError, match=text):
            OWN.settings(settings)


PLUGIN = """
from importlib.metadata import entry_points
from scalenas.names import list_models, resolve_spec
from scalenas.overview import families, list_text, named_nets
from scalenas.registry import get_space, list_spaces
from scalenas_runtime.errors import UserError
print(list_spaces())
print(list_models("tiny*"), resolve_spec("tiny/max", width=4).space, get_space("tiny").title)
print(list_text(families(), named_nets(), "published"))
for name in ("broken", "nospace"):
    try:
        get_space(name)
    except UserError as error:
        print(error)
"""


LISTING = """
import sys
from scalenas_export.cli import main
sys.argv[1:] = ["spaces"]
main()
"""


def test_families_of_other_packages_register_by_entry_point(tmp_path: Path) -> None:
    (tmp_path / "own_space.py").write_text(EXAMPLE.read_text())
    info = tmp_path / "own_family-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-family\nVersion: 1.0\n")

    def run(*lines: str) -> list[str]:
        (info / "entry_points.txt").write_text("\n".join(["[scalenas.spaces]", *lines]))
        code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{PLUGIN}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    lines = run("tiny = own_space:SPACE")
    assert lines[0] == "['scalenas', 'tiny']"
    assert lines[1].startswith("['tiny/max', 'tiny/min'] tiny one branch, elastic depth")
    # The table calls a net what `resolve_spec` takes.
    assert sum(line.startswith(("tiny/max  ", "tiny/min  ")) for line in lines) == 2
    assert lines[-2] == "unknown family 'broken'; known: scalenas, tiny"
    # One that cannot be loaded takes nothing away from the others.
    (tmp_path / "unfinished.py").write_text("raise RuntimeError('not yet')\n")
    lines = run("tiny = own_space:SPACE", "half = unfinished:SPACE", "other = own_space:SPACE")
    assert lines[1].startswith("['tiny/max', 'tiny/min']")
    assert sum(line.startswith(("tiny/max  ", "hrnet-w32  ")) for line in lines) == 2
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{LISTING}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "left out: family 'half' (unfinished:SPACE) cannot be loaded: not yet" in done.stderr
    assert "left out: family 'other' calls itself 'tiny'" in done.stderr
    assert "hrnet-w32" in done.stdout


def test_broken_families_of_other_packages_are_named(tmp_path: Path) -> None:
    info = tmp_path / "own_family-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-family\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[scalenas.spaces]\nbroken = no_such_module:SPACE\nnospace = math:pi\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + PLUGIN.replace(
        'print(list_models("tiny*"), resolve_spec("tiny/max", width=4).space, get_space("tiny").title)', ""
    ).replace('print(list_text(families(), named_nets(), "published"))', "")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "family 'broken' (no_such_module:SPACE) cannot be loaded: No module named 'no_such_module'" in done.stdout
    assert "family 'nospace' must be a scalenas.space.SearchSpace instance, got 3.14" in done.stdout


def test_layers_are_asked_for_before_a_net_is_built() -> None:
    from scalenas.static import static_net
    from scalenas.supernet import Supernet

    class Asked(type(OWN)):  # type: ignore[misc]
        asked: ClassVar[list[str]] = []

        def layers(self) -> None:
            self.asked.append("layers")

        def build(self, spec: SubnetSpec) -> Graph:
            self.asked.append("build")
            graph: Graph = super().build(spec)
            return graph

    space = Asked()
    static_net(space.max(), space=space)
    Supernet(space)
    assert space.asked[0] == "layers"
    assert space.asked.count("layers") == 2
