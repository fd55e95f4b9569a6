"""The simulator of a fleet's merge tree (benches/merge_tree.py): nothing lost, nothing twice, and ages that can be worked out by hand."""

import sys
from pathlib import Path

import numpy as np
import pytest
from barograph.scaling.queues import mean_wait

sys.path.insert(0, str(Path(__file__).parents[2] / "benches"))
import merge_tree
from merge_tree import Constants, Deltas, Tree, Trouble, cuts, level, run

sys.path.pop(0)
MERGE, REPEATED = 200e-6, 5e-6
TWO = Tree(sidecars=400, events=50.0, interval=10.0, fan_ins=(20, 20))
DOWN = (100.0, 160.0)


@pytest.mark.parametrize(
    "troubles",
    [
        {},
        {0: Trouble(lost=0.2), 1: Trouble(lost=0.2)},
        {0: Trouble(down=DOWN)},
        {0: Trouble(down=DOWN, nodes=np.array([3])), 1: Trouble(lost=0.5)},
        {1: Trouble(down=DOWN)},
        {0: Trouble(cut_off=0.3, cut=(100.0, 220.0), lost=0.1), 1: Trouble(down=DOWN, lost=0.1)},
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_every_event_is_counted_once_whatever_fails(troubles, together):
    found = run(TWO, MERGE, REPEATED, 300.0, troubles, together, seed=0)
    assert found["counted"] == found["sent"] > 400 * 50 * 200
    lost = troubles.get(0, Trouble()).lost
    # What repeats would have added is what makes the numbers necessary.
    assert found["unguarded"] / found["sent"] - 1 == pytest.approx(lost, abs=0.02)


def test_calm_ages_are_an_interval_a_level():
    one = run(Tree(100, 50.0, 10.0, (100,)), MERGE, REPEATED, 300.0, {}, False, seed=0)
    assert one["age_p50"] == pytest.approx(10.0, abs=0.01)
    two = run(TWO, MERGE, REPEATED, 300.0, {}, False, seed=0)
    # From the first event of a delta: its interval, and then up to another one.
    assert two["age_p50"] == pytest.approx(15.0, abs=0.5)
    assert 19 < two["age_max"] <= 20.1


def test_an_outage_costs_its_length_and_the_back_off_and_the_sender_holds_the_rest():
    found = run(TWO, MERGE, REPEATED, 400.0, {0: Trouble(down=DOWN)}, False, seed=0)
    assert 70 < found["age_max"] < 10 + 60 + 60 + 10 + 1
    assert 6 <= found["levels"][0].most_waiting <= 13


def test_a_line_of_one_aggregator_waits_as_the_formula_says_until_it_saturates():
    rng = np.random.default_rng(0)
    for utilisation in (0.5, 0.8):
        count = int(10 * utilisation / MERGE)
        deltas = cuts(count, 60.0, 10.0, rng.uniform(0, 10, count), 1.0, count, rng)
        found = level(deltas, 1, MERGE, REPEATED, Trouble(), rng)
        mean = (found.done - deltas.at - merge_tree.NETWORK_SECONDS - MERGE).mean()
        assert found.utilisation == pytest.approx(utilisation, rel=0.03)
        assert mean == pytest.approx(mean_wait(1, count / 10, MERGE, 1.0, 0.0), rel=0.15)
    count = int(10 * 1.2 / MERGE)
    deltas = cuts(count, 60.0, 10.0, rng.uniform(0, 10, count), 1.0, count, rng)
    assert level(deltas, 1, MERGE, REPEATED, Trouble(), rng).wait_p99 > 8


def test_a_line_by_hand():
    deltas = Deltas(np.array([0.0, 0.0, 0.1]), np.array([0, 1, 2]), np.zeros(3, int), np.array([1, 2, 4]), np.array([0, 0, 1]))
    found = level(deltas, 2, 1.0, 0.0, Trouble(), np.random.default_rng(0))
    assert found.done.tolist() == pytest.approx([1.001, 2.001, 1.101])
    assert (found.longest_line, found.counted, found.repeated) == (1, 7, 0)


def test_constants_are_measured_and_sizes_lie_between_what_was_measured():
    found = Constants.measured(200, 10, 0.05)
    assert set(found.bytes_of) == {100, 200, 2000}
    assert found.size(100) < found.size(150) < found.size(200) <= found.size(2000)
    assert 0 < found.add < found.merge < 1
    assert 0 < found.observe < 1e-3
    lines = merge_tree.paper(found, TWO, (0.04, 0.01)) + merge_tree.failures(found, TWO, 300.0) + merge_tree.intervals(found, TWO)
    assert not any("nan" in line or "inf" in line for line in lines)
