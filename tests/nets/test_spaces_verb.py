"""The verb `spaces`: what it prints and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from scalenas.names import resolve_spec
from scalenas.spec import SubnetSpec
from scalenas_export.cli.app import run


def spaces(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    assert run(["spaces", *arguments]) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_table_names_families_nets_and_units(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = spaces(capsys)
    assert "scalenas: HRNet with elastic depths" in out
    assert "10^96.04 subnets" in out
    assert "params (M)  MACs/2^30 (G)  MACs/10^9" in out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    assert rows["hrnet-w32"] == ["pose", "32", "256x192", "28.536", "7.120", "7.645"]
    assert rows["scalenet-s4"] == ["segmentation", "48", "1024x2048", "67.550", "673.588", "723.259"]
    assert "Counting: published" in out


def test_json_holds_the_plain_counts(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = spaces(capsys, "--json", "--counting", "live", "--size", "384x288")
    value: dict[str, Any] = json.loads(out)
    nets = {(net["name"], net["task"]): net for net in value["nets"]}
    assert f"{nets['scalenet-p3', 'pose']['params'] / 1e6:.3f}" == "26.168"
    assert f"{nets['scalenet-p3', 'pose']['macs'] / 2**30:.3f}" == "14.319"
    assert nets["scalenet-p3", "pose"]["size"] == "384x288"
    assert nets["scalenet-p1", "pose"]["params"] < 28_484_000 - 2 * 64 * 64 * 9
    assert value["families"][0]["name"] == "scalenas"
    assert value["counting"] == "live"


def test_one_net_is_shown_by_part_and_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    target = tmp_path / "p1.json"
    out, err = spaces(capsys, "scalenet-p1", "--size", "256x256", "--joints", "16", "--write", str(target))
    assert "34 | 334 443 443 443 | 3433 3444 3433   91 blocks, 130 fusions" in out
    assert "total, live" in out
    assert f"wrote {target}" in err
    assert SubnetSpec.read(target) == resolve_spec("scalenet-p1", size=(256, 256), joints=16)
    out, _ = spaces(capsys, str(target), "--json")
    detail: dict[str, Any] = json.loads(out)
    assert sum(block["macs"] for block in detail["blocks"]) == detail["total"]["macs"]
    assert sum(part["params"] for part in detail["parts"]) == detail["total"]["params"]
    assert detail["digest"] == SubnetSpec.read(target).digest
    assert detail["live"]["macs"] < detail["total"]["macs"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nothing"], "error: unknown net 'nothing'"),
        (["hrnet-w32", "--size", "250x192"], "error: input size 250x192"),
        (["hrnet-w32", "--size", "250"], "'250' is not HEIGHTxWIDTH such as 256x192"),
        (["max", "--width", "-2"], "error: setting width is -2; needed is an even positive number"),
        (["--width", "32"], "need a SPEC: scalenas-export spaces SPEC"),
        (["--write", "x.json"], "need a SPEC"),
        (["missing.json"], "error: there is no spec file missing.json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_end_with_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], text: str) -> None:
    out, err = spaces(capsys, *arguments, code=2)
    assert out == ""
    assert text in err
    assert len(err.splitlines()) == 1


def test_a_failed_write_leaves_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    _, err = spaces(capsys, "hrnet-w32", "--write", str(tmp_path / "file" / "spec.json"), code=2)
    assert err.startswith("error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
