"""Each score of the catalogue on arrays of counts."""

import barograph as bg
import numpy as np
import pytest

A = np.random.default_rng(0).multinomial(100_000, np.full(10, 0.1)).astype(float)
B = np.random.default_rng(1).multinomial(100_000, np.full(10, 0.1)).astype(float)
FINE = [np.random.default_rng(s).multinomial(1_000_000, np.full(1000, 0.001)).astype(float) for s in (0, 1)]
ROWS = np.random.default_rng(2).normal(size=(2, 5000, 4))
SCORES = {
    "psi": lambda: bg.scores.psi(A, B),
    "psi_total": lambda: bg.scores.psi_total(A, B),
    "jensen_shannon": lambda: bg.scores.jensen_shannon(A, B),
    "total_variation": lambda: bg.scores.total_variation(A, B),
    "kullback_leibler": lambda: bg.scores.kullback_leibler(A, B),
    "hellinger": lambda: bg.scores.hellinger(A, B),
    "chi_square": lambda: bg.scores.chi_square(A, B),
    "cramers_v": lambda: bg.scores.cramers_v(A, B),
    "l_infinity": lambda: bg.scores.l_infinity(A, B),
    "kolmogorov_smirnov": lambda: bg.scores.kolmogorov_smirnov(*FINE),
    # null_share, nonfinite_share, out_of_range_share and unseen_share are one test.
    "mmd": lambda: bg.scores.mmd(*ROWS),
    "sliced_wasserstein": lambda: bg.scores.sliced_wasserstein(*ROWS),
    "pca_reconstruction": lambda: bg.scores.pca_reconstruction(*ROWS),
    "domain_classifier": lambda: bg.scores.domain_classifier(*ROWS),
    "null_share": lambda: bg.scores.share_change((1000, 100_000), (1200, 100_000)),
}


@pytest.mark.parametrize("name", SCORES)
def test_score(benchmark, name):
    benchmark(SCORES[name])


# wasserstein_clipped, energy and, for names, distinct_share come with it too.
def test_wasserstein_and_wasserstein_normalised_come_with_the_report(benchmark):
    rng = np.random.default_rng(0)
    reference = bg.Reference({"x": rng.normal(size=10_000)})
    current = bg.profile({"x": rng.normal(size=10_000)}, reference=reference)
    benchmark(bg.compare, reference, current)
