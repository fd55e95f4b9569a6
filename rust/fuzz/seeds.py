"""What the fuzzer begins with: bytes that barograph wrote. `python seeds.py FOLDER`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import barograph as bg
import numpy as np
import polars as pl


def inner(data: bytes) -> bytes:
    """A snapshot without header and checksum: the target puts them around whatever comes."""
    return data[7:-4]


def seeds() -> Iterator[tuple[int, bytes]]:
    """The decoder's number in the target, and its bytes."""
    rng = np.random.default_rng(0)
    times = pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2024, 1, 9, 7), "1h", eager=True)
    frame = pl.DataFrame({"x": rng.normal(size=200), "c": [f"n{i % 5}" for i in range(200)], "t": times})
    profile, reference = bg.profile(frame).to_bytes(), bg.Reference(frame).to_bytes()
    yield from ((0, profile), (1, reference), (2, inner(profile)), (3, inner(reference)))
    kll = bg.sketches.Kll(8)
    kll.update_many(rng.normal(size=300))
    yield 6, kll.to_bytes()
    for choice, sketch in ((7, bg.sketches.Hll(5)), (8, bg.sketches.Theta(5)), (9, bg.sketches.FrequentItems(4))):
        sketch.update_many(np.arange(300))
        yield choice, sketch.to_bytes()
    sample = bg.sketches.Sample(5)
    sample.update_many(np.arange(20))
    yield 10, inner(sample.to_bytes())
    d = bg.detectors
    made = (d.Adwin(), d.PageHinkley(), d.Ddm(), d.HddmA(), d.Kswin(), d.Cusum(), d.Rank(rng.normal(size=300)))
    for choice, detector in enumerate(made, 15):
        detector.update_many((rng.random(300) < 0.3).astype(float))
        yield choice, inner(detector.to_bytes())
    e = bg.estimates
    scores = rng.random(200)
    cbpe = e.Cbpe.fit(scores, rng.random(200) < scores)
    sequences = (e.MeanSequence(), e.QuantileSequence(0.5), e.AsymptoticSequence(), e.RiskAlarm(scores))
    for sequence in sequences:
        sequence.update_many(scores)
    pairs = (e.AucSequence(), e.CalibrationAlarm())
    for pair in pairs:
        pair.update_many(rng.random(200) < scores, scores)
    # Behind the name of what it is.
    named = [cbpe, cbpe.estimate(scores), *sequences, *pairs]
    yield from ((choice, inner(one.to_bytes())[1 + inner(one.to_bytes())[0] :]) for choice, one in enumerate(named, 26))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for number, (choice, data) in enumerate(seeds()):
        (folder / f"seed-{number}").write_bytes(bytes([choice]) + data)
