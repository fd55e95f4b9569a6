"""What workers count apart is what one process counts, to the byte."""

import random

import barograph as bg
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from barograph.errors import FrameError, IncompatibleError, InvalidArgumentError, SnapshotError
from barograph.scaling import leaf, leaves, merge, read, read_segments
from hypothesis import given, settings
from hypothesis import strategies as st

FLOATS = st.one_of(st.none(), st.floats(), st.sampled_from([0.0, -0.0, 1e308, -1e-320]))
NAMES = st.one_of(st.none(), st.text(max_size=4), st.sampled_from(["a", "b"]))
NUMBERS = st.one_of(st.none(), st.integers(-3, 3))
SCHEMA = bg.Schema(
    [
        {"name": "x", "kind": "number", "role": "feature"},
        {"name": "c", "kind": "category", "role": "feature"},
        {"name": "k", "kind": "number", "role": "segment"},
    ]
)
ROWS = st.lists(st.tuples(FLOATS, NAMES, NUMBERS), max_size=60)


def frame(rows):
    columns = {name: [row[at] for row in rows] for at, name in enumerate("xck")}
    return pl.DataFrame(columns, schema={"x": pl.Float64, "c": pl.String, "k": pl.Int16})


RANDOM = np.random.default_rng(0)
REFERENCE = bg.Reference(
    pl.DataFrame({"x": RANDOM.normal(size=3000), "c": ["a", "b", "c"] * 1000, "k": RANDOM.integers(0, 3, 3000)}), schema=SCHEMA
)


def split(table, seed):
    """Rows in any order, cut into parts of any size, some of them empty."""
    dice = random.Random(seed)
    table = table.sample(fraction=1, shuffle=True, seed=seed)
    cuts = sorted(dice.choices(range(table.height + 1), k=dice.randrange(6)))
    return [table[start:end] for start, end in zip([0, *cuts], [*cuts, table.height], strict=True)]


def grouped(parts, seed):
    """Parts merged in any order, two or more at a time."""
    dice = random.Random(seed)
    parts = list(parts)
    while len(parts) > 1:
        dice.shuffle(parts)
        many = dice.randint(2, len(parts))
        parts = [merge(*parts[:many]), *parts[many:]]
    return parts[0]


@settings(max_examples=150, deadline=None)
@given(ROWS, st.integers(0, 2**32), st.booleans(), st.sampled_from([None, "c", "k", ["k", "c"]]), st.sampled_from([1, 2, 100]))
def test_leaves_of_any_split_merged_in_any_order_are_the_profile_of_one_process(rows, seed, with_reference, by, limit):
    settings = {"schema": SCHEMA, "reference": REFERENCE if with_reference else None}
    whole = bg.profile(frame(rows), **settings)
    parts = [leaf(part, by=by, limit=limit, **settings) for part in split(frame(rows), seed)]
    merged = grouped(parts, seed)
    assert merged == merge(leaf(frame(rows), by=by, limit=limit, **settings))
    assert read(merged).to_bytes() == whole.to_bytes()
    if by is not None:
        segments = read_segments(merged)
        assert len(segments) <= limit
        assert segments.total.rows == sum(one.rows for one in segments.values()) + segments.other.rows == len(rows)


def test_a_segment_is_the_profile_of_its_rows_and_the_rest_is_counted():
    rows = frame([(float(at), "abcdefgh"[at % 8], at % 3) for at in range(800)])
    parts = [leaf(rows[at : at + 90], schema=SCHEMA, by="c", limit=5) for at in range(0, 800, 90)]
    segments = read_segments(grouped(parts, 1))
    assert len(segments) == 5
    for value, profile in segments.items():
        assert profile.to_bytes() == bg.profile(rows.filter(c=value), schema=SCHEMA).to_bytes()
    assert segments.other.to_bytes() == bg.profile(rows.filter(~pl.col("c").is_in(list(segments))), schema=SCHEMA).to_bytes()
    assert segments.other.rows == 300
    assert segments.to_frame().filter("other")["count"].to_list() == [300, 300, 300]


def test_beyond_the_names_that_are_counted_exactly_totals_agree_and_names_keep_their_bound():
    names = [f"name-{at}" for at in range(20_000)] + ["often"] * 9000 + ["pinned"] * 70
    rows = pl.DataFrame({"c": names, "x": [1.0] * len(names), "k": [1] * len(names)})
    reference = bg.Reference(pl.DataFrame({"c": ["pinned"] * 100, "x": [1.0] * 100, "k": [1] * 100}), schema=SCHEMA)
    whole = bg.profile(rows, schema=SCHEMA, reference=reference)["c"]
    for seed in range(3):
        column = read(grouped([leaf(part, schema=SCHEMA, reference=reference) for part in split(rows, seed)], seed))["c"]
        assert (column.count, column.null_count, column.distinct) == (whole.count, whole.null_count, whole.distinct)
        assert column.name_count("pinned") == 70
        assert 0 < column.name_count("often") <= 9000
        assert column.top_k(1)[0][0] == "often"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_thousands_of_segments_in_one_batch_are_bounded_whatever_the_split(seed):
    rows = pl.DataFrame({"x": [float(at) for at in range(4000)], "c": [f"s{at % 3000}" for at in range(4000)], "k": [0] * 4000})
    merged = grouped([leaf(part, schema=SCHEMA, by="c", limit=7) for part in split(rows, seed)], seed)
    assert merged == leaf(rows, schema=SCHEMA, by="c", limit=7)
    assert len(read_segments(merged)) == 7


def test_a_column_that_one_part_lacks_is_null_in_all_its_rows():
    rows = frame([(float(at), "ab"[at % 2], at % 3) for at in range(100)])
    for reference in (None, REFERENCE):
        want = leaf(rows.with_columns(pl.when(pl.int_range(100) < 60).then("c").alias("c")), schema=SCHEMA, reference=reference)
        without = leaf(rows[60:].drop("c"), schema=SCHEMA, reference=reference)
        assert merge(leaf(rows[:60], schema=SCHEMA, reference=reference), without) == want
        assert merge(without, leaf(rows[:60], schema=SCHEMA, reference=reference)) == want
        assert read(want)["c"].null_count == 40


def test_a_note_on_a_column_that_is_not_read_outlives_parts_without_it():
    schema = bg.Schema([*SCHEMA._columns, {"name": "e", "kind": "embedding", "role": "feature"}])
    rows = frame([(1.0, "a", 1)] * 10)
    arrow = pa.table({**{name: rows[name].to_arrow() for name in "xck"}, "e": [[1.0]] * 10})
    merged = merge(leaf(rows, schema=schema), leaf(arrow, schema=schema), leaf(rows, schema=schema))
    assert read(merged)["e"].unread == bg.profile(arrow, schema=schema)["e"].unread
    assert read(merged)["e"].null_count == 20


def test_parts_that_do_not_belong_together_are_refused_by_naming_both(monkeypatch):
    rows = frame([(1.0, "a", 1)] * 10)
    mine = leaf(rows, schema=SCHEMA)
    with pytest.raises(IncompatibleError, match="column 'x' is number feature in one and number score in the other"):
        merge(mine, leaf(rows, schema=SCHEMA.with_roles(x="score")))
    with pytest.raises(IncompatibleError, match=f"parts 0 and 2 .* reference is none in one and {REFERENCE.id[:12]} in the other"):
        merge(mine, mine, leaf(rows, schema=SCHEMA, reference=REFERENCE))
    with pytest.raises(IncompatibleError, match=r"grouped by \[\] in one and \['c'\] in the other"):
        merge(mine, leaf(rows, schema=SCHEMA, by="c"))
    with pytest.raises(IncompatibleError, match="grouping column 'k' is integer in one batch and text in another"):
        merge(leaf(rows, schema=SCHEMA, by="k"), leaf(rows.cast({"k": pl.String}), schema=SCHEMA, by="k"))
    recipe = leaves.Recipe.of(rows, schema=SCHEMA)
    monkeypatch.setattr(leaves._barograph, "__version__", "0.0.9", raising=False)
    theirs = leaves._State.decode(mine, None)
    theirs.version = "0.0.9"
    with pytest.raises(IncompatibleError, match=r"barograph is 0\.1\.0 in one and 0\.0\.9 in the other"):
        merge(mine, theirs.encode())
    with pytest.raises(IncompatibleError, match=r"the driver has barograph 0\.1\.0, this worker 0\.0\.9"):
        recipe.leaf([rows])


def test_a_column_nobody_said_anything_about_is_an_error_where_the_schema_was_inferred():
    rows = frame([(1.0, "a", 1)] * 10)
    recipe = leaves.Recipe.of(rows)
    assert read(recipe.leaf([rows, rows[:0]])).rows == 10
    with pytest.raises(FrameError, match="column 'new' is not in the schema that was inferred from the first rows"):
        recipe.leaf([rows, rows.with_columns(new=1)])
    assert read(leaves.Recipe.of(rows, schema=SCHEMA).leaf([rows.with_columns(new=1)])).columns == ["x", "c", "k"]
    assert read(recipe.leaf([])).to_bytes() == bg.profile(rows[:0], schema=bg.profile(rows).schema).to_bytes()


def test_grouping_takes_columns_with_values_that_are_equal_or_not():
    with pytest.raises(InvalidArgumentError, match="`by` must name columns of text, whole numbers, booleans or dates, 'x' is Float64"):
        leaf(frame([(1.0, "a", 1)]), by="x")
    with pytest.raises(FrameError, match="`by` names column 'nope', which the batch has not"):
        leaf(frame([(1.0, "a", 1)]), by="nope")
    with pytest.raises(InvalidArgumentError, match="`limit`"):
        leaf(frame([(1.0, "a", 1)]), by="c", limit=0)
    with pytest.raises(InvalidArgumentError, match="no segments"):
        read_segments(leaf(frame([(1.0, "a", 1)])))
    days = pl.DataFrame({"x": [1.0, 2.0], "day": ["2013-01-01", None]}).with_columns(pl.col("day").str.to_date())
    segments = read_segments(leaf(days, by="day"))
    assert list(segments) == [None, "2013-01-01"]


def test_bytes_that_are_no_leaf_are_an_error_whatever_they_are():
    good = leaf(frame([(1.0, "a", 1), (2.0, "b", 2)]), schema=SCHEMA, by="c")
    dice = random.Random(5)
    for at in [*range(60), *dice.choices(range(len(good)), k=200)]:
        for bad in (good[:at], good[:at] + bytes([good[at] ^ (1 << dice.randrange(8))]) + good[at + 1 :]):
            with pytest.raises(SnapshotError):
                read(bad)
    with pytest.raises(SnapshotError, match=r"must be what `leaf` or `merge` gave"):
        merge(good, bg.profile(frame([])).to_bytes())
    with pytest.raises(bg.errors.UnsupportedError):
        read("text")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_head_with_a_right_checksum_may_still_say_anything(data):
    import json
    import zlib

    good = leaf(frame([(1.0, "a", 1), (2.0, "b", 2)]), schema=SCHEMA, by="c")
    length = int.from_bytes(good[5:9], "little")
    head = json.loads(good[13 : 13 + length])
    odd = st.recursive(
        st.one_of(st.none(), st.integers(-5, 2**70), st.text(st.characters(), max_size=3), st.booleans(), st.floats()),
        lambda inner: st.lists(inner, max_size=3),
    )
    word = data.draw(st.sampled_from(sorted(head)))
    head[word] = data.draw(odd)
    text = json.dumps(head).encode()
    payload = text + good[13 + length :]
    bad = good[:5] + len(text).to_bytes(4, "little") + zlib.crc32(payload).to_bytes(4, "little") + payload
    try:
        state = leaves._State.decode(bad, None)
    except SnapshotError:
        return
    assert leaves._State.decode(state.encode(), None).encode() == state.encode()
