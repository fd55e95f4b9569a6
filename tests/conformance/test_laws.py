"""Laws that hold for whatever comes."""

import math

import barograph as bg
import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

FLOATS = st.one_of(st.none(), st.floats(), st.sampled_from([0.0, -0.0, 1e308, -1e-320, math.inf, math.nan]))
NAMES = st.one_of(st.none(), st.text(max_size=8), st.sampled_from(["a", "b"]))
SCHEMA = bg.Schema([{"name": "x", "kind": "number", "role": "feature"}, {"name": "c", "kind": "category", "role": "feature"}])
ROWS = st.lists(st.tuples(FLOATS, NAMES), max_size=60)


def frame(rows):
    return pl.DataFrame({"x": [r[0] for r in rows], "c": [r[1] for r in rows]}, schema={"x": pl.Float64, "c": pl.String})


REFERENCE = bg.Reference(pl.DataFrame({"x": np.random.default_rng(0).normal(size=3000), "c": ["a", "b", "c"] * 1000}), schema=SCHEMA)


@settings(max_examples=300, deadline=None)
@given(ROWS, ROWS, st.booleans())
def test_merge_is_concatenation_to_the_byte(a, b, with_reference):
    reference = REFERENCE if with_reference else None
    both = bg.profile(frame(a + b), schema=SCHEMA, reference=reference)
    first, second = (bg.profile(frame(part), schema=SCHEMA, reference=reference) for part in (a, b))
    assert (first + second).to_bytes() == both.to_bytes() == (second + first).to_bytes()
    assert bg.Profile.from_bytes(both.to_bytes()).to_bytes() == both.to_bytes()


@settings(max_examples=100, deadline=None)
@given(ROWS, st.randoms())
def test_order_leaves_no_trace(rows, random):
    shuffled = random.sample(rows, len(rows))
    assert bg.profile(frame(rows), schema=SCHEMA).to_bytes() == bg.profile(frame(shuffled), schema=SCHEMA).to_bytes()


@settings(max_examples=100, deadline=None)
@given(ROWS, ROWS)
def test_nothing_in_a_report_is_nan_and_a_frame_never_drifts_from_itself(a, b):
    report = bg.compare(bg.Reference(frame(a), schema=SCHEMA), frame(b))
    floats = report.to_frame().select(pl.selectors.float())
    assert all(column.drop_nulls().is_finite().all() for column in floats)
    itself = bg.compare(bg.Reference(frame(a), schema=SCHEMA), frame(a))
    assert not itself.drifted
    zero = itself.to_frame().filter(pl.col("method").is_in(["psi", "psi_total", "jensen_shannon", "total_variation", "l_infinity"]))
    assert (zero["value"].drop_nulls() == 0).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=6))
def test_batches_shards_and_one_frame_agree(parts):
    whole = bg.profile(frame([row for part in parts for row in part]), schema=SCHEMA)
    shards = [bg.profile(frame(part), schema=SCHEMA) for part in parts]
    assert sum(shards).to_bytes() == bg.merge(reversed(shards)).to_bytes() == whole.to_bytes()


def test_a_reference_is_a_function_of_its_rows():
    rows = frame([(float(i % 17), "ab"[i % 2]) for i in range(1000)])
    assert bg.Reference(rows, schema=SCHEMA).id == bg.Reference(rows[::-1], schema=SCHEMA).id
    assert bg.Reference(rows, schema=SCHEMA).id != bg.Reference(rows[1:], schema=SCHEMA).id


def test_a_large_reference_is_counted_exactly_in_its_second_pass():
    values = np.random.default_rng(0).lognormal(size=1_500_000)
    edges, counts = bg.Reference({"x": values}).bins("x")
    assert sum(counts) == len(values)
    assert (counts[0], counts[-1]) == (0, 0)
    want, _ = np.histogram(np.nextafter(values, -np.inf), bins=edges)
    assert (np.array(counts[1:-1]) == want).all()
    assert max(counts) < 1.2 * len(values) / 1000


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64]),
    st.integers(0, 2**62),
    st.integers(1, 5000),
    st.floats(0, 0.3),
    st.sampled_from([None, REFERENCE]),
)
def test_integers_are_counted_as_the_doubles_they_are(dtype, base, spread, strangers, reference):
    """Integers close together are counted by value; strangers far away, nulls and short batches take the other way."""
    random = np.random.default_rng(base)
    low, high = (int(edge) for edge in pl.select(dtype.min(), lit=dtype.max()).row(0))
    base = base % (high + 1) if low == 0 or base % 2 else max(low, -(base % high))
    values = np.clip(np.asarray(random.integers(0, spread, size=9001), dtype=object) + base, low, high)
    values[random.random(9001) < strangers] = high
    values[random.random(9001) < strangers] = None
    ints = pl.DataFrame({"x": pl.Series(values.tolist(), dtype=dtype)})
    doubles = ints.select(pl.col("x").cast(pl.Float64))
    whole, cast = (bg.profile(f, schema=SCHEMA, reference=reference).to_bytes() for f in (ints, doubles))
    parts = sum(bg.profile(ints[at : at + 1000], schema=SCHEMA, reference=reference) for at in range(0, 9001, 1000))
    assert whole == cast == parts.to_bytes()
