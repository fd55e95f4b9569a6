"""Labels that come late, twice, corrected, out of order or never, against a plain recomputation."""

from datetime import UTC, datetime, timedelta
from importlib.resources import files

import barograph as bg
import numpy as np
import polars as pl
import pytest
from barograph.metrics import BinaryMetrics
from hypothesis import given, settings
from hypothesis import strategies as st

DAY = datetime(2026, 1, 5)
FLIGHTS = pl.read_parquet(str(files("barograph") / "data" / "flights_nyc_2013.parquet"))


def at(hours):
    return DAY + timedelta(hours=hours)


def plain(predictions, labels, policy, as_of=None, horizon=None):
    """What the rules say, row by row."""
    first, joined = {}, {}
    for id, time, value in predictions:
        if (as_of is None or time < as_of) and id not in first:
            first[id] = (time, value)
    for id, label, arrived in labels:
        if id not in first or label is None or (as_of is not None and arrived > as_of):
            continue
        if horizon is not None and arrived - first[id][0] > horizon:
            continue
        known = joined.get(id)
        if known is None or (arrived >= known[1] if policy == "last" else arrived < known[1]):
            joined[id] = (label, arrived)
    return first, joined


events = st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0, 1, None]), st.integers(0, 8)), max_size=25)
asked = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8), st.integers(0, 1)), max_size=10)


@settings(max_examples=150, deadline=None)
@given(asked, events, st.sampled_from(["last", "first"]), st.none() | st.integers(0, 8), st.none() | st.integers(0, 5), st.data())
def test_the_rules_hold_whatever_the_order_of_frames(predictions, labels, policy, as_of, horizon, data):
    predictions = [(id, at(time), value) for id, time, value in predictions]
    labels = [(id, label, at(arrived)) for id, label, arrived in labels]
    as_of, horizon = None if as_of is None else at(as_of), None if horizon is None else timedelta(hours=horizon)
    first, want = plain(predictions, labels, policy, as_of, horizon)
    loop = bg.FeedbackLoop(policy=policy, as_of=as_of, horizon=horizon)
    given_p = pl.DataFrame(predictions, schema={"id": pl.Int64, "at": pl.Datetime("us"), "p": pl.Int8}, orient="row")
    given_l = pl.DataFrame(labels, schema={"id": pl.Int64, "y": pl.Int8, "at": pl.Datetime("us")}, orient="row")
    # Labels and predictions come in pieces, one kind or the other first; each kind keeps its own order.
    pieces = (
        [("p", given_p[i : i + 3]) for i in range(0, given_p.height, 3)],
        [("l", given_l[i : i + 4]) for i in range(0, given_l.height, 4)],
    )
    while pieces[0] or pieces[1]:
        kind = 0 if not pieces[1] or (pieces[0] and data.draw(st.booleans())) else 1
        name, piece = pieces[kind].pop(0)
        if name == "p":
            loop.predictions(piece, id="id", time="at", prediction="p")
        else:
            loop.labels(piece, id="id", label="y", time="at")
    found = {row["id"]: (row["label"], row["label_time"].replace(tzinfo=None)) for row in loop.joined().iter_rows(named=True)}
    assert found == want
    counts = loop.counts()
    assert (counts["predictions"], counts["joined"], counts["pending"]) == (len(first), len(want), len(first) - len(want))
    assert counts["null"] == sum(label is None for _, label, _ in labels)
    known = {id for id, label, arrived in labels if label is not None and (as_of is None or arrived <= as_of)}
    assert counts["orphan"] == len(known - set(first))


@pytest.mark.parametrize("terms", [{}, {"policy": "first"}, {"as_of": datetime(2013, 7, 15)}, {"horizon": "6h"}])
def test_flights_joined_as_polars_joins_them(terms):
    frame = FLIGHTS.filter(pl.col("split") == "production") if "split" in FLIGHTS.columns else FLIGHTS
    frame = (
        frame.with_columns(label_timestamp=pl.col("prediction_timestamp") + pl.duration(minutes=pl.col("flight_id") % 900 + 60))
        if "label_timestamp" not in frame.columns
        else frame
    )
    rng = np.random.default_rng(3)
    labels = frame.filter(pl.col("y_true").is_not_null()).select(id="flight_id", y=pl.col("y_true").cast(pl.Int8), at="label_timestamp")
    corrected = labels.sample(2000, seed=1).with_columns(y=1 - pl.col("y"), at=pl.col("at") + pl.duration(minutes=30))
    early = labels.sample(2000, seed=2).with_columns(y=1 - pl.col("y"), at=pl.col("at") - pl.duration(minutes=30))
    stream = pl.concat([labels, corrected, early, labels.sample(1000, seed=3)])
    stream = stream[rng.permutation(stream.height)]
    loop = bg.FeedbackLoop(**terms)
    for piece in stream.iter_slices(20_000):
        loop.labels(piece, id="id", label="y", time="at")
    loop.predictions(frame, id="flight_id", time="prediction_timestamp", score="y_score" if "y_score" in frame.columns else None)
    asked = frame.select(id="flight_id", asked="prediction_timestamp")
    if "as_of" in terms:
        asked, stream = asked.filter(pl.col("asked") < terms["as_of"]), stream.filter(pl.col("at") <= terms["as_of"])
    want = asked.join(stream.with_row_index("row"), on="id")
    if "horizon" in terms:
        want = want.filter(pl.col("at") - pl.col("asked") <= timedelta(hours=6))
    want = want.sort(["id", "at", "row"]).group_by("id", maintain_order=True)
    want = (want.first() if terms.get("policy") == "first" else want.last()).sort("id")
    found = loop.joined().sort("id")
    assert found["id"].equals(want["id"].rename("id"))
    assert (found["label"] == want["y"]).all()
    assert (found["label_time"].dt.replace_time_zone(None).cast(pl.Datetime("us")) == want["at"].cast(pl.Datetime("us"))).all()


def made(n=4000, seed=0, days=4, **terms):
    rng = np.random.default_rng(seed)
    score = rng.random(n)
    frame = pl.DataFrame(
        {
            "id": [f"e{i}" for i in range(n)],
            "at": [at(24 * days * i / n) for i in range(n)],
            "s": score,
            "p": (score > 0.5).astype(int),
            "y": (rng.random(n) < score).astype(int),
            "country": rng.choice(["de", "fr"], n),
        }
    )
    loop = bg.FeedbackLoop(**terms)
    loop.predictions(frame, id="id", time="at", prediction="p", score="s", keep=["country"])
    return loop, frame


def test_metrics_by_window_and_group_are_those_of_the_rows():
    loop, frame = made()
    loop.labels(frame[:3500].with_columns(at=pl.col("at") + timedelta(hours=2)), id="id", label="y", time="at")
    rows = loop.metrics(window="1d", by="country")
    assert rows["window_start"].unique().sort().to_list() == [at(24 * day).replace(tzinfo=UTC) for day in range(4)]
    for (start, country), group in rows.group_by("window_start", "country"):
        mine = frame[:3500].filter(
            (pl.col("at").dt.replace_time_zone("UTC") >= start)
            & (pl.col("at").dt.replace_time_zone("UTC") < start + timedelta(days=1))
            & (pl.col("country") == country)
        )
        want = BinaryMetrics()
        if mine.height:
            want.update_many(mine["y"].to_numpy(), mine["s"].to_numpy(), y_pred=mine["p"].to_numpy())
        for row in group.iter_rows(named=True):
            assert row["labelled"] == mine.height
            expected = want.to_dict()[row["metric"]]
            assert row["value"] == (None if expected is None else pytest.approx(expected, abs=1e-9))
            assert (row["value"] is None) == (row["reason"] is not None)
    coverage = loop.coverage("1d")
    assert coverage["coverage"].to_list() == [1.0, 1.0, 1.0, 0.5]
    assert coverage["delay_p50"][0] == 7200.0


def test_classes_versions_and_numbers_come_out_as_they_went_in():
    loop = bg.FeedbackLoop()
    frame = pl.DataFrame({"id": [1, 1, 2, 2], "at": [DAY] * 4, "p": ["cat", "dog", "dog", "dog"], "v": ["v1", "v2", "v1", "v1"]})
    loop.labels({"id": [1], "y": ["dog"]}, id="id", label="y")
    loop.predictions(frame, id="id", time="at", prediction="p", version="v")
    loop.labels({"id": [2], "y": ["dog"]}, id="id", label="y")
    joined = loop.joined().sort("id", "version")
    assert joined.select("id", "version", "prediction", "label").rows() == [
        (1, "v1", "cat", "dog"),
        (1, "v2", "dog", "dog"),
        (2, "v1", "dog", "dog"),
    ]
    assert loop.counts()["duplicate"] == 1
    by = {row["version"]: row["value"] for row in loop.metrics(by="version").filter(metric="accuracy").iter_rows(named=True)}
    assert by == {"v1": 0.5, "v2": 1.0}
    rents = bg.FeedbackLoop()
    rents.predictions({"id": [1, 2], "at": [DAY, DAY], "p": [10.0, 20.0]}, id="id", time="at", prediction="p")
    rents.labels({"id": [1, 2], "y": [11.5, 19.0]}, id="id", label="y")
    assert rents.metrics().filter(metric="mae")["value"].to_list() == [1.25]


def test_what_is_wrong_is_named_and_adds_nothing():
    loop, frame = made(100)
    before = loop.counts()
    cases = [
        (lambda: loop.predictions(frame.drop("id"), id="id", time="at"), "`id` names column"),
        (lambda: loop.predictions(frame, id="id", time="s"), "timestamps"),
        (lambda: loop.predictions(frame, id="s", time="at"), "`id` must be String as before"),
        (lambda: loop.labels(pl.DataFrame({"id": [1], "y": [1]}), id="id", label="y"), "`id` must be"),
        (lambda: loop.labels(frame, id="id", label="z"), "`label` names column"),
        (lambda: loop.labels(frame.with_columns(y=pl.lit("yes")), id="id", label="y"), "must be comparable"),
        (lambda: loop.metrics(by="z"), "`by` must be"),
        (lambda: loop.metrics(correct="delay"), "needs a horizon"),
        (lambda: loop.metrics(correct="sampling"), "needs a sample"),
        (lambda: loop.sample_for_labels(0), "`budget`"),
        (lambda: bg.FeedbackLoop(policy="best"), "`policy`"),
        (lambda: bg.FeedbackLoop(horizon="soon"), "`horizon`"),
    ]
    for wrong, message in cases:
        with pytest.raises(bg.errors.InvalidArgumentError, match=message):
            wrong()
    assert loop.counts() == before


def test_conflicts_at_one_instant_nulls_and_clocks_apart():
    loop = bg.FeedbackLoop()
    loop.predictions({"id": [1, 2, None], "at": [DAY, None, DAY]}, id="id", time="at")
    loop.labels({"id": [1, 1, 1, None], "y": [0, 1, None, 1], "at": [at(1), at(1), at(2), at(1)]}, id="id", label="y", time="at")
    # The label's clock is hours behind: it arrives before its prediction and counts.
    loop.predictions({"id": [7], "at": [at(9)]}, id="id", time="at")
    loop.labels({"id": [7], "y": [1], "at": [at(2)]}, id="id", label="y", time="at")
    counts = loop.counts()
    assert loop.joined()["label"].to_list() == [1, 1]
    assert (counts["conflicting"], counts["superseded"], counts["null"], counts["untimed"]) == (1, 1, 2, 2)


def test_the_memory_limit_holds_and_what_is_given_up_is_counted():
    loop = bg.FeedbackLoop(memory=8 << 20)
    for day in range(40):
        ids = np.arange(day * 10_000, (day + 1) * 10_000)
        loop.predictions({"id": ids, "at": [at(24 * day)] * 10_000}, id="id", time="at")
        loop.labels({"id": ids[::2], "y": np.ones(5000), "at": [at(24 * day + 1)] * 5000}, id="id", label="y", time="at")
        assert loop.bytes <= 8 << 20
    counts = loop.counts()
    assert counts["expired"] > 0
    assert counts["archived"] > 0
    assert counts["predictions"] + counts["expired"] + counts["archived"] == 400_000
    assert loop.joined()["id"].max() == 399_998
    loop.expire(datetime(2030, 1, 1))
    assert loop.counts()["predictions"] == 0
    assert loop.joined().is_empty()


def delayed(kind, seed, n=60_000):
    """Predictions of sixty days, horizon ten days; labels late in a way that depends on something."""
    rng = np.random.default_rng(seed)
    score = rng.beta(1, 2.5, n)
    label = (rng.random(n) < score).astype(int)
    right = label == (score > 0.5)
    slow = {"nothing": np.full(n, 0.5), "label": label, "correctness": ~right, "score": score > 0.4}[kind].astype(float)
    days = np.minimum(rng.exponential(np.where(slow > 0, 1 + 3 * slow, 0.5)), 9.9)
    frame = pl.DataFrame(
        {"id": np.arange(n), "at": [at(1440 * i / n) for i in range(n)], "s": score, "p": (score > 0.5).astype(int), "y": label}
    )
    arrived = frame.with_columns(at=pl.col("at") + pl.Series(days * 86_400e6).cast(pl.Int64).cast(pl.Duration("us")))
    loop = bg.FeedbackLoop(as_of=at(1440), horizon="10d")
    loop.predictions(frame, id="id", time="at", prediction="p", score="s")
    loop.labels(arrived, id="id", label="y", time="at")
    last = frame[int(n * 58 / 60) : int(n * 59 / 60)]
    return (
        loop,
        at(24 * 58).replace(tzinfo=UTC),
        {"accuracy": (last["y"] == last["p"]).mean(), "recall": last.filter(pl.col("y") == 1)["p"].mean()},
    )


@pytest.mark.parametrize("kind", ["nothing", "label", "correctness", "score"])
def test_correction_for_delay_takes_the_bias_away(kind):
    off, plain_off = {"accuracy": [], "recall": []}, {"accuracy": [], "recall": []}
    for seed in range(6):
        loop, start, truth = delayed(kind, seed)
        for into, correct in ((off, "delay"), (plain_off, None)):
            rows = loop.metrics(correct=correct).filter(window_start=start)
            for metric, want in truth.items():
                into[metric].append(rows.filter(metric=metric)["value"][0] - want)
    biased = max(abs(np.mean(values)) / (np.std(values) / 6**0.5 + 1e-9) for values in plain_off.values())
    for metric, values in off.items():
        assert abs(np.mean(values)) < 3 * np.std(values) / 6**0.5 + 0.006, (metric, values)
    if kind != "nothing":
        assert biased > 4


def test_a_stratum_that_cannot_have_arrived_has_no_value():
    rng = np.random.default_rng(1)
    n = 20_000
    frame = pl.DataFrame(
        {"id": np.arange(n), "at": [at(480 * i / n) for i in range(n)], "p": rng.integers(0, 2, n), "y": rng.integers(0, 2, n)}
    )
    # A conversion says so within hours, none is known at the horizon only.
    arrived = frame.with_columns(at=pl.col("at") + pl.when(pl.col("y") == 1).then(timedelta(hours=1)).otherwise(timedelta(days=5)))
    loop = bg.FeedbackLoop(as_of=at(480), horizon="5d")
    loop.predictions(frame, id="id", time="at", prediction="p")
    loop.labels(arrived, id="id", label="y", time="at")
    rows = loop.metrics(correct="delay").filter(metric="accuracy")
    assert rows["value"][:10].null_count() == 0
    assert rows["value"][-3:].null_count() == 3
    assert "insufficient" in rows["reason"][-1]
    with pytest.raises(bg.errors.InvalidArgumentError, match="older than the horizon"):
        made(horizon="300d")[0].metrics(correct="delay")


@pytest.mark.parametrize("strategy", ["uniform", "stratified", "uncertainty", "drift"])
def test_samples_for_labels_give_metrics_without_bias(strategy):
    reference = bg.Reference(
        {"s": np.random.default_rng(9).beta(2, 1, 5000)}, schema=bg.Schema.infer({"s": [0.5, 0.7]}).with_roles(s="score")
    )
    off, plain_off = [], []
    for seed in range(24):
        loop, frame = made(20_000, seed, days=1)
        extra = {"reference": reference} if strategy == "drift" else {}
        sample = loop.sample_for_labels(1000, strategy, seed=seed, **extra)
        assert sample.height == pytest.approx(1000, abs=2)
        assert sample["inclusion"].min() > 0
        assert (1 / sample["inclusion"]).sum() == pytest.approx(20_000, rel=0.1)
        loop.labels(sample.select("id").join(frame.select("id", "y"), on="id"), id="id", label="y")
        for into, correct in ((off, "sampling"), (plain_off, None)):
            row = loop.metrics(correct=correct).filter(metric="accuracy").row(0, named=True)
            into.append(row["value"] - (frame["y"] == frame["p"]).mean())
    # 3.5 is passed once in 500 seeds by Student's t with 23 degrees.
    assert abs(np.mean(off)) < 3.5 * np.std(off, ddof=1) / 24**0.5
    if strategy == "uncertainty":
        assert np.mean(plain_off) < -0.05


def test_a_training_frame_has_only_labels_that_had_arrived():
    n = 1000
    frame = pl.DataFrame({"id": np.arange(n), "at": [at(i) for i in range(n)], "x": np.arange(n) * 1.0, "y": np.arange(n) % 2})
    loop = bg.FeedbackLoop(as_of=at(500))
    loop.predictions(frame, id="id", time="at")
    loop.labels(frame.with_columns(at=pl.col("at") + timedelta(hours=24)), id="id", label="y", time="at")
    fit = loop.training_frame(frame.select("id", "x"), id="id", since=at(100)).collect()
    assert fit.columns == ["id", "x", "label", "prediction_time"]
    assert (fit["id"].min(), fit["id"].max()) == (100, 476)


class Shelf:
    """A store of two frames."""

    def __init__(self):
        self.frames, self.asked, self.broken = None, 0, False

    def save(self, predictions, labels):
        if self.broken:
            raise OSError("disk is full")
        known = (predictions, labels)
        self.frames = known if self.frames is None else tuple(pl.concat(pair) for pair in zip(self.frames, known, strict=True))

    def load(self, ids):
        self.asked += len(ids)
        if self.frames is None:
            return None
        found = tuple(frame.filter(pl.col("id").is_in(ids.implode())) for frame in self.frames)
        self.frames = tuple(frame.filter(~pl.col("id").is_in(ids.implode())) for frame in self.frames)
        return found


@pytest.mark.parametrize("kind", ["numbers", "texts"])
def test_a_store_takes_what_does_not_fit_and_gives_it_back(kind):
    rng = np.random.default_rng(0)
    shelf, other = Shelf(), Shelf()
    small, whole = bg.FeedbackLoop(memory=8 << 20, store=shelf), bg.FeedbackLoop(store=other)
    labels = []
    for day in range(30):
        ids = np.arange(day * 10_000, (day + 1) * 10_000)
        frame = pl.DataFrame({"id": ids, "at": [at(24 * day)] * 10_000, "p": rng.choice(["a", "b"], 10_000), "c": ids % 3})
        frame = frame.with_columns(pl.col("id").cast(pl.String)) if kind == "texts" else frame.with_columns(p=pl.col("p") == "a")
        truth = frame.select("id", y="p").with_columns(at=pl.lit(at(24 * day + 1)))
        labels.append(truth)
        for loop in (small, whole):
            loop.predictions(frame, id="id", time="at", prediction="p", keep=["c"])
            loop.labels(truth[:3000], id="id", label="y", time="at")
    counts = small.counts()
    assert counts["stored"] > 100_000
    assert counts["predictions"] + counts["stored"] == 300_000
    assert counts["expired"] == counts["archived"] == 0
    assert small.bytes <= 8 << 20
    # A correction for the first day's labels, labels that were missing, and predictions that come twice.
    for loop in (small, whole):
        loop.labels(labels[0][:1000].with_columns(y=labels[0]["y"][1000:2000], at=pl.lit(at(999))), id="id", label="y", time="at")
        loop.labels(labels[1][5000:], id="id", label="y", time="at")
        again = labels[2][:500].with_columns(at=pl.lit(at(1)))
        loop.predictions(again, id="id", time="at", prediction="y", keep=[])
    assert small.counts()["duplicate"] == whole.counts()["duplicate"] == 500
    assert small.counts()["orphan"] == 0
    assert shelf.asked > 0
    shelf.broken, before = True, small.counts()
    with pytest.raises(bg.errors.InvalidArgumentError, match="disk is full"):
        small.expire(datetime(2030, 1, 1))
    assert small.counts() == before
    shelf.broken = False
    for loop in (small, whole):
        loop.expire(datetime(2030, 1, 1))
        assert loop.counts()["stored"] == 300_000
    for mine, theirs in zip(shelf.frames, other.frames, strict=True):
        order = [name for name in ("id", "time", "label") if name in mine.columns]
        assert mine.sort(order).equals(theirs.sort(order))
    with pytest.raises(bg.errors.InvalidArgumentError, match="`store` must have"):
        bg.FeedbackLoop(store=object())


def test_the_table_as_of_a_time_is_that_of_a_loop_with_it():
    rng = np.random.default_rng(1)
    frame = pl.DataFrame({"id": np.arange(500), "at": [at(i / 10) for i in range(500)]})
    labels = pl.DataFrame(
        {"id": rng.integers(0, 500, 2000), "y": rng.integers(0, 2, 2000), "at": [at(h) for h in rng.uniform(0, 80, 2000)]}
    )
    late = bg.FeedbackLoop()
    for moment in (at(10), at(40), at(79)):
        then = bg.FeedbackLoop(as_of=moment)
        for loop in (then,) if late.counts()["predictions"] else (then, late):
            loop.predictions(frame, id="id", time="at")
            loop.labels(labels, id="id", label="y", time="at")
        assert late.joined(as_of=moment).equals(then.joined())


def test_estimates_stand_beside_what_was_realised():
    rng = np.random.default_rng(4)
    scores = rng.random(20_000)
    cbpe = bg.estimates.Cbpe.fit(scores, rng.random(20_000) < scores**1.5)
    n = 12_000
    s = rng.random(n)
    # From the seventh of twelve days on the score has lost its meaning: labels say so, estimates cannot.
    y = (rng.random(n) < np.where(np.arange(n) < 6000, s**1.5, 0.4)).astype(int)
    frame = pl.DataFrame({"id": np.arange(n), "at": [at(24 * 12 * i / n) for i in range(n)], "s": s, "p": (s > 0.5).astype(int), "y": y})
    loop = bg.FeedbackLoop()
    loop.predictions(frame, id="id", time="at", prediction="p", score="s")
    loop.labels(frame[:11_200].with_columns(at=pl.col("at") + timedelta(hours=1)), id="id", label="y", time="at")
    rows = loop.estimates(cbpe).filter(metric="accuracy")
    assert rows.height == 12
    assert rows["inside"][:6].sum() >= 5
    assert not rows["inside"][6:11].any()
    assert rows["gap"].null_count() == 1
    assert rows["labelled"][-1] == 200
    assert rows["past_error"][0] is None
    assert rows["past_error"][6] < 0.03 < rows["past_error"][11]
    assert rows["estimate"][3] == pytest.approx(cbpe.estimate(s[3000:4000], frame["p"].to_numpy()[3000:4000])["accuracy"])
    with pytest.raises(bg.errors.InvalidArgumentError, match="needs predictions with scores"):
        bg.FeedbackLoop().estimates(cbpe)


def test_labels_outside_the_classes_are_named_when_the_task_is_stated():
    loop = bg.FeedbackLoop()
    loop.predictions({"id": [1, 2], "at": [DAY, DAY], "p": [1, 0], "s": [0.9, 0.1]}, id="id", time="at", prediction="p", score="s")
    loop.labels({"id": [1, 2], "y": [1, 7]}, id="id", label="y")
    with pytest.raises(bg.errors.InvalidArgumentError, match="`y_true` must be 0, 1 or missing, got 7"):
        loop.metrics(task="binary")
    # Stated as nothing, 1 and 7 are numbers.
    assert "mae" in loop.metrics()["metric"].to_list()


@pytest.mark.parametrize("choice", ["last", "first"])
def test_a_monitor_and_a_loop_join_alike(choice):
    rng = np.random.default_rng(6)
    n = 2000
    score = rng.random(n)
    frame = pl.DataFrame({"id": np.arange(n), "at": [at(24 * i / n) for i in range(n)], "s": score, "x": rng.normal(size=n)})
    twice = frame[:100].with_columns(s=1 - pl.col("s"))
    rows = rng.integers(0, n + 50, 6000)
    arrived = [at(float(hour)) for hour in rng.integers(0, 60, 6000)]
    labels = pl.DataFrame({"id": rows, "y": rng.integers(0, 2, 6000), "at": arrived})
    labels = labels.with_columns(y=pl.when(pl.int_range(6000) % 17 == 0).then(None).otherwise("y"))
    loop = bg.FeedbackLoop(policy=choice)
    monitor = bg.Monitor("m", reference=bg.Reference(frame.select("x")), ticks="manual", policy={"labels": choice, "window": "1d"})
    for part in (labels[:2500], frame, twice, labels[2500:]):
        if "y" in part.columns:
            loop.labels(part, id="id", label="y", time="at")
            monitor.label(part, id="id", label="y", time="at")
        else:
            loop.predictions(part, id="id", time="at", score="s")
            monitor.observe_frame(part, time="at", id="id", score="s")
    summary = monitor.summary(DAY, DAY + timedelta(days=1))
    metrics = {row["metric"]: row["value"] for row in loop.metrics("1d").iter_rows(named=True)}
    assert summary.labelled == loop.counts()["joined"]
    for metric, value in summary.metrics.items():
        assert value.value == pytest.approx(metrics[metric], abs=1e-12)
    assert monitor.counts()["duplicate_ids"] == loop.counts()["duplicate"] == 100
    assert monitor.counts()["orphan_labels"] == loop.counts()["orphan"]
