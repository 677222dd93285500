"""Canonical JSON and digests are the same everywhere and differ where the records differ."""

import hashlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalenas_runtime.canonical import Json, canonical_json, digest, pretty_json, weights_digest

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)


@given(VALUES)
def test_canonical_json_reads_back_to_the_same_value(value: Json) -> None:
    assert json.loads(canonical_json(value)) == value
    assert json.loads(pretty_json(value)) == value


def test_canonical_json_is_these_bytes() -> None:
    value: Json = {"b": [1, 2.5, True, None], "a": {"é": "x"}}
    assert canonical_json(value) == '{"a":{"é":"x"},"b":[1,2.5,true,null]}'
    assert digest(value) == hashlib.sha256('{"a":{"é":"x"},"b":[1,2.5,true,null]}'.encode()).hexdigest()


def test_key_order_does_not_matter() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_json_does_not_have_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json([value])


def test_keys_that_are_not_strings_are_refused() -> None:
    with pytest.raises(TypeError, match="keys of canonical JSON are strings, got 1"):
        canonical_json({"a": {1: "x"}})  # type: ignore[dict-item]


def test_weights_digest_ignores_order_and_sees_every_part() -> None:
    tensors: list[tuple[str, str, tuple[int, ...], bytes]] = [
        ("b", "float32", (1,), b"\0\0\x80\x3f"),
        ("a", "float32", (2,), b"\0" * 8),
    ]
    reference = weights_digest(tensors)
    assert weights_digest(reversed(tensors)) == reference
    changed: list[list[tuple[str, str, tuple[int, ...], bytes]]] = [
        [("c", *tensors[0][1:]), tensors[1]],
        [(tensors[0][0], "int32", *tensors[0][2:]), tensors[1]],
        [(*tensors[0][:2], (1, 1), tensors[0][3]), tensors[1]],
        [(*tensors[0][:3], b"\0\0\x80\x40"), tensors[1]],
        [tensors[0]],
    ]
    assert reference not in {weights_digest(other) for other in changed}


def test_weights_digest_cannot_be_fooled_by_moving_bytes_between_tensors() -> None:
    left = [("a", "uint8", (2,), b"\1\2"), ("b", "uint8", (1,), b"\3")]
    right = [("a", "uint8", (1,), b"\1"), ("b", "uint8", (2,), b"\2\3")]
    assert weights_digest(left) != weights_digest(right)
