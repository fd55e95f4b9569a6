"""A profile against a plain recomputation, for every kind of frame and column."""

import datetime as dt
import math
from decimal import Decimal

import barograph as bg
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest


def mixed(rows: int = 5000) -> pl.DataFrame:
    rng = np.random.default_rng(3)
    floats = rng.normal(10, 3, rows)
    return pl.DataFrame(
        {
            "f64": pl.Series(floats).set(pl.Series(rng.random(rows) < 0.1), None),
            "f32": pl.Series(floats, dtype=pl.Float32),
            "i8": pl.Series(rng.integers(-100, 100, rows), dtype=pl.Int8),
            "u16": pl.Series(rng.integers(0, 60_000, rows), dtype=pl.UInt16),
            "i64": pl.Series(rng.integers(-(10**12), 10**12, rows)),
            "bool": pl.Series(rng.random(rows) < 0.3),
            "text": pl.Series(rng.choice(["aa", "b", "a much longer name than twelve bytes", None], rows).tolist()),
            "cat": pl.Series(rng.choice(["x", "y", "z"], rows).tolist(), dtype=pl.Categorical),
            "enum": pl.Series(rng.choice(["x", "y"], rows).tolist(), dtype=pl.Enum(["x", "y", "z"])),
            "date": pl.Series([dt.date(2026, 1, 1) + dt.timedelta(days=int(d)) for d in rng.integers(0, 300, rows)]),
            "duration": pl.Series([dt.timedelta(milliseconds=int(d)) for d in rng.integers(0, 9000, rows)]),
            "decimal": pl.Series([Decimal(int(d)) / 100 for d in rng.integers(0, 9000, rows)], dtype=pl.Decimal(12, 2)),
        }
    )


def test_every_number_agrees_with_a_plain_recomputation():
    frame = mixed()
    profile = bg.profile(frame)
    assert profile.rows == frame.height
    for name in ("f64", "f32", "i8", "u16", "i64", "decimal"):
        values = frame[name].drop_nulls().cast(pl.Float64)
        column = profile[name]
        assert (column.count, column.null_count) == (frame.height, frame[name].null_count())
        assert column.mean == pytest.approx(math.fsum(values) / len(values), rel=1e-15)
        assert column.std == pytest.approx(values.std(), rel=1e-11)
        assert (column.min, column.max) == (values.min(), values.max())
        assert column.zero_count == (values == 0).sum()
        assert column.negative_count == (values < 0).sum()
        for q in (0.0, 0.01, 0.5, 0.99, 1.0):
            want = values.sort()[max(math.ceil(q * len(values)), 1) - 1]
            assert abs(column.quantile(q) - want) <= 0.00542 * abs(want)
    for name in ("text", "cat", "enum"):
        counts = dict(frame[name].drop_nulls().cast(pl.String).value_counts().iter_rows())
        assert dict(profile[name].top_k(100)) == counts
        assert profile[name].distinct == len(counts)
    assert dict(profile["bool"].top_k()) == {"true": frame["bool"].sum(), "false": (~frame["bool"]).sum()}
    assert profile["duration"].max == frame["duration"].max().total_seconds()
    assert profile["date"].time_range[0] == int(dt.datetime.combine(frame["date"].min(), dt.time(), dt.UTC).timestamp()) * 10**9


def test_any_frame_gives_the_same_bytes(tmp_path):
    frame = mixed().drop("duration", "decimal", "enum", "cat", "date")
    want = bg.profile(frame).to_bytes()
    frame.write_parquet(tmp_path / "one.parquet")
    frame[:100].write_parquet(tmp_path / "part-0.parquet")
    frame[100:].write_parquet(tmp_path / "part-1.parquet")
    table = frame.to_arrow()
    connection = duckdb.connect()
    connection.register("t", table)
    forms = {
        "lazy": frame.lazy(),
        "path": tmp_path / "one.parquet",
        "glob": str(tmp_path / "part-*.parquet"),
        "arrow": table,
        "reader": table.to_reader(),
        "chunks": pl.concat([frame[:7], frame[7:]], rechunk=False),
        "duckdb": connection.sql("select * from t"),
        "sliced": pl.concat([frame[:13], frame])[13:],
    }
    for name, form in forms.items():
        assert bg.profile(form).to_bytes() == want, name


@pytest.mark.parametrize("backend", ["numpy", "pyarrow"])
def test_pandas_frames_agree_where_pandas_keeps_the_type(backend):
    frame = mixed().select("f64", "f32", "i64", "text")
    pandas = frame.to_pandas(use_pyarrow_extension_array=backend == "pyarrow")
    got, want = bg.profile(pandas), bg.profile(frame)
    for name in frame.columns:
        assert (got[name].count, got[name].null_count, got[name].mean) == (want[name].count, want[name].null_count, want[name].mean)


def test_special_values_are_counted_apart():
    column = bg.profile({"x": np.array([1.0, -0.0, np.nan, np.inf, -np.inf, np.inf, -2.0])})["x"]
    assert (column.count, column.null_count, column.nan_count) == (7, 0, 1)
    assert (column.positive_infinity_count, column.negative_infinity_count) == (2, 1)
    assert (column.zero_count, column.negative_count, column.min, column.max, column.mean) == (1, 1, -2.0, 1.0, pytest.approx(-1 / 3))


def test_half_floats_dictionaries_and_nested_columns():
    table = pa.table(
        {
            "half": pa.array(np.array([1.5, 2.5], dtype=np.float16)),
            "dictionary": pa.array(["a", None]).dictionary_encode(),
            "number_dictionary": pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), pa.array([1.0, 4.0])),
            "list": pa.array([[1, 2], None]),
            "vector": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)),
            "struct": pa.array([{"a": 1}, {"a": 2}]),
            "nothing": pa.nulls(2),
            "large": pa.array(["x", "y"], pa.large_string()),
            "binary": pa.array([b"x", b"y"]),
            "huge": pa.array([Decimal("1e40"), None], pa.decimal256(60, 2)),
        }
    )
    profile = bg.profile(table)
    assert profile["half"].max == 2.5
    assert profile["dictionary"].top_k() == [("a", 1)]
    assert profile["dictionary"].null_count == 1
    assert profile["number_dictionary"].mean == 2.5
    assert profile["huge"].max == 1e40
    assert profile["nothing"].null_count == 2
    for name in ("list", "struct", "binary"):
        assert profile[name].kind == "unsupported"
        assert "not supported" in profile[name].unread
    assert profile["vector"].kind == "embedding"
    assert profile.to_frame().height == table.num_columns


def test_a_million_names_stay_bounded():
    frame = pl.DataFrame({"name": pl.Series("name", np.arange(1_000_000)).cast(pl.String) + "-x", "few": ["a", "b"] * 500_000})
    schema = bg.Schema.infer(frame).with_roles(name="feature")
    profile = bg.profile(frame, schema=schema)
    assert len(profile.to_bytes()) < 400_000
    assert profile["name"].distinct == pytest.approx(1e6, rel=0.06)
    assert profile["few"].distinct == 2


def test_quantiles_never_leave_the_extremes():
    column = bg.profile({"x": [1.0, 3.0, 3.0], "y": [-3.0, -3.0, -1.0]})
    assert (column["x"].quantile(0.0), column["x"].quantile(1.0)) == (1.0, 3.0)
    assert (column["y"].quantile(0.0), column["y"].quantile(1.0)) == (-3.0, -1.0)


def test_empty_frames_and_no_columns():
    assert bg.profile(pl.DataFrame({"x": pl.Series([], dtype=pl.Float64)}))["x"].quantile(0.5) is None
    assert bg.profile(pl.DataFrame()).to_frame().height == 0
    assert bg.profile({}).rows == 0


def test_pandas_columns_that_cannot_be_exported_do_not_hide_the_others():
    frame = pd.DataFrame({"x": [1.0, 2.0], "odd": [object(), object()]})
    profile = bg.profile(frame)
    assert profile["x"].mean == 1.5
    assert profile["odd"].unread


def test_schema_is_inferred_printed_saved_and_overridden(tmp_path):
    frame = pl.DataFrame(
        {
            "user_id": np.arange(1000),
            "amount": np.random.default_rng(0).normal(size=1000),
            "y_true": [0, 1] * 500,
            "score": np.linspace(0, 1, 1000),
            "when": pl.datetime_range(dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 2), "1m", eager=True)[:1000],
            "comment": [f"a longer sentence with words and number {i}" for i in range(1000)],
        }
    )
    schema = bg.Schema.infer(frame)
    assert schema.roles == {"user_id": "id", "amount": "feature", "y_true": "label", "score": "score", "when": "time", "comment": "feature"}
    assert schema.kinds["comment"] == "text"
    schema.save(tmp_path / "schema.json")
    assert bg.Schema.load(tmp_path / "schema.json") == schema
    assert bg.Schema.infer(frame, amount="segment").roles["amount"] == "segment"
    with pytest.raises(bg.errors.NotFoundError, match="amonut"):
        schema.with_roles(amonut="id")
    with pytest.raises(bg.errors.InvalidArgumentError, match="role"):
        schema.with_roles(amount="nonsense")
    (tmp_path / "bad.json").write_text("{]")
    with pytest.raises(bg.errors.InvalidArgumentError, match="not a schema"):
        bg.Schema.load(tmp_path / "bad.json")


def test_scores_of_column_profiles_are_those_of_the_report():
    rng = np.random.default_rng(5)
    a = pl.DataFrame({"x": rng.normal(size=5000), "c": rng.choice(["a", "b", "c"], 5000)})
    b = pl.DataFrame({"x": [*rng.normal(0.5, size=3999), None], "c": rng.choice(["a", "b", "d"], 4000)})
    reference = bg.Reference(a)
    was, exact, plain = bg.profile(a, reference=reference), bg.profile(b, reference=reference), bg.profile(b)
    report = {(row["column"], row["method"]): row for row in bg.compare(reference, exact).to_frame().to_dicts()}
    scores = bg.scores
    for column, names in {"x": ["psi", "jensen_shannon", "total_variation", "l_infinity"], "c": ["unseen_share", "null_share"]}.items():
        for name in names:
            score, row = getattr(scores, name)(was[column], exact[column]), report[column, name]
            assert (score.value, score.lower, score.upper) == (row["value"], row["lower"], row["upper"]), name
    for name in ["wasserstein", "wasserstein_normalised", "wasserstein_clipped", "energy"]:
        assert getattr(scores, name)(bg.profile(a)["x"], plain["x"]).value == report["x", name]["value"]
    assert scores.distinct_share(was["c"], exact["c"]).value == report["c", "distinct_share"]["value"]
    interval = scores.kolmogorov_smirnov(bg.profile(a)["x"], plain["x"])
    assert interval.lower <= report["x", "kolmogorov_smirnov"]["value"] <= interval.upper
    assert interval.upper - interval.lower < 0.02
    assert abs(scores.psi(bg.profile(a)["x"], plain["x"]).value - report["x", "psi"]["value"]) < 0.02
    assert scores.chi_square(was["c"], exact["c"]).p_value < 1e-9


def test_column_profiles_that_do_not_fit_are_refused():
    profile = bg.profile({"x": [1.0, 2.0], "c": ["a", "b"]})
    with pytest.raises(bg.errors.IncompatibleError, match="both hold numbers or both hold names, got number and category"):
        bg.scores.psi(profile["x"], profile["c"])
    with pytest.raises(bg.errors.IncompatibleError, match="wasserstein does not apply to columns of kind category and category"):
        bg.scores.wasserstein(profile["c"], profile["c"])
    with pytest.raises(bg.errors.InvalidArgumentError, match="the other side is not"):
        bg.scores.psi(profile["x"], [1, 2])
    with pytest.raises(bg.errors.InvalidArgumentError, match="`current` must be the profile of a column, got list"):
        bg.scores.energy(profile["x"], [1, 2])
    with pytest.raises(bg.errors.InvalidArgumentError, match="at least one finite value"):
        bg.scores.energy(profile["x"], bg.profile({"x": [float("nan")]})["x"])
