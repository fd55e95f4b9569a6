"""Reference with labels and rows to be estimated: real loans, continuous scores whose law shifts, several classes."""

import numpy as np
import predictions


def _loans():
    y, s, _, _ = predictions._loans()
    half = len(y) // 2
    p = (s >= 0.4).astype(float)
    return (s[:half], y[:half], p[:half]), (s[half:], p[half:])


def _continuous():
    rng = np.random.default_rng(11)
    scores = np.concatenate([rng.beta(2, 3, 6000), rng.beta(3, 2, 4000)])
    y = (rng.random(10_000) < scores**1.5).astype(float)
    p = (scores >= 0.5).astype(float)
    return (scores[:6000], y[:6000], p[:6000]), (scores[6000:], p[6000:])


BINARY = {"car loans": _loans, "continuous": _continuous}


def several():
    rng = np.random.default_rng(12)
    scores = rng.dirichlet([1, 2, 3], 6000)
    truth = scores**1.7
    truth /= truth.sum(1, keepdims=True)
    y = (truth.cumsum(1) > rng.random((6000, 1))).argmax(1)
    p = np.where(rng.random(6000) < 0.9, scores.argmax(1), 0)
    return (scores[:3000], y[:3000], p[:3000]), (scores[3000:], p[3000:])


STREAMS = {
    "coins": (np.random.default_rng(1).random(3000) < 0.3).astype(float),
    "beta": np.random.default_rng(2).beta(2, 8, 20_000),
    "few": np.random.default_rng(3).random(150),
}
