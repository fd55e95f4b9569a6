"""How a mean splits: mix and rate, Shapley values of a joint table, slices, the beginning of a change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]

_CANDIDATES, _BEAM = 10, 30
"""Slices that are tested, and bins that are combined."""
_FOLDS = 5


@dataclass
class _Cells:
    """Of each bin rows, sum of losses and of squares about the mean; `tables`: rows and sums by group of rows and bin."""

    n: Array
    s: Array
    squares: Array
    tables: tuple[Array, Array]
    blocked: bool

    def variance(self, a: Array, c: Array) -> tuple[Array, Array]:
        """Of estimates to which a row of bin b with loss l adds `a_b + c_b l`, less its mean: variances and degrees of freedom.

        By rows, or where groups of rows are windows by these, whichever is more: rows of one window may resemble each other.
        """
        import numpy as np

        rates = self.s / np.maximum(self.n, 1)
        each = self.n * (a + c * rates) ** 2 + c**2 * self.squares
        out = each.sum(axis=1)
        free = out**2 / np.maximum((each**2 / np.maximum(self.n - 1, 1)).sum(axis=1), 1e-300)
        if self.blocked:
            rows, sums = self.tables
            by_window = a @ rows.T + c @ sums.T
            count = int((rows.sum(axis=1) > 0).sum())
            more = count / max(count - 1, 1) * (by_window**2).sum(axis=1)
            free = np.where(more > out, count - 1, free)
            out = np.maximum(out, more)
        return out, np.maximum(free, 1.0)


class _Side:
    """Losses of one frame less a constant, and the groups of rows that stand for each other: windows, or folds at random."""

    def __init__(self, losses: Array, shift: float, groups: Array, count: int, *, blocked: bool, shares: bool) -> None:
        self.losses, self.shift, self.groups, self.count = losses, shift, groups, count
        self.blocked, self.shares = blocked, shares
        self.squares = losses * losses

    def cells(self, codes: Array, size: int) -> _Cells:
        import numpy as np

        n = np.bincount(codes, minlength=size).astype(float)
        s = np.bincount(codes, self.losses, minlength=size)
        squares = np.bincount(codes, self.squares, minlength=size)
        rows = np.maximum(n, 1)
        squares = np.maximum(squares - s * s / rows, 0.0) * rows / np.maximum(n - 1, 1)
        if self.shares:
            # Fifty rows without an error are not rows without variance: Agresti and Caffo's added success and failure (Am. Stat. 2000).
            share = (s + n * self.shift + 1) / (n + 2)
            squares = np.maximum(squares, n * share * (1 - share))
        where = self.groups * size + codes
        tables = [np.bincount(where, weights, minlength=self.count * size).reshape(-1, size) for weights in (None, self.losses)]
        return _Cells(n, s, squares, (tables[0].astype(float), tables[1]), self.blocked)

    def part(self, mask: Array) -> _Side:
        return _Side(self.losses[mask], self.shift, self.groups[mask], self.count, blocked=self.blocked, shares=self.shares)


def _explained(cells: _Cells, total_squares: float, folds: Array) -> float:
    """R² of the bins' means on rows they were not made of, by folds of whole groups."""
    import numpy as np

    rows, sums = (np.stack([table[folds == at].sum(axis=0) for at in range(_FOLDS)]) for table in cells.tables)
    n, s = rows.sum(axis=0) - rows, sums.sum(axis=0) - sums
    mean = (s.sum(axis=1) / np.maximum(n.sum(axis=1), 1))[:, None]
    guess = np.where(n > 0, s / np.maximum(n, 1), mean)

    def left(prediction: Array) -> float:
        return total_squares + float((prediction**2 * rows - 2 * prediction * sums).sum())

    base = left(np.broadcast_to(mean, guess.shape))
    return 1 - left(guess) / base if base > 0 else 0.0


_Gradient: TypeAlias = "tuple[tuple[Array, Array], tuple[Array, Array]]"


def _kitagawa(n: Array, s: Array, n2: Array, s2: Array, weights: Array) -> tuple[dict[str, Array], dict[str, _Gradient]]:
    """Mix and rate of each bin, summed by each row of `weights` (effects × bins); and what a row of either frame adds to them.

    A gradient holds per frame `a` and `c`, so that a row of bin b with loss l moves the effect by `a_b + c_b l` (delta method).
    """
    import numpy as np

    total, total2 = n.sum(), n2.sum()
    p, q = n / total, n2 / total2
    mean, mean2 = s.sum() / total, s2.sum() / total2
    rows, rows2 = np.maximum(n, 1), np.maximum(n2, 1)
    r, r2 = s / rows, s2 / rows2
    # A bin that one frame alone has knows one rate: that of the other frame is taken as equal, so all of its effect is mix.
    own = np.where(n2 > 0, np.where(n > 0, 0.5, 0.0), 1.0)
    own2 = 1.0 - own
    middle, centre = own * r + own2 * r2, (mean + mean2) / 2
    both = (n > 0) & (n2 > 0)
    shift, change, share = q - p, np.where(both, r2 - r, 0.0), (p + q) / 2
    above = np.where((n > 0) | (n2 > 0), middle - centre, 0.0)
    effects = {"mix": weights @ (shift * above), "rate": weights @ (change * share)}

    def spread(at_bin: Array, everywhere: Array) -> Array:
        out: Array = weights * at_bin + (weights @ everywhere)[:, None]
        return out

    def mix(rows: Array, rates: Array, total: float, shares: Array, mean: float, own: Array, sign: float) -> tuple[Array, Array]:
        a = spread(sign * above / total - shift * own * rates / rows, -sign * above * shares / total + shift * mean / (2 * total))
        return a, spread(shift * own / rows, -shift / (2 * total))

    def rate(rows: Array, rates: Array, total: float, shares: Array, sign: float) -> tuple[Array, Array]:
        weight = np.where(both, sign * share / rows, 0.0)
        a = spread(change / (2 * total) - weight * rates, -change * shares / (2 * total))
        return a, spread(weight, np.zeros_like(weight))

    gradients: dict[str, _Gradient] = {
        "mix": (mix(rows, r, total, p, mean, own, -1.0), mix(rows2, r2, total2, q, mean2, own2, 1.0)),
        "rate": (rate(rows, r, total, p, -1.0), rate(rows2, r2, total2, q, 1.0)),
    }
    return effects, gradients


def _spread(cells: tuple[_Cells, _Cells], gradient: _Gradient) -> tuple[Array, Array]:
    """Standard errors and degrees of freedom of both frames together (Welch 1947)."""
    import numpy as np

    (v, free), (v2, free2) = (one.variance(*each) for one, each in zip(cells, gradient, strict=True))
    both = v + v2
    return np.sqrt(both), both**2 / np.maximum(v**2 / free + v2**2 / free2, 1e-300)


def _student(tail: float, free: float) -> float:
    """What |t| exceeds with chance `tail`. Hill, CACM algorithm 396, 1970: six digits from three degrees of freedom on."""
    n = max(free, 1.0)
    if n > 1e6:
        return -NormalDist().inv_cdf(tail / 2)
    if n < 2:
        # As with one degree of freedom: too wide, never too narrow.
        return 1 / math.tan(tail * math.pi / 2)
    a = 1 / (n - 0.5)
    b = 48 / (a * a)
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * math.sqrt(a * math.pi / 2) * n
    y = (d * tail) ** (2 / n)
    if y > 0.05 + a:
        x = NormalDist().inv_cdf(tail / 2)
        y = x * x
        if n < 5:
            c += 0.3 * (n - 4.5) * (x + 0.6)
        c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + c
        y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
        y = math.expm1(a * y * y)
    else:
        y = ((1 / (((n + 6) / (n * y) - 0.089 * d - 0.822) * (n + 2) * 3) + 0.5 / (n + 4)) * y - 1) * (n + 1) / (n + 2) + 1 / y
    return math.sqrt(n * y)


def _tail(t: float, free: float) -> float:
    """The chance that |T| exceeds |t|, by halving; nothing below 1e-15 is told apart."""
    low, high = math.log(1e-15), 0.0
    if _student(math.exp(low), free) <= abs(t):
        return 1e-15
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _student(math.exp(middle), free) > abs(t) else (low, middle)
    return math.exp(high)


def _drift(n: Array, n2: Array) -> float:
    """PSI less its mean under no drift."""
    from barograph.scores import psi

    if len(n) < 2:
        return 0.0
    return max(0.0, psi(n, n2).value - (len(n) - 1) * (1 / float(n.sum()) + 1 / float(n2.sum())))


@dataclass
class _Joint:
    """The joint table of some columns: a row of `digits` per cell; why it is no good support, if so."""

    columns: list[str]
    digits: Array
    cells: tuple[_Cells, _Cells]
    unsupported: str | None


def _shapley(table: _Joint) -> tuple[Array, _Gradient]:
    """Of each column its mean contribution to the joint mix over all orders, by enumeration; and what rows add to it.

    The worth of a set of columns is the mix of their joint table, so the values add up to the mix of the whole one (Shapley 1953).
    """
    import numpy as np

    columns, count = len(table.columns), len(table.digits)
    one, two = table.cells
    worth = np.zeros(1 << columns)
    slopes = np.zeros((1 << columns, 4, count))
    for members in range(1, 1 << columns):
        chosen = [at for at in range(columns) if members >> at & 1]
        _, group = np.unique(table.digits[:, chosen], axis=0, return_inverse=True)
        group = group.reshape(-1)
        sums = [np.bincount(group, values) for values in (one.n, one.s, two.n, two.s)]
        effects, gradients = _kitagawa(sums[0], sums[1], sums[2], sums[3], np.ones((1, len(sums[0]))))
        worth[members] = effects["mix"][0]
        slopes[members] = [each[0][group] for side in gradients["mix"] for each in side]
    values, gradient = np.zeros(columns), np.zeros((4, columns, count))
    for at in range(columns):
        for members in range(1 << columns):
            if members >> at & 1:
                continue
            size = members.bit_count()
            weight = math.factorial(size) * math.factorial(columns - size - 1) / math.factorial(columns)
            values[at] += weight * (worth[members | 1 << at] - worth[members])
            gradient[:, at] += weight * (slopes[members | 1 << at] - slopes[members])
    return values, ((gradient[0], gradient[1]), (gradient[2], gradient[3]))


_Slice: TypeAlias = "tuple[tuple[int, int], ...]"


def _search(looked: list[tuple[Array, Array]], sizes: list[int], least: list[float], sign: float, conjunctions: int) -> list[_Slice]:
    """The conjunctions (of a column and a bin each) that became worse than other rows by most standard errors, none told by another."""
    import numpy as np

    starts = np.concatenate([[0], np.cumsum(sizes)])
    owner = np.repeat(np.arange(len(sizes)), sizes)
    places = [codes.astype(np.int64) + starts[:-1, None] for codes, _ in looked]
    values = [losses for _, losses in looked]
    totals = [_sums(one) for one in values]
    tables = [_pairs(where, one, sizes) for where, one in zip(places, values, strict=True)]
    z = _worse(tables, totals, least, sign)
    found: dict[frozenset[int], float] = {frozenset([at]): float(z[at, at]) for at in range(len(owner))}
    if conjunctions > 1:
        first, second = np.nonzero(np.triu(z > 1.0, 1) & (owner[:, None] != owner[None, :]))
        best = np.argsort(-z[first, second], kind="stable")[:1000]
        found |= {frozenset([int(first[at]), int(second[at])]): float(z[first[at], second[at]]) for at in best}
    if conjunctions > 2:
        pairs = sorted((one for one in found if len(one) == 2), key=lambda one: (-found[one], sorted(one)))[:_BEAM]
        for pair in pairs:
            triples: list[Any] = []
            for where, one in zip(places, values, strict=True):
                inside = _inside(where, pair, owner)
                flat, repeated = where[:, inside].ravel(), np.tile(one[inside], len(sizes))
                triples.append(tuple(np.bincount(flat, each, minlength=len(owner)) for each in (None, repeated, repeated**2)))
            third = _worse(triples, totals, least, sign)
            for at in np.flatnonzero(third > 1.0):
                if owner[at] not in owner[list(pair)]:
                    found[pair | {int(at)}] = float(third[at])
    order = sorted((one for one in found if found[one] > 1.0), key=lambda one: (-found[one], len(one), sorted(one)))
    chosen: list[frozenset[int]] = []
    free = [np.ones(len(one), bool) for one in values]
    rest = totals
    for members in order[:100]:
        masks = [_inside(where, members, owner) & open_ for where, open_ in zip(places, free, strict=True)]
        sums = [_sums(one[mask]) for one, mask in zip(values, masks, strict=True)]
        # What is left of a slice without those before it has to be worse still, or these are what made it so.
        if chosen and not _worse(sums, rest, [each / 2 for each in least], sign) > 2.0:
            continue
        chosen.append(members)
        free = [open_ & ~mask for open_, mask in zip(free, masks, strict=True)]
        rest = [_sums(one[open_]) for one, open_ in zip(values, free, strict=True)]
        if len(chosen) == _CANDIDATES:
            break
    return [tuple((int(owner[at]), int(at - starts[owner[at]])) for at in sorted(members)) for members in chosen]


def _sums(losses: Array) -> tuple[float, float, float]:
    return float(len(losses)), float(losses.sum()), float(losses @ losses)


def _inside(where: Array, members: frozenset[int], owner: Array) -> Array:
    import numpy as np

    out: Array = np.logical_and.reduce([where[owner[at]] == at for at in members])
    return out


def _pairs(where: Array, losses: Array, sizes: list[int]) -> tuple[Array, Array, Array]:
    """Rows, sums and sums of squares of each bin (on the diagonal) and of each pair of bins of two columns (above it)."""
    import numpy as np

    starts = np.concatenate([[0], np.cumsum(sizes)])
    out = np.zeros((3, starts[-1], starts[-1]))
    weights = (None, losses, losses * losses)
    for second, size in enumerate(sizes):
        at = slice(starts[second], starts[second + 1])
        own = where[second] - starts[second]
        for sums, weight in zip(out, weights, strict=True):
            sums[at, at] = np.diag(np.bincount(own, weight, minlength=size))
        for first in range(second):
            code = (where[first] - starts[first]) * size + own
            across = slice(starts[first], starts[first + 1])
            for sums, weight in zip(out, weights, strict=True):
                sums[across, at] = np.bincount(code, weight, minlength=sizes[first] * size).reshape(-1, size)
    return out[0], out[1], out[2]


def _worse(sums: Sequence[Any], totals: Sequence[tuple[float, float, float]], least: Sequence[float], sign: float) -> Any:
    """By how many standard errors each slice became worse by more than the other rows; minus infinity where it is too small."""
    import numpy as np

    change, variance, valid = 0.0, 0.0, True
    for (n, s, q), (rows, total, squares), enough, side in zip(sums, totals, least, (-1.0, 1.0), strict=True):
        for count, own, square, inside in ((n, s, q, 1.0), (rows - n, total - s, squares - q, -1.0)):
            count = np.maximum(count, 1.0)
            rate = own / count
            change = change + side * inside * rate
            variance = variance + np.maximum(square / count - rate * rate, 0.0) / count
        valid = valid & (n >= enough) & (rows - n >= enough)
    return np.where(valid, sign * change / np.sqrt(np.maximum(variance, 1e-30)), -np.inf)


def _excess(cells: tuple[_Cells, _Cells]) -> tuple[float, float, float]:
    """By how much more the metric of bin 1 changed than that of bin 0, its standard error and degrees of freedom."""
    import numpy as np

    value, gradient = 0.0, []
    for one, side in zip(cells, (-1.0, 1.0), strict=True):
        rates = one.s / one.n
        value += side * float(rates[1] - rates[0])
        weight = side * np.array([[-1.0, 1.0]]) / one.n
        gradient.append((-weight * rates, weight))
    errors, free = _spread(cells, (gradient[0], gradient[1]))
    return value, float(errors[0]), float(free[0])


def _cusum(n: Array, gaps: Array) -> tuple[Array, Array]:
    """Of each row of windows the first after the largest rise of the mean, and its size: `−Σ gaps / √(N (1 − N / total))` (Page 1954)."""
    import numpy as np

    before = np.cumsum(n, axis=1)
    share = before[:, :-1] * (1 - before[:, :-1] / before[:, -1:])
    size = -np.cumsum(gaps, axis=1)[:, :-1] / np.sqrt(share)
    return size.argmax(axis=1) + 1, size.max(axis=1)
