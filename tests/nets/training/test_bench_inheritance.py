"""Inherited against stand-alone accuracy: nets are matched by spec, and files about other data are refused."""

from __future__ import annotations

from typing import Any

import pytest
from scipy import stats

from benchmarks.bench_inheritance import pairs, ranking
from scalenas_runtime.errors import UserError


def _document(values: dict[str, float], **changes: Any) -> dict[str, Any]:
    rows = [{"name": f"net {key}", "spec_digest": key, "value": value} for key, value in values.items()]
    return {"data": "d.yaml", "part": "val", "limit": None, "rows": rows, **changes}


INHERITED = _document({"a": 0.5, "b": 0.4, "c": 0.3, "d": 0.35, "unused": 0.1})


def test_the_ranking_is_kendalls_tau_over_the_matched_nets() -> None:
    alone = [_document({key: value}) for key, value in {"c": 0.42, "a": 0.6, "d": 0.4, "b": 0.55}.items()]
    found = pairs(INHERITED, alone)
    assert [row["name"] for row in found] == ["net c", "net a", "net d", "net b"]
    result = ranking(found)
    expected = stats.kendalltau([row["inherited"] for row in found], [row["alone"] for row in found]).statistic
    assert result["tau"] == pytest.approx(expected)
    assert result["n"] == 4
    low, high = result["interval"]
    assert -1 <= low <= result["tau"] <= high <= 1
    assert ranking(found[:3])["interval"] is None


def test_files_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(UserError, match=r"part is 'test' for a net alone and 'val' for the supernet"):
        pairs(INHERITED, [_document({"a": 0.5}, part="test")])
    with pytest.raises(UserError, match=r"no net of the spec z"):
        pairs(INHERITED, [_document({"z": 0.5})])
    with pytest.raises(UserError, match=r"a ranking needs two nets or more, got 1"):
        pairs(INHERITED, [_document({"a": 0.5})])
