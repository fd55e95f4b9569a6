"""Distances of a current sample from its reference: of two column profiles, or of two arrays of counts of the same bins.

| score | range | test | choose it for |
|---|---|---|---|
| `psi` | 0 to inf | tolerance, any sample size | the verdict: it is what alerts rest on |
| `share_change` | -1 to 1 | absolute tolerance | nulls, unseen and out-of-range values |
| `psi_total` | 0 to inf | none | numbers comparable with tools that give nulls a bin |
| `jensen_shannon` | 0 to 1 | none | a bounded metric, comparable between columns |
| `total_variation` | 0 to 1 | none | "at most this share of rows changed its bin" |
| `l_infinity` | 0 to 1 | none | the one category that moved most |
| `hellinger` | 0 to 1 | none | a bounded metric that weighs rare bins more |
| `kullback_leibler` | 0 to ln(K/0.001) | none | the one-sided cost of the reference as a model |
| `chi_square` | 0 to n + m | no difference at all | one-off comparisons of small samples |
| `cramers_v` | 0 to 1 | none | the strength behind a chi-square |
| `kolmogorov_smirnov` | 0 to 1 | certified interval | ordered bins, no smoothing |
| `wasserstein` | 0 to inf | certified interval | how far values moved, in their own unit |
| `wasserstein_normalised` | 0 to inf | certified interval | the same in standard deviations of the reference |
| `wasserstein_clipped` | 0 to inf | certified interval | the same without the tails |
| `energy` | 0 to inf | certified interval | how far values moved, outliers weighing little |
| `null_share`, `nonfinite_share`, `unseen_share` | -1 to 1 | absolute tolerance | the shares of two column profiles |
| `distinct_share` | -1 to 1 | none | names per row |
| `sliced_wasserstein` | 0 to inf | no difference at all | rows of several numbers: how far, in standard deviations |
| `mmd` | 0 to 4 | no difference at all | rows of several numbers, any kind of change; blocks of dependent rows |
| `domain_classifier` | 0 to 1 | no difference at all | rows of several numbers: how well the sides can be told apart |
| `pca_reconstruction` | any | no difference of the mean | rows that used to lie near a plane |

Column profiles made with the same reference are compared in its bins, united into ten for the scores that need large counts; others in the
cells of their histograms. Nulls and what is not finite stay out. Nothing is ever NaN: counts that do not make a distance are an
InvalidArgumentError, columns of different kinds an IncompatibleError.

>>> a, b = (__import__("barograph").profile({"x": [float(i % 40 + shift) for i in range(1000)]})["x"] for shift in (0, 10))
>>> psi(a, b).value > 1, round(wasserstein(a, b).value)
(True, 10)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from barograph import _barograph
from barograph.errors import InvalidArgumentError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Side: TypeAlias = ArrayLike | _barograph.ColumnProfile

_Fields: TypeAlias = tuple[float, float | None, float | None, str | None, float | None, list[float]]

__all__ = [
    "Score",
    "chi_square",
    "cramers_v",
    "distinct_share",
    "domain_classifier",
    "energy",
    "hellinger",
    "jensen_shannon",
    "kolmogorov_smirnov",
    "kullback_leibler",
    "l_infinity",
    "mmd",
    "nonfinite_share",
    "null_share",
    "pca_reconstruction",
    "psi",
    "psi_total",
    "share_change",
    "sliced_wasserstein",
    "total_variation",
    "unseen_share",
    "wasserstein",
    "wasserstein_clipped",
    "wasserstein_normalised",
]


UNIONS = 10
"""Unions of bins that column profiles are compared in, where counts must be large."""


@dataclass(frozen=True)
class Score:
    """A distance with what is known about it; what does not exist is None.

    `interval` is "certain" where `lower` and `upper` bound the exact statistic of the two samples, "confidence" where they are
    one-sided confidence limits. `p_value` belongs to the test the function names. `contributions`: what each bin adds.
    """

    value: float
    lower: float | None
    upper: float | None
    interval: str | None
    p_value: float | None
    contributions: tuple[float, ...]

    @classmethod
    def _of(cls, fields: _Fields) -> Score:
        value, lower, upper, interval, p_value, contributions = fields
        return cls(value, lower, upper, interval, p_value, tuple(contributions))


def psi(reference: Side, current: Side, *, tolerance: float = 0.1, confidence: float = 0.99, smoothing: float = 0.5) -> Score:
    """Population stability index of two rows of counts, with the variance-adapted test of a tolerance.

    `p_value` is that of "PSI is at most `tolerance`"; `lower` and `upper` are one-sided limits at `confidence` and belong to no
    tolerance. `smoothing` rows are added to each bin; at the default the size of the test is at most 1.21 % at a nominal 1 %.
    At least two bins; cost: 30 us.

    >>> psi([100, 100, 100], [100, 100, 100]).value
    0.0
    """
    return Score._of(_barograph.psi(*_counts(reference, current), tolerance, confidence, smoothing))


def psi_total(reference: Side, current: Side) -> Score:
    """PSI with shares mixed with a floor of 0.1 %: independent of the number of rows, never above the true PSI; not tested."""
    return Score._of(_barograph.score("psi_total", *_counts(reference, current)))


def jensen_shannon(reference: Side, current: Side) -> Score:
    """Jensen-Shannon distance in bits: `scipy.spatial.distance.jensenshannon(p, q, base=2)`."""
    return Score._of(_barograph.score("jensen_shannon", *_counts(reference, current)))


def total_variation(reference: Side, current: Side) -> Score:
    """Half the sum of the absolute differences of the shares."""
    return Score._of(_barograph.score("total_variation", *_counts(reference, current)))


def l_infinity(reference: Side, current: Side) -> Score:
    """The largest absolute difference of a share."""
    return Score._of(_barograph.score("l_infinity", *_counts(reference, current)))


def kullback_leibler(reference: Side, current: Side) -> Score:
    """`Σ q ln(q / p)` in nats, shares mixed with a floor of 0.1 % so that an empty bin does not make it infinite."""
    return Score._of(_barograph.score("kullback_leibler", *_counts(reference, current)))


def hellinger(reference: Side, current: Side) -> Score:
    """`√(½ Σ (√p − √q)²)`; contributions add up to the square of the value."""
    return Score._of(_barograph.score("hellinger", *_counts(reference, current)))


def chi_square(reference: Side, current: Side) -> Score:
    """Pearson's test that both sides have the same law; `p_value` as `scipy.stats.chi2_contingency(correction=False)`.

    With many rows it fires on differences that mean nothing: `psi` tests a tolerance instead.
    """
    return Score._of(_barograph.score("chi_square", *_counts(reference, current)))


def cramers_v(reference: Side, current: Side) -> Score:
    """`√(χ² / (n + m))` of the 2 × K table of sides and bins."""
    return Score._of(_barograph.score("cramers_v", *_counts(reference, current)))


def kolmogorov_smirnov(reference: Side, current: Side, *, single: Sequence[bool] | None = None) -> Score:
    """The interval that holds the two-sample Kolmogorov-Smirnov statistic, from counts in ordered bins.

    `single[b]`: bin b can hold one value only. The interval is no wider than the largest reference share of another bin.
    """
    if isinstance(reference, _barograph.ColumnProfile) and isinstance(current, _barograph.ColumnProfile):
        if reference.kind != "number":
            raise InvalidArgumentError(f"`reference` must hold numbers, which have an order, got {reference.kind}")
        p, q, known = _barograph.pair(reference, current, None)
        return Score._of(_barograph.kolmogorov(_array("reference", p), _array("current", q), known if single is None else list(single)))
    counts, others = _counts(reference, current)
    return Score._of(_barograph.kolmogorov(counts, others, [False] * len(counts) if single is None else list(single)))


def share_change(
    reference: tuple[float, float], current: tuple[float, float], *, tolerance: float = 0.02, confidence: float = 0.99
) -> Score:
    """Change of a share, `(count, total)` on each side, tested against an absolute tolerance both ways.

    >>> share_change((0, 1000), (300, 1000)).value
    0.3
    """
    return Score._of(_barograph.share(reference, current, tolerance, confidence))


def wasserstein(reference: _barograph.ColumnProfile, current: _barograph.ColumnProfile) -> Score:
    """Wasserstein-1 (earth mover's) distance of two columns of numbers, in their unit, with the interval that holds it for sure."""
    return _distance("wasserstein", reference, current)


def wasserstein_normalised(reference: _barograph.ColumnProfile, current: _barograph.ColumnProfile) -> Score:
    """Wasserstein-1 over the reference's IQR/1.349 (where that is 0: its 5 % to 95 % range/3.29, its standard deviation)."""
    return _distance("wasserstein_normalised", reference, current)


def wasserstein_clipped(reference: _barograph.ColumnProfile, current: _barograph.ColumnProfile) -> Score:
    """Wasserstein-1 with both sides cut to the reference's 0.1 % and 99.9 % quantile."""
    return _distance("wasserstein_clipped", reference, current)


def energy(reference: _barograph.ColumnProfile, current: _barograph.ColumnProfile) -> Score:
    """Energy distance of two columns of numbers, with the interval that holds it for sure."""
    return _distance("energy", reference, current)


def null_share(
    reference: _barograph.ColumnProfile, current: _barograph.ColumnProfile, *, tolerance: float = 0.02, confidence: float = 0.99
) -> Score:
    """Change of the share of nulls; see `share_change`."""
    return _distance("null_share", reference, current, tolerance, confidence)


def nonfinite_share(
    reference: _barograph.ColumnProfile, current: _barograph.ColumnProfile, *, tolerance: float = 0.02, confidence: float = 0.99
) -> Score:
    """Change of the share of NaN and infinities; see `share_change`."""
    return _distance("nonfinite_share", reference, current, tolerance, confidence)


def unseen_share(
    reference: _barograph.ColumnProfile, current: _barograph.ColumnProfile, *, tolerance: float = 0.02, confidence: float = 0.99
) -> Score:
    """Share of current rows with a name that the reference does not have; see `share_change`."""
    return _distance("unseen_share", reference, current, tolerance, confidence)


def distinct_share(reference: _barograph.ColumnProfile, current: _barograph.ColumnProfile) -> Score:
    """Change of distinct names per row."""
    return _distance("distinct_share", reference, current)


def mmd(reference: ArrayLike, current: ArrayLike, *, seed: int = 0) -> Score:
    """Squared maximum mean discrepancy of a Gaussian kernel, by 256 random Fourier features; rows by columns on both sides.

    Columns are scaled by the reference's mean and standard deviation, the bandwidth is the median distance of its rows. `p_value`: of
    "both sides have the same law", by 499 permutations of blocks of rows, so at least 0.002. At least 20 finite rows a side.
    """
    return _of_rows("mmd", reference, current, seed=seed)


def sliced_wasserstein(reference: ArrayLike, current: ArrayLike, *, seed: int = 0) -> Score:
    """Mean Wasserstein-1 distance along 64 random directions, in standard deviations of the reference.

    `p_value`: of "both sides have the same law", the smallest Kolmogorov-Smirnov p-value of the directions times 64.
    `contributions`: the distance along each direction.
    """
    return _of_rows("sliced_wasserstein", reference, current, seed=seed)


def pca_reconstruction(reference: ArrayLike, current: ArrayLike, *, share: float = 0.65, confidence: float = 0.99) -> Score:
    """Mean distance of current rows from the reference's first principal components, minus the same of the reference.

    As many components are kept as explain `share` of the variance, and at least one is left out. `lower` and `upper`: one-sided at
    `confidence`. `p_value`: of "the mean distance is the same". It sees what changes along the components left out, no more.
    """
    return _of_rows("pca_reconstruction", reference, current, share=share, confidence=confidence)


def domain_classifier(reference: ArrayLike, current: ArrayLike, *, confidence: float = 0.99) -> Score:
    """Area under the ROC curve of a cross-validated logistic regression (columns, squares, products) that tells the sides apart.

    0.5 where it cannot. `lower` and `upper`: one-sided at `confidence` (DeLong). `p_value`: of "both sides have the same law".

    >>> rng = __import__("numpy").random.default_rng(0)
    >>> domain_classifier(rng.normal(0, 1, (500, 2)), rng.normal(1, 1, (500, 2))).value > 0.8
    True
    """
    return _of_rows("domain_classifier", reference, current, confidence=confidence)


def _of_rows(name: str, reference: ArrayLike, current: ArrayLike, *, seed: int = 0, share: float = 0.65, confidence: float = 0.99) -> Score:
    import numpy as np

    sides = []
    for argument, values in (("reference", reference), ("current", current)):
        try:
            array = np.ascontiguousarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"`{argument}` must hold rows of numbers, got {type(values).__name__}") from error
        if array.ndim != 2:
            raise InvalidArgumentError(f"`{argument}` must have two dimensions, rows and columns, got {array.ndim}")
        sides.append(array)
    if not isinstance(seed, int) or not 0 <= seed < 1 << 64:
        raise InvalidArgumentError(f"`seed` must be an integer in [0, 2**64), got {seed!r}")
    return Score._of(_barograph.of_rows(name, sides[0], sides[1], seed, share, confidence))


def _distance(name: str, reference: Any, current: Any, tolerance: float = 0.02, confidence: float = 0.99) -> Score:
    for argument, side in (("reference", reference), ("current", current)):
        if not isinstance(side, _barograph.ColumnProfile):
            raise InvalidArgumentError(
                f"`{argument}` must be the profile of a column, got {type(side).__name__}",
                'take one out of a profile: `bg.profile(frame)["x"]`',
            )
    return Score._of(_barograph.distance(name, reference, current, tolerance, confidence))


def _counts(reference: Side, current: Side) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if isinstance(reference, _barograph.ColumnProfile) and isinstance(current, _barograph.ColumnProfile):
        p, q, _ = _barograph.pair(reference, current, UNIONS)
        return _array("reference", p), _array("current", q)
    return _array("reference", reference), _array("current", current)


def _array(argument: str, values: Any) -> NDArray[np.float64]:
    import numpy as np

    if isinstance(values, _barograph.ColumnProfile):
        raise InvalidArgumentError(f"`{argument}` is the profile of a column and the other side is not", "give two of a kind")
    try:
        array = np.ascontiguousarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(
            f"`{argument}` must be a row of counts or the profile of a column, got {type(values).__name__}"
        ) from error
    if array.ndim != 1:
        raise InvalidArgumentError(f"`{argument}` must have one dimension, got {array.ndim}")
    return array
