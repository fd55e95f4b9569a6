"""Whatever comes in: one clear error with a hint, or a row that says why."""

import os
import subprocess
import sys
from pathlib import Path

import barograph as bg
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

BAROGRAPH = str(Path(sys.executable).with_name("barograph"))


def normal(n=2000, seed=0, mean=0.0):
    return np.random.default_rng(seed).normal(mean, 1, n)


def rows(report, column, method=None):
    frame = report.to_frame().filter(pl.col("column") == column)
    return frame if method is None else frame.filter(pl.col("method") == method)


def verdict(report, column):
    return next(c["verdict"] for c in report.to_dict()["columns"] if c["column"] == column)


def test_missing_extra_and_retyped_columns_are_rows_that_name_them():
    reference = bg.Reference({"amount": normal(), "number": normal(), "name": ["a", "b"] * 1000})
    report = bg.compare(reference, {"amuont": normal(seed=1), "number": ["x"] * 2000, "name": ["a", "b"] * 1000})
    assert 'nearest name is "amuont"' in rows(report, "amount")["reason"][0]
    assert rows(report, "number")["reason"][0].startswith("of another type than the reference: expected number")
    assert rows(report, "amuont")["reason"][0] == "not in the reference: not compared"
    assert report.unjudged == ["amount", "number"]
    assert not report.drifted


@pytest.mark.parametrize("values", [[1.0, 2.0], ["a", "b"], [True, False]])
def test_a_column_of_nulls_without_a_type_fits_every_kind(values):
    """Polars' own export of such a column is refused; a dictionary without values made the border panic."""
    reference = bg.Reference({"x": values * 1000})
    for current in ({"x": [None] * 500}, pl.DataFrame({"x": [None] * 500}), pd.DataFrame({"x": pd.Categorical([None] * 500)})):
        report = bg.compare(reference, current)
        assert verdict(report, "x") == "critical"
        assert rows(report, "x", "null_share")["value"][0] == 1.0
    assert bg.profile({"x": [None] * 5})["x"].null_count == 5


def test_an_int_against_an_int_of_another_size_is_the_same_kind():
    values = np.random.default_rng(0).integers(0, 100, 5000)
    report = bg.compare(bg.Reference({"x": values.astype(np.int32)}), {"x": values.astype(np.float64)})
    assert verdict(report, "x") == "ok"


def test_all_null_constant_and_one_row():
    reference = bg.Reference({"x": normal(), "constant": np.ones(2000)})
    report = bg.compare(reference, pl.DataFrame({"x": pl.Series([None] * 2000, dtype=pl.Float64), "constant": np.ones(2000)}))
    assert verdict(report, "x") == "critical"
    assert rows(report, "x", "null_share")["value"][0] == 1.0
    assert verdict(report, "constant") == "ok"
    assert "one bin" in rows(report, "constant", "psi")["reason"][0]
    moved = bg.compare(reference, {"x": normal(seed=1), "constant": np.full(2000, 2.0)})
    assert verdict(moved, "constant") == "critical"
    one = bg.compare(reference, {"x": [0.1], "constant": [1.0]})
    assert not one.drifted
    assert one.unjudged == ["x", "constant"]
    empty = bg.compare(reference, pl.DataFrame(schema={"x": pl.Float64, "constant": pl.Float64}))
    assert empty.unjudged == ["x", "constant"]
    nothing = bg.compare(bg.Reference({"x": pl.Series([None] * 500, dtype=pl.Float64)}), {"x": normal()})
    assert verdict(nothing, "x") == "critical"


def test_a_flood_of_nan_and_infinities_is_seen():
    reference = bg.Reference({"x": normal()})
    flooded = normal(seed=1)
    flooded[:1000:2], flooded[1:1000:2] = np.nan, np.inf
    report = bg.compare(reference, {"x": flooded})
    assert verdict(report, "x") == "critical"
    assert rows(report, "x", "nonfinite_share")["value"][0] == pytest.approx(0.5)
    assert bg.compare(reference, {"x": np.full(2000, np.nan)}).drifted


def test_one_nan_in_a_million_rows_is_fine():
    current = normal(1_000_000, 1)
    current[17] = np.nan
    assert verdict(bg.compare(bg.Reference({"x": normal(100_000)}), {"x": current}), "x") == "ok"


@pytest.mark.parametrize("frame", [7, "no/such/file.parquet", object(), [1, 2, 3], None], ids=lambda frame: type(frame).__name__)
def test_what_is_no_frame_is_one_clear_error(frame):
    with pytest.raises(bg.errors.FrameError) as caught:
        bg.profile(frame)
    assert "frame" in str(caught.value) or "no such file" in str(caught.value)


def test_duplicate_names_are_refused():
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    with pytest.raises(bg.errors.InvalidArgumentError, match="twice"):
        bg.profile(table)


def test_ragged_dicts_are_refused():
    with pytest.raises(bg.errors.FrameError, match="table"):
        bg.profile({"a": [1, 2], "b": [1]})


def test_unreadable_and_truncated_parquet(tmp_path):
    good = tmp_path / "good.parquet"
    pl.DataFrame({"x": normal(100_000)}).write_parquet(good)
    (tmp_path / "cut.parquet").write_bytes(good.read_bytes()[:-1000])
    (tmp_path / "noise.parquet").write_bytes(os.urandom(5000))
    (tmp_path / "empty.parquet").write_bytes(b"")
    for name in ("cut", "noise", "empty"):
        with pytest.raises(bg.errors.FrameError, match="could not be read"):
            bg.profile(tmp_path / f"{name}.parquet")


def test_snapshots_cut_short_newer_random_or_of_another_kind():
    reference = bg.Reference({"x": normal(), "name": ["a", "b"] * 1000})
    data = reference.to_bytes()
    assert bg.Reference.from_bytes(data).to_bytes() == data
    newer = bytearray(data)
    newer[4] = 99
    cases = {"cut": data[:-9], "newer": bytes(newer), "random": os.urandom(4000), "none": b"", "kind": bg.profile({"x": [1]}).to_bytes()}
    for name, bad in cases.items():
        with pytest.raises(bg.errors.SnapshotError) as caught:
            bg.Reference.from_bytes(bad)
        assert caught.value.hint, name
    with pytest.raises(bg.errors.SnapshotError, match="version 99"):
        bg.Reference.from_bytes(cases["newer"])
    with pytest.raises(bg.errors.UnsupportedError, match="bytes"):
        bg.Profile.from_bytes("text")


def test_every_flipped_bit_and_every_resealed_byte_is_an_error_or_a_sound_profile():
    import zlib

    data = bg.profile({"x": normal(300), "name": ["a", "b", None] * 100}).to_bytes()
    rng = np.random.default_rng(1)
    for _ in range(3000):
        broken = bytearray(data[:-4])
        for _ in range(rng.integers(1, 4)):
            broken[rng.integers(7, len(broken))] = rng.integers(256)
        sealed = bytes(broken) + zlib.crc32(broken).to_bytes(4, "little")
        try:
            profile = bg.Profile.from_bytes(sealed)
        except bg.errors.SnapshotError:
            continue
        profile.to_frame()
        assert (profile + profile).rows == 2 * profile.rows


def test_arguments_out_of_range_are_named():
    reference = bg.Reference({"x": normal()})
    for arguments, name in (
        ({"confidence": 1.5}, "confidence"),
        ({"unions": 1}, "unions"),
        ({"psi_tolerances": (0.3, 0.2, 0.1)}, "psi_tolerances"),
        ({"share_tolerances": (0.0, 0.2, 0.3)}, "share_tolerances"),
    ):
        with pytest.raises(bg.errors.InvalidArgumentError, match=name):
            bg.compare(reference, {"x": normal()}, **arguments)
    with pytest.raises(bg.errors.InvalidArgumentError, match="bins"):
        bg.Reference({"x": normal()}, bins=1)
    with pytest.raises(bg.errors.InvalidArgumentError, match=r"did you mean 0\.99"):
        bg.profile({"x": normal()})["x"].quantile(99)
    with pytest.raises(bg.errors.NotFoundError, match="it has x"):
        bg.profile({"x": normal()})["y"]
    with pytest.raises(bg.errors.InvalidArgumentError, match="at least one profile"):
        bg.merge([])
    with pytest.raises(bg.errors.IncompatibleError):
        bg.profile({"x": normal()}, reference=reference) + bg.profile({"x": normal()})
    with pytest.raises(bg.errors.IncompatibleError, match="number in one profile and category in the other"):
        bg.profile({"x": [1.0]}) + bg.profile({"x": ["a"]})


def run(*arguments):
    return subprocess.run([BAROGRAPH, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_exit_codes_of_the_command_line(tmp_path):
    pl.DataFrame({"x": normal(), "y": normal(seed=5)}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"x": normal(seed=1)}).write_parquet(tmp_path / "missing.parquet")
    pl.DataFrame({"x": normal(seed=1), "y": normal(seed=2)}).write_csv(tmp_path / "b.csv")
    pl.DataFrame({"x": normal(seed=1, mean=1), "y": normal(seed=2)}).write_parquet(tmp_path / "c.parquet")
    bg.Reference(tmp_path / "a.parquet").save(tmp_path / "a.ref")
    (tmp_path / "cut.ref").write_bytes((tmp_path / "a.ref").read_bytes()[:-5])
    assert run("compare", tmp_path / "a.ref", tmp_path / "b.csv").returncode == 0
    assert run("compare", tmp_path / "a.parquet", tmp_path / "c.parquet", "--html", tmp_path / "r.html").returncode == 1
    assert (tmp_path / "r.html").stat().st_size > 1000
    assert run("compare", tmp_path / "a.parquet", tmp_path / "c.parquet", "--fail-on", "never").returncode == 0
    done = run("compare", tmp_path / "a.ref", tmp_path / "missing.parquet")
    assert done.returncode == 3
    assert "'y'" in done.stderr
    for bad in (("compare", tmp_path / "cut.ref", tmp_path / "b.csv"), ("profile", tmp_path / "none.csv"), ("compare",), ("nonsense",)):
        done = run(*bad)
        assert done.returncode == 2
        assert done.stderr.strip()
        assert "Traceback" not in done.stderr
