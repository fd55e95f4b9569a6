"""Nothing that must not be kept is kept."""

import pickle
from datetime import UTC, datetime, timedelta

import barograph as bg
import numpy as np
import polars as pl
import pytest

KEY = b"an odd key of some bytes"
PRIVACY = bg.Privacy({"email": "hash", "card": "drop", "age": [18, 30, 65], "account": "hash"}, key=KEY)
DAY = datetime(2026, 1, 5, tzinfo=UTC)
SECRETS = [b"SECRET", b"4111-1111", KEY, b"86753090"]


def rows(n=2000, seed=0, people=7):
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "email": [f"SECRET{i % people}@example.org" for i in range(n)],
            "card": ["4111-1111"] * n,
            "age": rng.integers(10, 90, n),
            "account": [86753090 + i % people for i in range(n)],
            "x": rng.normal(size=n),
        }
    )


def test_planted_secrets_are_nowhere(tmp_path):
    frame = rows()
    frame.write_parquet(tmp_path / "rows.parquet")
    for source in (
        frame,
        frame.lazy(),
        str(tmp_path / "rows.parquet"),
        frame.to_pandas(),
        frame.to_arrow(),
        frame.to_dict(as_series=False),
    ):
        reference = bg.Reference(PRIVACY.frame(source))
        assert reference.schema.kinds["email"] == "category"
        assert "card" not in reference.schema.kinds
        profile = bg.profile(PRIVACY.frame(source), reference=reference)
        assert len(profile["email"].top_k(10)) == len(profile["account"].top_k(10)) == 7
        assert {name for name, _ in profile["age"].top_k(10)} == {"(-inf, 18]", "(18, 30]", "(30, 65]", "(65, inf)"}
    report = bg.compare(reference, PRIVACY.frame(rows(seed=1, people=9)))
    monitor = bg.Monitor("m", reference=reference, ticks="manual", privacy=PRIVACY)
    monitor.observe_frame(rows(seed=2).with_columns(at=DAY), time="at")
    for row in rows(50, 3).iter_rows(named=True):
        monitor.observe(row, time=DAY, id=row["email"])
    snapshot = monitor.snapshot()
    monitor.tick(DAY + timedelta(hours=1))
    texts = [reference.to_bytes(), profile.to_bytes(), snapshot, monitor.snapshot(), repr(PRIVACY).encode(), report.to_html().encode()]
    texts += [str(report.to_dict()).encode(), str(monitor.history().to_dicts()).encode(), str(monitor.alerts().to_dicts()).encode()]
    for text in texts:
        assert not [secret for secret in SECRETS if secret in text]
    # The same without it shows that the search finds them.
    assert b"SECRET" in bg.profile(frame).to_bytes()


def test_equal_values_stay_equal_on_every_way_in():
    reference = bg.Reference(PRIVACY.frame(rows()))
    one, many = (bg.Monitor("m", reference=reference, ticks="manual", privacy=PRIVACY) for _ in range(2))
    frame = rows(300, 5)
    many.observe_frame(frame.with_columns(pl.col("account").cast(pl.Float64), at=DAY), time="at")
    for row in frame.iter_rows(named=True):
        one.observe({**row, "account": str(row["account"]), "age": np.int64(row["age"])}, time=DAY)
    for monitor in (one, many):
        monitor.tick(DAY + timedelta(hours=1))
    assert one.history().equals(many.history())
    assert not bg.compare(reference, PRIVACY.frame(rows(seed=8))).drifted
    other = bg.Privacy(PRIVACY.columns, key=b"quite another key of ours")
    assert bg.compare(reference, other.frame(rows(seed=8))).drifted


def test_nulls_nan_and_odd_values():
    privacy = bg.Privacy({"a": "hash", "b": [0.5]}, key=KEY)
    assert privacy.row({"a": None, "b": float("nan")}) == {"a": None, "b": None}
    assert privacy.row({"a": 1.0})["a"] == privacy.row({"a": 1})["a"] == privacy.row({"a": "1"})["a"] != privacy.row({"a": 1.5})["a"]
    assert privacy.row({"b": "text"}) == {"b": None}
    frame = pl.DataFrame({"a": [None, "x", "x"], "b": [0.5, float("nan"), float("inf")]})
    profile = bg.profile(privacy.frame(frame))
    assert (profile["a"].null_count, profile["b"].null_count) == (1, 1)
    assert dict(profile["b"].top_k()) == {"(-inf, 0.5]": 1, "(0.5, inf)": 1}
    assert bg.profile(privacy.frame(frame.head(0))).rows == 0
    with pytest.raises(bg.errors.FrameError, match="dropped, not hashed"):
        bg.profile(privacy.frame(pl.DataFrame({"a": [[1], [2]]})))


def test_a_restored_monitor_asks_for_its_privacy():
    reference = bg.Reference(PRIVACY.frame(rows()))
    snapshot = bg.Monitor("m", reference=reference, ticks="manual", privacy=PRIVACY).snapshot()
    assert bg.Monitor.restore(snapshot, privacy=PRIVACY).name == "m"
    with pytest.raises(bg.errors.IncompatibleError, match="privacy="):
        bg.Monitor.restore(snapshot)
    with pytest.raises(bg.errors.InvalidArgumentError, match="not pickled"):
        pickle.dumps(PRIVACY)


@pytest.mark.parametrize(
    ("columns", "key", "message"),
    [
        ({"a": "hide"}, None, '"drop", "hash" or edges'),
        ({"a": "hash"}, None, "16 to 64 bytes"),
        ({"a": "hash"}, b"short", "got 5 bytes"),
        ({"a": [2, 1]}, None, "ascending"),
        ({"a": []}, None, "ascending"),
        ({"a": [float("nan")]}, None, "finite"),
        ("a", None, "mapping"),
    ],
)
def test_rules_that_cannot_be_are_refused(columns, key, message):
    with pytest.raises(bg.errors.InvalidArgumentError, match=message) as error:
        bg.Privacy(columns, key)
    assert "short" not in str(error.value)


def test_rare_names_are_not_kept():
    cities = ["Bonn"] * 500 + ["Ulm"] * 300 + ["SECRET village"] * 3 + [None] * 10
    frame = pl.DataFrame({"city": cities, "x": np.arange(813.0)})
    rare = bg.Privacy({"city": 20})
    with pytest.raises(bg.errors.InvalidArgumentError, match="not known yet"):
        bg.Reference(rare.frame(frame))
    privacy = rare.fit(frame.lazy())
    reference = bg.Reference(privacy.frame(frame))
    assert dict(reference.profile["city"].top_k(9)) == {"Bonn": 500, "Ulm": 300, "(rare)": 3}
    monitor = bg.Monitor("m", reference=reference, ticks="manual", privacy=privacy)
    monitor.observe({"city": "SECRET hamlet", "x": 1.0}, time=DAY)
    monitor.observe_frame(frame.with_columns(at=pl.lit(DAY)), time="at")
    monitor.tick(DAY + timedelta(hours=1))
    for data in (monitor.snapshot(), reference.to_bytes(), str(monitor.history()).encode()):
        assert b"SECRET" not in data
    with pytest.raises(bg.errors.InvalidArgumentError, match="which the frame has not"):
        rare.fit({"town": ["Bonn"]})
    with pytest.raises(bg.errors.InvalidArgumentError, match="at least 2"):
        bg.Privacy({"city": 1})
