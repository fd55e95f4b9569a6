"""What an earlier version wrote is read by this one, and gives the numbers it gave then."""

from __future__ import annotations

import copy
import json
import pickle
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import barograph as bg
import numpy as np
import pytest

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent / "e2e")]

from sidecar_folder import numbers_of_folder  # noqa: E402
from states import STATES  # noqa: E402

VERSIONS = sorted(path.parent for path in HERE.glob("*/numbers.json"))
CASES = [(folder, path.stem) for folder in VERSIONS for path in sorted(folder.glob("*.baro"))]


def assert_equal(found: Any, wanted: Any, where: str = "") -> None:
    """Equal; floats but for the last bits, which another processor's logarithm may round otherwise."""
    if isinstance(wanted, dict):
        # A later version may know more of a thing; what was there stays.
        assert set(found) >= set(wanted), where
        for key, value in wanted.items():
            assert_equal(found[key], value, f"{where}.{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for at, (one, other) in enumerate(zip(found, wanted, strict=True)):
            assert_equal(one, other, f"{where}[{at}]")
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-11, abs=1e-14), where
    else:
        assert found == wanted, where


def as_read(numbers: Any) -> Any:
    """As JSON keeps them."""
    return json.loads(json.dumps(numbers, allow_nan=False))


@pytest.mark.parametrize(("folder", "name"), CASES, ids=lambda one: one if isinstance(one, str) else one.name)
def test_an_old_state_is_read_and_goes_on(folder, name):
    wanted = json.loads((folder / "numbers.json").read_text(encoding="utf-8"))[name]
    state = STATES[name]
    assert_equal(as_read(state.numbers(state.read((folder / f"{name}.baro").read_bytes()))), wanted, name)


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: folder.name)
def test_a_sidecar_goes_on_from_an_old_folder(folder, tmp_path):
    wanted = json.loads((folder / "numbers.json").read_text(encoding="utf-8"))["sidecar"]
    shutil.copytree(folder / "sidecar", tmp_path / "data")
    found = as_read(numbers_of_folder(tmp_path))
    # Windows that were open then may have closed before they were asked for.
    found["history"] = found["history"][: len(wanted["history"])]
    assert_equal(found, wanted, "sidecar")


@pytest.mark.parametrize("name", STATES)
def test_this_version_writes_and_reads_the_same_numbers(name):
    state = STATES[name]
    data = state.write(state.make())
    first, second = (as_read(state.numbers(state.read(data))) for _ in range(2))
    assert first == second


def test_every_kind_of_snapshot_is_kept():
    kinds = re.search(r"pub enum SnapshotKind \{(.*?)\n\}", (HERE.parents[1] / "rust/core/src/codec.rs").read_text(), re.S)
    assert kinds
    kept = {state.kind for state in STATES.values()}
    # A delta is on its way between two sidecars, and nothing in Python makes one: its bytes are held in `rust/engine/tests/fleet.rs`.
    on_its_way = {int(number) for number in re.findall(r"Delta = (\d+),", kinds[1])}
    assert {int(number) for number in re.findall(r"= (\d+),", kinds[1])} - on_its_way == kept - {None}
    for folder in VERSIONS:
        heads = {path.read_bytes()[6] for path in folder.glob("*.baro") if path.read_bytes()[:4] == b"BARO"}
        assert heads <= kept


def test_this_version_has_its_states():
    assert bg.__version__ in [folder.name for folder in VERSIONS], "run tests/snapshots/make_snapshots.py"
    assert {name for folder, name in CASES if folder.name == bg.__version__} == set(STATES)


@pytest.mark.parametrize("name", STATES)
def test_a_pickle_of_a_state_goes_on_as_it_does(name):
    state = STATES[name]
    made = state.make()
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is type(made)
    assert state.write(again) == state.write(made)
    assert state.write(copy.deepcopy(made)) == state.write(made)
    assert as_read(state.numbers(again)) == as_read(state.numbers(made))


def test_a_calibration_of_several_classes_and_its_estimate_pickle():
    draw = np.random.default_rng(0)
    scores = draw.dirichlet((1, 1, 1), 300)
    cbpe = bg.estimates.Cbpe.fit(scores, draw.integers(0, 3, 300), classes=[0, 1, 2])
    assert pickle.loads(pickle.dumps(cbpe)).estimate(scores).to_dict() == cbpe.estimate(scores).to_dict()
    estimate = pickle.loads(pickle.dumps(cbpe.estimate(scores)))
    estimate.update_many(scores)
    twice = cbpe.estimate(np.concatenate([scores, scores]))
    assert estimate.to_dict() == pytest.approx(twice.to_dict(), nan_ok=False)
    named = bg.metrics.MulticlassMetrics(["a", "b"])
    assert pickle.loads(pickle.dumps(named)).classes == ["a", "b"]
