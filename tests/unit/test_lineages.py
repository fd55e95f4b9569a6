"""Lineages: what was accepted, in a chain that cannot be edited unseen, and when a new reference suggests itself."""

import json
from datetime import UTC, datetime, timedelta

import barograph as bg
import numpy as np
import polars as pl
import pytest
from barograph.errors import IncompatibleError, InvalidArgumentError, NotFoundError, SnapshotError
from barograph.lineages import Lineage
from polars.testing import assert_frame_equal

START = datetime(2026, 1, 5, tzinfo=UTC)
RNG = np.random.default_rng(0)


def day(days):
    return START + timedelta(days=days)


FIRST = bg.Reference({"x": RNG.normal(size=3000), "c": RNG.choice(["a", "b"], 3000), "old": RNG.random(3000), "k": RNG.random(3000)})
SECOND = bg.Reference(
    {"x": RNG.normal(size=3000) + 1, "c": RNG.choice(["a", "d"], 3000), "new": [True, False] * 1500, "k": ["u", "v"] * 1500}
)
THIRD = bg.Reference({"x": RNG.normal(size=3000), "c": RNG.choice(["a", "b"], 3000), "old": RNG.random(3000), "k": RNG.random(3000)})


def made(**where):
    lineage = Lineage(**where)
    lineage.accept(FIRST, who="ada", why="first model", when=day(0))
    lineage.accept(SECOND, who="bob", why="currency changed", when=day(10))
    lineage.accept(THIRD, who="ada", why="rolled back", when=day(20), parent=FIRST)
    return lineage


def test_it_records_who_when_why_and_from_what():
    lineage = made()
    first, second, third = lineage[FIRST.id], lineage[SECOND.id], lineage[THIRD.id[:8]]
    assert (first.who, first.why, first.time, first.parent, first.rows) == ("ada", "first model", day(0), None, 3000)
    assert (second.reference, second.parent) == (SECOND.id, FIRST.id)
    assert (third.parent, lineage.head) == (FIRST.id, third)
    assert (lineage.at(day(-1)), lineage.at(day(10)), lineage.at(day(19.9))) == (None, second, second)
    assert (second.previous, third.previous) == (first.hash, second.hash)
    frame = lineage.to_frame()
    assert frame["number"].to_list() == [1, 2, 3]
    row = frame.row(1, named=True)
    assert (row["added"], row["removed"], row["changed"]) == (["new"], ["old"], ["k"])
    assert row["drifted"] == ["x", "c"]
    assert frame["drifted"][2].to_list() == []
    assert Lineage().to_frame().schema == frame.schema
    assert Lineage().head is None
    assert (repr(Lineage()), repr(lineage)) == ("Lineage(0 accepted)", f"Lineage(3 accepted, head {THIRD.id[:8]})")


def test_the_difference_of_two_references():
    frame = made().diff(FIRST.id, SECOND.id)
    schema = frame.filter(pl.col("change").is_in(["added", "removed", "kind", "role"])).select("column", "change", "reason")
    assert schema.rows() == [("new", "added", "kind boolean"), ("old", "removed", "kind number"), ("k", "kind", "number became category")]
    numbers = {
        (row["column"], row["method"]): (row["before"], row["after"]) for row in frame.filter(change="numbers").iter_rows(named=True)
    }
    assert numbers["x", "mean"] == (FIRST.profile["x"].mean, SECOND.profile["x"].mean)
    assert numbers["x", "median"] == (FIRST.profile["x"].quantile(0.5), SECOND.profile["x"].quantile(0.5))
    assert numbers["c", "share of b"] == (FIRST.profile["c"].name_count("b") / 3000, 0.0)
    assert numbers["c", "share of d"] == (0.0, SECOND.profile["c"].name_count("d") / 3000)
    assert not {column for column, _ in numbers} & {"k", "old", "new"}
    want = bg.compare(FIRST, SECOND.profile).to_frame().filter(pl.col("column").is_in(["x", "c"]))
    found = frame.filter(change="drift")
    columns = ["column", "method", "value", "lower", "upper", "threshold", "verdict", "reason"]
    assert_frame_equal(found.select(columns), want.select(columns))
    assert frame.schema == made().diff(FIRST, FIRST).schema
    same = Lineage().diff(FIRST, FIRST)
    assert set(same["change"]) == {"numbers", "drift"}
    assert same["before"].equals(same["after"].rename("before"))


def test_names_beyond_the_most_frequent_are_unknown_not_none():
    many = bg.Reference({"c": [f"n{at}" for at in range(12) for _ in range(50 - at)]})
    few = bg.Reference({"c": ["n11"] * 400 + ["n0"] * 100})
    row = Lineage().diff(many, few).filter(method="share of n11").row(0, named=True)
    assert (row["before"], row["after"], row["reason"]) == (None, 0.8, "not among the 10 most frequent before")


def test_every_kind_of_column_can_be_recorded(tmp_path):
    n = 300
    frame = {
        "empty": pl.Series([None] * n, dtype=pl.Float64),
        "infinite": [float("inf"), float("nan"), -float("inf")] * 100,
        "t": [START + timedelta(hours=at) for at in range(n)],
        "id": [f"u{at}" for at in range(n)],
        "e": [[1.0, 2.0]] * n,
        "line\n": ["\n\u2028", "\x00", '"'] * 100,
    }
    lineage = Lineage(tmp_path / "lineage.jsonl")
    lineage.accept(bg.Reference(pl.DataFrame(frame)), who="a", why="b")
    lineage.accept(FIRST, who="ö\n", why="a\u2028b")
    read = Lineage(tmp_path / "lineage.jsonl").to_frame()
    assert (read["who"][1], read["why"][1]) == ("ö\n", "a\u2028b")
    assert sorted(read["removed"][1]) == sorted(frame)


def test_a_file_is_read_back_and_only_appended_to(tmp_path):
    path = tmp_path / "fraud.lineage"
    lineage = made(path=path)
    before = path.read_bytes()
    again = Lineage(path)
    assert_frame_equal(again.to_frame(), lineage.to_frame())
    assert again.head == lineage.head
    fourth = again.accept(SECOND, who="ada", why="once more", when=day(30))
    assert (fourth.number, fourth.parent) == (4, THIRD.id)
    assert path.read_bytes().startswith(before)
    assert len(path.read_text().splitlines()) == 4
    assert Lineage(path)[SECOND.id].number == 4, "the last, where one was accepted twice"
    # Without the references themselves only their drift is unknown.
    rows = Lineage(path).diff(FIRST.id, SECOND.id)
    assert rows.filter(change="drift").rows(named=True)[0]["reason"] == "the two references are not at hand: their drift is unknown"
    assert_frame_equal(rows.filter(pl.col("change") != "drift"), lineage.diff(FIRST.id, SECOND.id).filter(pl.col("change") != "drift"))


def test_references_are_kept_where_wanted(tmp_path):
    where = {"path": tmp_path / "lineage.jsonl", "references": tmp_path / "references"}
    lineage = made(**where)
    again = Lineage(**where)
    assert again.reference(FIRST.id[:8]).to_bytes() == FIRST.to_bytes()
    assert_frame_equal(again.diff(FIRST.id, SECOND.id), lineage.diff(FIRST.id, SECOND.id))
    (tmp_path / "references" / f"{SECOND.id}.baro").write_bytes(FIRST.to_bytes())
    with pytest.raises(SnapshotError, match=f"holds reference {FIRST.id[:8]}, expected {SECOND.id[:8]}"):
        Lineage(**where).reference(SECOND.id)
    with pytest.raises(NotFoundError, match="is not at hand"):
        Lineage(tmp_path / "lineage.jsonl").reference(FIRST.id)


def edited(lines, at, **changes):
    return [json.dumps({**json.loads(line), **changes}) if number == at else line for number, line in enumerate(lines, 1)]


@pytest.mark.parametrize(
    ("tamper", "number", "message"),
    [
        (lambda lines: edited(lines, 2, who="eve"), 2, "it was edited: its content has another hash"),
        (lambda lines: edited(lines, 1, rows=3001), 1, "it was edited"),
        (lambda lines: edited(lines, 3, hash="0" * 64), 3, "it was edited"),
        (lambda lines: edited(lines, 2, more=1), 2, "it was edited"),
        (lambda lines: lines[1:], 1, "the chain is broken"),
        (lambda lines: [lines[0], lines[2]], 2, "the chain is broken"),
        (lambda lines: [lines[0], lines[2], lines[1]], 2, "the chain is broken"),
        (lambda lines: [*lines, lines[2]], 4, "the chain is broken"),
        (lambda lines: [lines[0], "", *lines[1:]], 2, "is no line of this lineage"),
        (lambda lines: [lines[0], lines[1], lines[2][:-9]], 3, "is no line of this lineage"),
        (lambda lines: [lines[0], "[]", lines[2]], 2, "is no line of this lineage"),
        (lambda lines: [lines[0], '{"barograph": "lineage 2"}', lines[2]], 2, "it is a 'lineage 2'"),
        (lambda lines: ["[" * 100_000], 1, "is no line of this lineage"),
    ],
)
def test_a_line_that_was_touched_is_named(tmp_path, tamper, number, message):
    path = tmp_path / "lineage.jsonl"
    made(path=path)
    path.write_text("\n".join(tamper(path.read_text().splitlines())) + "\n")
    with pytest.raises(SnapshotError, match=rf"line {number} of .*lineage.jsonl is no line of this lineage.*") as caught:
        Lineage(path)
    assert message in str(caught.value)


def forged(lines, at, **changes):
    """A line with a hash that fits, and those after it chained anew: what only the other checks can see."""
    from barograph.lineages import _hash

    out, previous = [], None
    for number, line in enumerate(lines, 1):
        document = {**json.loads(line), "previous": previous, **(changes if number == at else {})}
        document.pop("hash")
        document["hash"] = previous = _hash(document)
        out.append(json.dumps(document))
    return out


@pytest.mark.parametrize(
    ("changes", "at", "message"),
    [
        ({"parent": "f" * 32}, 3, "line 3 .* its parent ffffffff was never accepted"),
        ({"parent": None}, 2, "line 2 .* its parent None was never accepted"),
        ({"parent": "f" * 32}, 1, "line 1 .* its parent ffffffff was never accepted"),
        ({"number": 7}, 2, "line 2 .* it is number 7"),
        ({"time": "2020-01-01T00:00:00+00:00"}, 2, "line 2 .* it is older than the line before"),
        ({"time": "2027-01-01T00:00:00"}, 2, "line 2 .* has no offset"),
        ({"more": 1}, 2, "line 2 "),
    ],
)
def test_a_line_that_makes_no_sense_is_named(tmp_path, changes, at, message):
    path = tmp_path / "lineage.jsonl"
    made(path=path)
    lines = path.read_text().splitlines()
    assert forged(lines, 0) == lines, "the forgery is the real thing"
    path.write_text("\n".join(forged(lines, at, **changes)) + "\n")
    with pytest.raises(SnapshotError, match=message):
        Lineage(path)


def test_a_write_that_was_cut_off_is_seen(tmp_path):
    path = tmp_path / "lineage.jsonl"
    made(path=path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SnapshotError, match=r"line 3 .* it was cut off"):
        Lineage(path)
    path.write_bytes(b"")
    assert len(Lineage(path)) == 0


def test_two_writers_do_not_tear_the_chain(tmp_path):
    path = tmp_path / "lineage.jsonl"
    first = made(path=path)
    second = Lineage(path)
    second.accept(FIRST, who="b", why="c", when=day(40))
    with pytest.raises(IncompatibleError, match="was written by somebody else meanwhile"):
        first.accept(SECOND, who="b", why="c", when=day(50))
    assert first.head.reference == THIRD.id
    assert len(Lineage(path)) == 4


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"new_reference": FIRST.profile}, "`new_reference` must be a Reference, got Profile"),
        ({"new_reference": THIRD}, "`new_reference` is the accepted one already"),
        ({"who": ""}, "`who` must say something, got ''"),
        ({"who": None}, "`who` must say something, got None"),
        ({"why": " \n"}, "`why` must say something"),
        ({"why": "\ud800"}, "`why` must be text that can be written"),
        ({"when": "today"}, "a time must be a datetime, got str"),
        ({"when": day(19)}, "`when` must not be before the last accepted reference, 2026-01-25"),
        ({"parent": "f" * 32}, "`parent` must have been accepted before, got ffffffff"),
        ({"parent": FIRST.id[:3]}, "`parent` must have been accepted before"),
        ({"parent": 3}, "`parent` must have been accepted before"),
        ({"parent": bg.Reference({"q": [1.0] * 50})}, "`parent` must have been accepted before"),
    ],
)
def test_what_cannot_be_accepted(tmp_path, terms, message):
    path = tmp_path / "lineage.jsonl"
    lineage = made(path=path)
    before = path.read_bytes()
    with pytest.raises(InvalidArgumentError, match=message):
        lineage.accept(**{"new_reference": SECOND, "who": "a", "why": "b", "when": day(30), **terms})
    assert path.read_bytes() == before
    assert len(lineage) == 3


def test_unknown_ids():
    lineage = made()
    for id in ("f" * 32, FIRST.id[:7], "", None):
        with pytest.raises(NotFoundError, match="was accepted here"):
            lineage[id]
    with pytest.raises(NotFoundError):
        lineage.diff(FIRST, "nothing of it")
    with pytest.raises(InvalidArgumentError, match="`parent` must have been accepted before"):
        Lineage().accept(FIRST, who="a", why="b", parent=SECOND)


# Suggestions


def alert(id, column, *, opened, severity="ticket", resolved=None):
    rows = [(id, column, "opened", severity, day(opened))] + (
        [] if resolved is None else [(id, column, "resolved", severity, day(resolved))]
    )
    schema = {"id": pl.Int64, "column": pl.String, "state": pl.String, "severity": pl.String, "time": pl.Datetime("ns", "UTC")}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(window_start=pl.col("time") - timedelta(days=1))


def metrics_of(before, after, *, metric="roc_auc", width=0.02, change=10):
    """Daily windows with one value before the change and another after it."""
    rows = [(metric, before if at < change else after, day(at), day(at + 1)) for at in range(20)]
    schema = {"metric": pl.String, "value": pl.Float64, "window_start": pl.Datetime("ns", "UTC"), "window_end": pl.Datetime("ns", "UTC")}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(lower=pl.col("value") - width, upper=pl.col("value") + width, labelled=pl.lit(500))


ASKED = {"metric": "roc_auc", "margin": 0.02, "now": day(20)}
DEPLOYS = {"v2": day(10)}
OPEN = pl.concat([alert(1, "x", opened=11), alert(2, "c", opened=11)])


def test_it_suggests_a_new_reference_where_drift_came_with_a_deploy_and_performance_held():
    (found,) = Lineage().suggest(OPEN, DEPLOYS, metrics_of(0.8, 0.799), **ASKED)
    assert (found.suggested, found.columns, found.change, found.time) == (True, ("x", "c"), "deploy v2", day(10))
    assert found.reason.startswith(
        "x, c drifted since deploy v2 on 2026-01-15 and stayed so; roc_auc went from 0.8 to 0.799, has fallen by at most 0.00"
    )
    assert found.reason.endswith("make a reference of the rows since then and accept it, if the change was meant")
    (less,) = Lineage().suggest(OPEN, DEPLOYS, metrics_of(0.3, 0.28, metric="brier"), **{**ASKED, "metric": "brier"})
    assert less.suggested


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        (metrics_of(0.8, 0.7), "roc_auc has fallen from 0.8 to 0.7: keep the reference"),
        (metrics_of(0.8, 0.8, width=0.3), "which is too uncertain: keep the reference"),
        (None, "whether roc_auc fell is unknown, no metrics were given"),
        (metrics_of(0.8, 0.8, metric="f1"), "there are no windows with an interval before the change"),
        (metrics_of(0.8, 0.8).filter(pl.col("window_end") <= day(10)), "there are no windows with an interval since the change"),
        (metrics_of(0.8, 0.8).filter(pl.col("window_start") >= day(10)), "there are no windows with an interval before the change"),
        (metrics_of(0.8, 0.8).with_columns(window_end=pl.col("window_end") + timedelta(days=30)), "no windows with an interval before"),
    ],
)
def test_it_does_not_where_performance_fell_or_is_unknown(metrics, reason):
    (found,) = Lineage().suggest(OPEN, DEPLOYS, metrics, **ASKED)
    assert not found.suggested
    assert reason in found.reason


@pytest.mark.parametrize(
    ("alerts", "terms", "columns"),
    [
        (alert(1, "x", opened=11, resolved=15), {}, []),
        (alert(1, "x", opened=11), {"now": day(13)}, []),
        (alert(1, "x", opened=11), {"now": day(13), "lasting": "2d"}, ["x"]),
        (alert(1, "x", opened=10), {}, []),
        (alert(1, "x", opened=12), {}, ["x"]),
        (alert(1, "x", opened=13), {}, []),
        (alert(1, "x", opened=13), {"within": "2d"}, ["x"]),
        (alert(1, "x", opened=11, severity="page"), {}, []),
        (pl.concat([OPEN, alert(3, "x", opened=12, severity="page")]), {}, ["c"]),
        (alert(1, "(model)", opened=11), {}, []),
    ],
)
def test_only_drift_that_began_with_the_change_and_stayed(alerts, terms, columns):
    found = Lineage().suggest(alerts, DEPLOYS, metrics_of(0.8, 0.8), **{**ASKED, **terms})
    assert [column for one in found for column in one.columns] == columns


def test_accepted_references_are_changes_and_so_are_deploys_in_a_history():
    lineage = Lineage()
    lineage.accept(FIRST, who="a", why="b", when=day(10))
    (found,) = lineage.suggest(OPEN, {"v1": day(2)}, metrics_of(0.8, 0.8), **ASKED)
    assert found.change == f"reference {FIRST.id[:8]}"
    monitor = bg.Monitor("m", reference=FIRST, window="1d", ticks="manual")
    monitor.deploy("v2", time=day(10.3))
    (found,) = Lineage().suggest(OPEN, monitor.history(), metrics_of(0.8, 0.8), **ASKED)
    assert (found.change, found.time) == ('version "v2" deployed', day(10))
    two = Lineage().suggest(pl.concat([OPEN, alert(5, "k", opened=4)]), {**DEPLOYS, "v1": day(3)}, metrics_of(0.8, 0.8), **ASKED)
    assert [(one.change, one.columns) for one in two] == [("deploy v2", ("x", "c")), ("deploy v1", ("k",))]
    near = Lineage().suggest(OPEN, {"v2": day(10), "v1": day(9.5)}, metrics_of(0.8, 0.8), **ASKED)
    assert [one.change for one in near] == ["deploy v2"], "the latest before it opened"


def test_windows_after_now_say_nothing():
    later = metrics_of(0.8, 0.6, change=15)
    assert Lineage().suggest(OPEN, DEPLOYS, later, **{**ASKED, "now": day(15)})[0].suggested
    assert not Lineage().suggest(OPEN, DEPLOYS, later, **ASKED)[0].suggested


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"alerts": OPEN.drop("time")}, "`alerts` must have the columns of a monitor's alerts, 'time' is missing"),
        ({"deploys": ["v2"]}, "`deploys` must map versions to times"),
        ({"deploys": {"v2": "today"}}, "a time must be a datetime"),
        ({"deploys": OPEN}, "`deploys` must be a monitor's history, column 'method' is missing"),
        ({"metrics": OPEN}, "`metrics` must have the columns of `loop.metrics\\(\\)`, 'metric' is missing"),
        ({"metric": "bias"}, "`metric` must be one where more or less is better, got 'bias'"),
        ({"metric": 3}, "`metric` must be one"),
        ({"margin": -1}, "`margin` must be a finite number of at least 0"),
        ({"margin": float("nan")}, "`margin` must be a finite number"),
        ({"now": None}, "a time must be a datetime, got NoneType"),
        ({"within": "x"}, "`within` must be"),
        ({"lasting": "x"}, "`lasting` must be"),
        ({"confidence": 1.0}, r"`confidence` must be in \[0.5, 1\), got 1.0"),
    ],
)
def test_bad_questions(terms, message):
    asked = {"alerts": OPEN, "deploys": DEPLOYS, "metrics": metrics_of(0.8, 0.8), **ASKED, **terms}
    with pytest.raises(InvalidArgumentError, match=message):
        Lineage().suggest(asked.pop("alerts"), asked.pop("deploys"), asked.pop("metrics"), **asked)


def test_the_limits_of_the_change_of_a_metric_cover_it():
    """Of 400 drawn pairs whose metric fell by just the margin, about 5 % are held to have not: 3 standard errors are 3.3 %."""
    rng, wrong = np.random.default_rng(5), 0
    exact = metrics_of(0.8, 0.78, width=0.0)
    for _ in range(400):
        noise = 0.01 * rng.normal(size=20)
        drawn = exact.with_columns(value=pl.col("value") + noise)
        drawn = drawn.with_columns(lower=pl.col("value") - 0.0196, upper=pl.col("value") + 0.0196)
        wrong += Lineage().suggest(OPEN, DEPLOYS, drawn, **ASKED)[0].suggested
    assert wrong / 400 <= 0.05 + 0.033
    assert wrong / 400 >= 0.05 - 0.033
