"""The spec record: identity, freezing, strict reading."""

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalenas.registry import get_space
from scalenas.spec import SCHEMA, SubnetSpec
from scalenas_runtime.canonical import Json, digest
from scalenas_runtime.errors import UserError

SPACE = get_space("scalenas")
SPEC = SubnetSpec(
    "scalenas", {"width": 32, "depths": [2, 3]}, {"image": (3, "height", 192)}, {"stage2.0": {"depth": [2, 3]}}
)

json_values: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), json_values, max_size=4), st.dictionaries(st.text(), json_values, max_size=4))
def test_any_record_survives_json(some: dict[str, Json], genes: dict[str, Json]) -> None:
    spec = SubnetSpec("family", some, {"image": [3, 64, "width"]}, genes)  # type: ignore[dict-item]
    again = SubnetSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.digest == spec.digest == digest(spec.to_json())
    assert again.to_json() == spec.to_json()


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["pose", "segmentation"]), st.sampled_from([2, 18, 32, 48]))
def test_any_sample_survives_json_and_normalising(seed: int, task: str, width: int) -> None:
    spec = SPACE.sample(np.random.default_rng(seed), settings={"task": task, "width": width})
    again = SubnetSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert SPACE.normalise(again) == spec
    assert again.digest == spec.digest


def test_digest_is_the_same_in_another_process_and_hash_seed() -> None:
    code = (
        "import numpy as np; from scalenas.registry import get_space; s = get_space('scalenas');"
        "print(s.sample(np.random.default_rng(7)).digest, s.named()['scalenet-p1'].digest)"
    )
    results = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    here = SPACE.sample(np.random.default_rng(7)).digest, SPACE.named()["scalenet-p1"].digest
    assert results == {" ".join(here) + "\n"}


def test_digests_of_published_nets_stay_as_released() -> None:
    # Caches and bundles key on these; a change here orphans them.
    assert SPACE.named()["scalenet-p1"].digest[:16] == "08f87db335d4da75"


def test_order_of_keys_and_kind_of_sequence_do_not_matter() -> None:
    first = SubnetSpec("f", {"a": 1, "b": [1, 2]}, {"image": (3, 64, 64)}, {"x": 1, "y": 2})
    second = SubnetSpec("f", {"b": (1, 2), "a": 1}, {"image": (3, 64, 64)}, {"y": 2, "x": 1})
    assert first == second
    assert len({first, second}) == 1


def test_true_and_one_are_different_values() -> None:
    assert SubnetSpec("f", {"a": True}, {}, {}) != SubnetSpec("f", {"a": 1}, {}, {})
    assert SPEC != "a spec"


def test_spec_is_frozen_all_the_way_down() -> None:
    source: dict[str, Json] = {"depth": [2, 3]}
    spec = SubnetSpec("f", {}, {}, {"stage2.0": source})
    depth = source["depth"]
    assert isinstance(depth, list)
    depth.append(4)
    module = spec.genes["stage2.0"]
    assert isinstance(module, Mapping)
    assert module["depth"] == (2, 3)
    with pytest.raises(TypeError, match="item assignment"):
        module["depth"] = ()  # type: ignore[index]
    with pytest.raises(AttributeError):
        spec.space = "g"  # type: ignore[misc]


def test_spec_can_be_pickled_copied_and_pasted() -> None:
    assert pickle.loads(pickle.dumps(SPEC)) == SPEC
    assert copy.deepcopy(SPEC) == SPEC
    assert eval(repr(SPEC), {"SubnetSpec": SubnetSpec}) == SPEC
    assert pickle.loads(pickle.dumps(SPEC.settings)) == SPEC.settings


def plain(**changes: object) -> dict[str, object]:
    value: dict[str, object] = {**SPEC.to_json(), **changes}
    return {key: item for key, item in value.items() if item is not ...}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1], r"must be a JSON object with the keys schema, space, .*got \[1\]"),
        (plain(genez={}), r"unknown key 'genez'; known: schema, space, settings, inputs, genes"),
        (plain(genes=...), r"the key 'genes' is missing"),
        (plain(schema="scalenas.spec/2"), rf"schema is 'scalenas.spec/2', this version reads '{SCHEMA}'"),
        (plain(space=3), r"space must be the name of a family, got 3"),
        (plain(settings=[]), r"settings must be an object of names and values, got \[\]"),
        (plain(genes=None), r"genes must be an object of names and values, got None"),
        (plain(inputs={"image": 3}), r"inputs\['image'\] must be a list of positive sizes .*got 3"),
        (plain(inputs={"image": [3, 0, 192]}), r"inputs\['image'\] must be .*got \[3, 0, 192\]"),
        (plain(inputs={"image": [3, True, 192]}), r"inputs\['image'\] must be .*True"),
        (plain(inputs={"image": [3, "h w", 192]}), r"inputs\['image'\] must be .*'h w'"),
        (plain(genes={"a": {"b": {1}}}), r"genes\['a'\]\['b'\] must hold JSON values, got \{1\} of type set"),
        (plain(genes={"a": {2: 1}}), r"keys of genes\['a'\] must be strings, got 2"),
        (plain(settings={"a": float("nan")}), r"settings\['a'\] is nan, which JSON does not have"),
    ],
)
def test_malformed_records_are_refused(value: object, text: str) -> None:
    with pytest.raises(UserError, match=text):
        SubnetSpec.from_json(value)


def test_file_round_trip_and_malformed_files(tmp_path: Path) -> None:
    SPEC.write(tmp_path / "spec.json")
    assert SubnetSpec.read(tmp_path / "spec.json") == SPEC
    broken = tmp_path / "broken.json"
    for data in (b"{", b"\xff\xfe", b"[" * 100_000):
        broken.write_bytes(data)
        with pytest.raises(UserError, match=r"broken\.json is not a spec file: it is not JSON"):
            SubnetSpec.read(broken)
    broken.write_text("{}")
    with pytest.raises(UserError, match=r"broken\.json: spec: the key 'schema' is missing"):
        SubnetSpec.read(broken)
    broken.write_text('{"genes": {"depth": 1, "depth": 2}}')
    with pytest.raises(UserError, match=r"broken\.json: spec: the key 'depth' stands twice in one object"):
        SubnetSpec.read(broken)
