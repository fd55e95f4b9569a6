"""Scores of rows find a correlation that no column shows, and stay silent where there is none."""

import barograph as bg
import numpy as np
import pytest

RUNS = 40


def sides(seed, rho, n, d=3):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n, d))
    b[:, 1] = rho * b[:, 0] + np.sqrt(1 - rho**2) * b[:, 1]
    return a, b


@pytest.mark.parametrize("name", ["mmd", "sliced_wasserstein", "domain_classifier"])
def test_power_at_a_correlation_of_a_half(name):
    found = sum(getattr(bg.scores, name)(*sides(seed, 0.5, 5000)).p_value <= 0.01 for seed in range(RUNS))
    assert found >= 0.9 * RUNS, found


@pytest.mark.parametrize("name", ["mmd", "sliced_wasserstein", "domain_classifier", "pca_reconstruction"])
def test_size_where_nothing_changed(name):
    found = sum(getattr(bg.scores, name)(*sides(seed, 0.0, 500)).p_value <= 0.05 for seed in range(200))
    # 5 % of 200 are 10; 21 or more have a chance of 0.1 %.
    assert found <= 20, found


def test_mmd_keeps_its_size_for_sides_of_unequal_length_and_for_rows_that_resemble_their_neighbours():
    unequal = neighbours = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        a, b = rng.normal(size=(5000, 2)), rng.normal(size=(300, 2))
        unequal += bg.scores.mmd(a, b).p_value <= 0.05
        walk = rng.normal(size=(4000, 2))
        for at in range(1, len(walk)):
            walk[at] = 0.5 * walk[at - 1] + np.sqrt(0.75) * walk[at]
        neighbours += bg.scores.mmd(walk[:2000], walk[2000:]).p_value <= 0.05
    assert unequal <= 13, unequal
    assert neighbours <= 13, neighbours
