"""Decisions between two models: the level they keep, how soon they fall, what they do, and the gate before them."""

import json
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import barograph as bg
import numpy as np
import polars as pl
import pytest
from barograph import cli, rollout
from barograph.errors import InvalidArgumentError
from barograph.rollout import Callback, Decision, Rollout, argo_measurement, flagger_response, gate

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def events(n, seed, error=0.1, latency=0.05, first=0, sharp=1.0):
    rng = np.random.default_rng(seed)
    # The truth of an id does not depend on who predicts it.
    y = (np.sin(np.arange(first, first + n) * 12.9898) * 43758.5453 % 1 < 0.3).astype(int)
    wrong = rng.random(n) < error
    return pl.DataFrame(
        {
            "id": np.arange(first, first + n),
            "y": y,
            "p": np.where(wrong, 1 - y, y),
            "s": 1 / (1 + np.exp(-(sharp * (2 * y - 1) + rng.normal(size=n)))),
            "failed": rng.random(n) < error / 10,
            "t": latency * rng.lognormal(0, 0.5, n),
        }
    )


NAMES = {"label": "y", "prediction": "p", "score": "s", "failed": "failed", "latency_seconds": "t"}


def fed(rollout, old, new, **more):
    rollout.observe_frame(old, version="v1", **NAMES, **more)
    rollout.observe_frame(new, version="v2", **NAMES, **more)


@pytest.mark.parametrize("paired", [False, True])
def test_a_harmless_challenger_goes_back_as_rarely_as_stated(paired):
    guards = [{"metric": "error", "margin": 0.0}, {"metric": "brier", "margin": 0.0}, {"metric": "error_rate", "margin": 0.0}]
    back = 0
    for seed in range(200):
        rollout = Rollout("v1", "v2", guards=guards, paired=paired, alpha=0.2)
        for look in range(8):
            old, new = (events(180, 10_000 * seed + 2 * look + one, first=180 * look) for one in (0, 1))
            fed(rollout, old, new, **({"id": "id"} if paired else {}))
            if rollout.decide(NOW).decision == "roll back":
                back += 1
                break
    # At most 20 % may; 57 or more of 200 would come with probability 0.002 if it were exactly that.
    assert back < 57


@pytest.mark.parametrize(("paired", "most"), [(False, 4000), (True, 4000)])
def test_harm_goes_back_and_good_ones_are_promoted(paired, most):
    more = {"id": "id"} if paired else {}
    taken = {"roll back": [], "promote": []}
    for want, error in (("roll back", 0.2), ("promote", 0.05)):
        for seed in range(20):
            rollout = Rollout("v1", "v2", guards=["error"], paired=paired)
            for look in range(40):
                old, new = events(250, 1000 * seed + look, first=250 * look), events(250, 7 + 1000 * seed + look, error, first=250 * look)
                fed(rollout, old, new, **more)
                if (found := rollout.decide(NOW)).decision != "hold":
                    assert found.decision == want
                    taken[want].append((look + 1) * 250)
                    break
        assert len(taken[want]) == 20
        assert np.median(taken[want]) <= most


def test_every_guard_says_what_it_is_and_finds_its_harm():
    from sklearn import metrics

    guards = [
        "error",
        "brier",
        "roc_auc",
        "error_rate",
        {"metric": "latency", "quantile": 0.9, "margin": 0.2},
        *({"metric": one, "margin": 0.05} for one in ("precision", "recall", "f1")),
    ]
    rollout = Rollout("v1", "v2", guards=guards)
    fed(rollout, events(60_000, 1, sharp=2), events(60_000, 2, error=0.3, latency=0.1, sharp=1))
    found = rollout.decide(NOW)
    assert found.decision == "roll back"
    rows = {row["guard"]: row for row in found.evidence}
    assert {name: row["verdict"] for name, row in rows.items()} == dict.fromkeys(rows, "harm")
    assert {row["kind"] for row in rows.values()} == {"exact"}
    tables = [events(60_000, 1, sharp=2), events(60_000, 2, error=0.3, sharp=1)]
    for name in ("precision", "recall", "f1"):
        scores = [getattr(metrics, f"{name}_score")(table["y"], table["p"]) for table in tables]
        assert [rows[name]["champion"], rows[name]["challenger"]] == pytest.approx(scores, abs=1e-12)
    assert rows["latency_p90"]["harm"] == pytest.approx(1.0, abs=0.1)
    assert rows["error"]["champion"] == pytest.approx(0.1, abs=0.01)
    assert found.to_frame()["guard"].to_list() == list(rows)
    assert "roll back" in str(found)
    # F1 is 2 t / (1 + t) of the share t of true positives among events that are positive or predicted to be: so are its limits.
    spans = []
    for table in tables:
        sequence = bg.estimates.MeanSequence(alpha=0.05 / len(guards) / 2)
        sequence.update_many(
            table.filter((pl.col("y") == 1) | (pl.col("p") == 1)).select((pl.col("y") == pl.col("p")).cast(float)).to_series()
        )
        spans.append([2 * limit / (1 + limit) for limit in sequence.interval])
    (a, b), (c, d) = spans
    assert [rows["f1"]["lower"], rows["f1"]["upper"]] == pytest.approx([a - d, b - c], abs=1e-12)
    # It stands, whatever comes later.
    fed(rollout, events(1000, 3), events(1000, 4, error=0.0))
    assert rollout.decide(NOW) == found


@pytest.mark.parametrize("metric", ["precision", "recall", "f1"])
def test_few_positives_send_nothing_back(metric):
    # Asymptotic limits of these counts sent 12 to 15 % back at alpha = 5 %, some after two positives.
    back = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        watched = Rollout("v1", "v2", guards=[{"metric": metric, "margin": 0.0}])
        for _ in range(8):
            for version in ("v1", "v2"):
                y = rng.random(250) < 0.005
                p = np.where(y, rng.random(250) < 0.7, rng.random(250) < 0.0017)
                watched.observe_frame({"y": y, "p": p}, version=version, label="y", prediction="p")
            if watched.decide(NOW).decision == "roll back":
                back += 1
                break
    # At most 5 % may; 21 or more of 200 would come with probability 0.001 if it were exactly that.
    assert back < 21


def test_losses_are_exact_with_a_range_and_wait_without():
    rng = np.random.default_rng(0)
    old, new = (pl.DataFrame({"y": np.zeros(400), "p": rng.normal(0, spread, 400)}).with_columns(l=pl.col("p").abs()) for spread in (1, 4))
    stated = [{"metric": "loss", "margin": 0.1, "range": [0, 3]}, {"metric": "absolute_error", "margin": 0.1}]
    watched = Rollout("v1", "v2", guards=stated)
    for version, frame in (("v1", old), ("v2", new)):
        watched.observe_frame(frame, version=version, label="y", prediction="p", loss="l")
    exact, asymptotic = watched.decide(NOW).evidence
    assert (exact["kind"], exact["verdict"]) == ("exact", "harm")
    assert exact["challenger"] == pytest.approx(new["l"].clip(0, 3).mean())
    assert (asymptotic["kind"], asymptotic["verdict"]) == ("asymptotic", "unknown")
    assert asymptotic["reason"] == "400 events, 500 are needed"


def test_pairs_find_a_difference_sooner_and_a_better_one_can_be_asked_for():
    def shadowed(n, seed):
        rng = np.random.default_rng(seed)
        hard = rng.random(n) < 0.3
        # Both fail on what is hard; the challenger on a little more.
        return [pl.DataFrame({"id": np.arange(n), "f": hard | (rng.random(n) < extra)}) for extra in (0.0, 0.03)]

    taken = {}
    for paired in (False, True):
        watched = Rollout("v1", "v2", guards=[{"metric": "error_rate", "margin": 0.0}], paired=paired)
        old, new = shadowed(40_000, 1)
        for start in range(0, 40_000, 250):
            for version, frame in (("v1", old), ("v2", new)):
                watched.observe_frame(frame[start : start + 250], version=version, failed="f", id="id")
            if watched.decide(NOW).decision == "roll back":
                break
        taken[paired] = start + 250
    assert taken[True] * 4 < taken[False]
    equal, _ = shadowed(20_000, 2)
    for superior, want in ((False, "promote"), (True, "hold")):
        watched = Rollout("v1", "v2", guards=[{"metric": "error_rate", "margin": 0.01, "superior": superior}], paired=True)
        for version in ("v1", "v2"):
            watched.observe_frame(equal, version=version, failed="f", id="id")
        assert watched.decide(NOW).decision == want


def test_what_is_refused_leaves_no_trace():
    for paired in (False, True):
        watched = Rollout("v1", "v2", guards=["error", "brier", "roc_auc"], paired=paired)
        more = {"id": "id"} if paired else {}
        watched.observe_frame(events(300, 1), version="v1", **NAMES, **more)
        before = watched.snapshot()
        frame = events(300, 2)
        wrong_ones = [frame.with_columns(y=pl.lit("a")), frame.with_columns(s=pl.lit("b")), frame.with_columns(failed=3)]
        # Of a pair the champion's label counts.
        for wrong in wrong_ones if paired else [frame.with_columns(y=2), *wrong_ones]:
            with pytest.raises(InvalidArgumentError):
                watched.observe_frame(wrong, version="v2", **NAMES, **more)
            assert watched.snapshot() == before
        late = pl.concat([events(300_000, 2), events(1, 3).with_columns(s=pl.lit(7.0))])
        with pytest.raises(InvalidArgumentError, match="got 7"):
            watched.observe_frame(late, version="v2", **NAMES, **more)
        assert watched.snapshot() == before


def test_classes_are_compared_by_value():
    for y, p, value in (([1, 0], [1.0, 1.0], 0.5), ([True, False], [1, 0], 0.0), (["a", "b"], ["a", "c"], 0.5)):
        watched = Rollout("v1", "v2", guards=["error"])
        for version in ("v1", "v2"):
            watched.observe_frame({"y": y, "p": p}, version=version, label="y", prediction="p")
        assert watched.decide(NOW).evidence[0]["challenger"] == value
    with pytest.raises(InvalidArgumentError, match="comparable"):
        watched.observe_frame({"y": ["1"], "p": [1]}, version="v1", label="y", prediction="p")


def test_pairs_that_never_match_are_given_up_and_counted(monkeypatch):
    monkeypatch.setattr(rollout, "_MOST_WAITING", 100)
    watched = Rollout("v1", "v2", paired=True)
    watched.observe_frame(events(150, 1), version="v1", **NAMES, id="id")
    assert watched.given_up == 50
    watched.observe_frame(events(150, 2), version="v2", **NAMES, id="id")
    assert Rollout.restore(watched.snapshot()).given_up == 50
    assert watched.decide(NOW).evidence[0]["champion_events"] == 100


def test_no_damage_to_a_snapshot_is_more_than_an_error():
    watched = Rollout("v1", "v2", guards=["error", "roc_auc", "latency", "f1"], paired=True)
    watched.observe_frame(events(60, 1).with_columns(id=pl.col("id").cast(pl.String)), version="v1", **NAMES, id="id")
    data, random, refused = watched.snapshot(), np.random.default_rng(0), 0
    for at in random.integers(0, len(data), 400):
        damaged = bytearray(data)
        damaged[at] ^= 1 << random.integers(0, 7)
        try:
            Rollout.restore(bytes(damaged)).decide(NOW)
        except bg.errors.SnapshotError:
            refused += 1
    assert refused > 100


def test_it_is_inconclusive_when_the_time_is_up_and_holds_before():
    rollout = Rollout("v1", "v2", guards=["error"], max_events=500, until=NOW + timedelta(days=9))
    fed(rollout, events(300, 1), events(300, 2))
    assert rollout.decide(NOW).decision == "hold"
    assert rollout.decide(NOW + timedelta(days=9)).decision == "inconclusive"
    fed(rollout, events(300, 3), events(300, 4))
    assert rollout.decide(NOW).decision == "inconclusive"
    few = Rollout("v1", "v2", guards=["error"])
    fed(few, events(50, 1, error=0.0), events(50, 2, error=1.0))
    assert few.decide(NOW).decision == "hold"
    assert "100 are needed" in few.decide(NOW).evidence[0]["reason"]
    assert Rollout("v1", "v2", guards=["roc_auc"]).decide(NOW).evidence[0]["reason"] == "no events with label and score"


@pytest.mark.parametrize("paired", [False, True])
def test_a_restored_rollout_goes_on(paired):
    guards = ["error", "roc_auc", "latency", {"metric": "f1", "margin": 0.01}]
    more = {"id": "id"} if paired else {}
    whole, pieces = (Rollout("v1", "v2", guards=guards, paired=paired) for _ in range(2))
    old, new = events(900, 1), events(900, 2, error=0.12)
    fed(whole, old, new, **more)
    # The other half comes later, in another order of versions.
    for part in (slice(0, 100), slice(100, 101), slice(101, 900)):
        pieces.observe_frame(new[part], version="v2", **NAMES, **more)
        pieces = Rollout.restore(pieces.snapshot())
    for part in (slice(0, 500), slice(500, 900)):
        pieces.observe_frame(old[part], version="v1", **NAMES, **more)
        pieces = Rollout.restore(pieces.snapshot())
    assert pieces.decide(NOW).evidence == whole.decide(NOW).evidence
    with pytest.raises(bg.errors.SnapshotError):
        Rollout.restore(b"{}")


def test_only_matured_predictions_of_a_loop_are_fed_once():
    loop = bg.FeedbackLoop(horizon="2d")
    frame = events(4000, 1).with_columns(at=pl.lit(NOW) + pl.duration(minutes=pl.int_range(4000)), v=pl.lit("v1"))
    frame = frame.with_columns(v=pl.when(pl.col("id") % 2 == 0).then(pl.lit("v1")).otherwise(pl.lit("v2")))
    loop.predictions(frame, id="id", time="at", prediction="p", score="s", version="v")
    loop.labels(frame.with_columns(at=pl.col("at") + pl.duration(hours=3)), id="id", label="y", time="at")
    rollout = Rollout("v1", "v2", guards=["error", "brier"])
    end = frame["at"].max()
    fed_rows = [rollout.observe_loop(loop, now=end + timedelta(minutes=shift)) for shift in (0, 0, 600)]
    assert fed_rows == [4000 - 2881, 0, 600]
    row = rollout.decide(NOW).evidence[0]
    assert row["champion_events"] + row["challenger_events"] == sum(fed_rows)
    with pytest.raises(InvalidArgumentError, match="must have a horizon"):
        rollout.observe_loop(bg.FeedbackLoop(), now=end)


def decision(verdict="roll back", time=NOW):
    return Decision(verdict, "error", [{"guard": "error", "harm": 0.1}], time, "v1", "v2")


def test_actions_are_dry_cool_down_are_counted_and_written_down(tmp_path):
    calls, audit = [], tmp_path / "audit.jsonl"
    assert Callback(calls.append, audit=audit).act(decision(), NOW).reason.startswith("dry run")

    def act(minutes, verdict="roll back", of=None):
        # Cooldown and counts hold across restarts: they come from the log.
        action = Callback(calls.append, audit=audit, dry_run=False, cooldown="1h", most=2, period="1d")
        moment = NOW + timedelta(minutes=minutes)
        return action.act(decision(verdict, moment if of is None else of), moment)

    assert not act(0, "hold").done
    assert act(0).done
    assert act(59).reason == "the last time was too short ago"
    assert act(61).done
    assert "2 times" in act(300).reason
    assert act(26 * 60).done
    # A decision stands, and is handed in again with every look.
    assert act(52 * 60, of=NOW).reason == "done for this decision already"
    assert len(calls) == 3
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [line["done"] for line in lines] == [False, False, True, False, True, False, True, False]
    assert lines[2]["decision"]["evidence"] == [{"guard": "error", "harm": 0.1}]

    def broken(_):
        raise OSError("registry is down")

    assert "registry is down" in Callback(broken, dry_run=False).act(decision(), NOW).reason
    for wrong, message in (({"on": "hold"}, "`on`"), ({"most": 0}, "`most`"), ({"cooldown": "soon"}, "`cooldown`")):
        with pytest.raises(InvalidArgumentError, match=message):
            Callback(calls.append, **wrong)


def test_without_a_log_an_action_remembers_itself():
    calls = []
    action = Callback(calls.append, dry_run=False)
    assert [action.act(decision(), NOW + timedelta(hours=hour)).done for hour in (0, 2)] == [True, False]
    assert action.act(decision(time=NOW + timedelta(hours=2)), NOW + timedelta(hours=2)).done


def test_what_cannot_be_written_down_is_not_done(tmp_path):
    calls, audit = [], tmp_path / "audit.jsonl"
    assert "cannot be kept" in Callback(calls.append, dry_run=False, audit=tmp_path / "no" / "log").act(decision(), NOW).reason
    first, second = (Callback(calls.append, dry_run=False, audit=audit) for _ in range(2))
    assert calls == []
    # Both were made before either acted.
    assert first.act(decision(), NOW).done
    assert not second.act(decision(), NOW).done
    # A crash cut a line short: it stays, and nothing else is lost.
    with audit.open("a") as file:
        file.write('{"time": "2026-0')
    assert Callback(calls.append, dry_run=False, audit=audit).act(decision(time=NOW + timedelta(hours=2)), NOW + timedelta(hours=2)).done
    for hours in (0, 2):
        again = Callback(calls.append, dry_run=False, audit=audit).act(
            decision(time=NOW + timedelta(hours=hours)), NOW + timedelta(hours=9)
        )
        assert again.reason == "done for this decision already"
    assert len(calls) == 2
    audit.write_text("nonsense\n")
    assert "line 1" in first.act(decision(time=NOW + timedelta(hours=30)), NOW + timedelta(hours=30)).reason
    with pytest.raises(InvalidArgumentError, match="line 1"):
        Callback(calls.append, audit=audit)
    assert len(calls) == 2


def test_other_controllers_read_it():
    assert argo_measurement(decision("promote"))["decision"] == "promote"
    json.dumps(argo_measurement(decision()))
    hooks = ("rollout", "confirm-traffic-increase", "confirm-promotion", "rollback")
    verdicts = ("hold", "promote", "roll back", "inconclusive")
    table = {verdict: [flagger_response(decision(verdict), hook)[0] for hook in hooks] for verdict in verdicts}
    assert table == {
        "hold": [200, 200, 403, 403],
        "promote": [200, 200, 200, 403],
        "roll back": [403, 403, 403, 200],
        "inconclusive": [200, 403, 403, 403],
    }
    with pytest.raises(InvalidArgumentError, match="`hook`"):
        flagger_response(decision(), "event")


def test_what_is_wrong_with_a_rollout_is_named():
    fine = Rollout("v1", "v2", guards=["brier", "latency"])
    frame = events(10, 1)
    for wrong, message in (
        (lambda: Rollout("v1", "v1"), "another version"),
        (lambda: Rollout("v1", "v2", guards=[]), "at least one"),
        (lambda: Rollout("v1", "v2", guards=["accuracy"]), "'accuracy', which is no metric"),
        (lambda: Rollout("v1", "v2", guards=["absolute_error"]), "needs a margin"),
        (lambda: Rollout("v1", "v2", guards=[{"metric": "error", "margn": 1}]), "'margn'"),
        (lambda: Rollout("v1", "v2", guards=["error", "error"]), "names of their own"),
        (lambda: Rollout("v1", "v2", alpha=0.9), "`alpha`"),
        (lambda: Rollout("v1", "v2", alpha="0.05"), "`alpha`"),
        (lambda: Rollout("v1", "v2", guards="error"), "must be a list"),
        (lambda: Rollout("v1", "v2", least=0), "`least`"),
        (lambda: Rollout("v1", "v2", max_events=-1), "`max_events`"),
        (lambda: Rollout("v1", "v2", guards=[{"metric": "latency", "quantile": 99}]), "quantile of guard 'latency'"),
        (lambda: Rollout("v1", "v2", guards=[{"metric": "loss", "margin": 1, "range": [1, 0]}]), "range of guard 'loss'"),
        (lambda: Rollout("v1", "v2", guards=[{"metric": "error", "range": [0, 2]}]), "takes no range"),
        (lambda: fine.observe_frame(frame, version="v3", score="s"), "`version` must be"),
        (lambda: fine.observe_frame(frame, version="v1", score="none"), "names column 'none'"),
        (lambda: fine.observe_frame(frame.with_columns(s=2.0), version="v1", score="s"), r"`score` must be in \[0, 1\]"),
        (lambda: fine.observe_frame(frame.with_columns(t=-1.0), version="v1", latency_seconds="t"), "`latency_seconds`"),
        (lambda: Rollout("v1", "v2", paired=True).observe_frame(frame, version="v1"), "need an id"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            wrong()
    assert fine.decide(NOW).evidence[0]["champion_events"] == 0


class Model:
    def __init__(self, slope, wait=0):
        self.slope, self.wait = slope, wait

    def predict_proba(self, rows):
        for _ in range(self.wait):
            np.sort(np.random.default_rng(0).random(20_000))
        p = 1 / (1 + np.exp(-self.slope * rows["x"].to_numpy()))
        return np.column_stack([1 - p, p])

    def predict(self, rows):
        return (self.predict_proba(rows)[:, 1] > 0.5).astype(int)


def inputs(n=6000, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return pl.DataFrame({"x": x, "y": (rng.random(n) < 1 / (1 + np.exp(-2 * x))).astype(int), "c": rng.choice(["de", "fr"], n)})


def test_the_gate_lets_equals_pass_and_holds_worse_ones():
    frame = inputs()
    same = gate(Model(2.0), Model(2.05), frame, label="y", segments=["c"], limits={"latency": None}, features=["x"])
    assert same.passed is True
    assert same.exit_code == 0
    assert set(same.to_frame()["segment"].drop_nulls()) == {"c=de", "c=fr"}
    worse = gate(Model(2.0), Model(-2.0, wait=30), frame, label="y", features=["x"])
    assert worse.passed is False
    assert {row["check"] for row in worse.to_dict()["checks"] if row["verdict"] == "failed"} == {"error", "brier", "roc_auc", "latency"}
    few = gate(Model(2.0), Model(2.0), frame[:20], label="y", limits={"latency": None}, features=["x"])
    assert few.passed is None
    assert few.exit_code == 3
    suite = ElementTree.fromstring(worse.to_junit())[0]
    assert suite.get("failures") == "4"
    assert "failed" in worse.to_markdown()
    assert "error" in str(worse)


def test_the_gates_differences_are_a_plain_computation():
    from sklearn.metrics import roc_auc_score

    frame = inputs()
    report = gate(Model(2.0), lambda rows: (rows["x"].to_numpy() > -5) * 0.5, frame, label="y", limits={"latency": None}, features=["x"])
    rows = {row["check"]: row for row in report.to_dict()["checks"]}
    scores = Model(2.0).predict_proba(frame)[:, 1]
    assert rows["roc_auc"]["current"] == pytest.approx(roc_auc_score(frame["y"], scores), abs=1e-12)
    assert rows["roc_auc"]["candidate"] == pytest.approx(0.5)
    assert rows["brier"]["current"] == pytest.approx(((scores - frame["y"].to_numpy()) ** 2).mean())
    # The paired limits hold what they say: one model against another that differs by noise.
    inside = 0
    for seed in range(60):
        part = inputs(800, 100 + seed)
        noise = np.random.default_rng(seed).normal(size=800)
        other = 1 / (1 + np.exp(-(2 * part["x"].to_numpy() + noise)))
        frames = [part.select("y", score=pl.Series(one)) for one in (Model(2.0).predict_proba(part)[:, 1], other)]
        (row,) = [row for row in gate(*frames, label="y").to_dict()["checks"] if row["check"] == "roc_auc"]
        inside += row["lower"] <= TRUE_HARM <= row["upper"]
    # At 95 %: 50 or fewer of 60 with probability 0.0003.
    assert inside > 50


def _true_harm():
    from sklearn.metrics import roc_auc_score

    part = inputs(400_000, 1)
    noise = np.random.default_rng(77).normal(size=part.height)
    scores = 2 * part["x"].to_numpy()
    return roc_auc_score(part["y"], scores) - roc_auc_score(part["y"], scores + noise)


TRUE_HARM = _true_harm()


def test_the_gate_joins_frames_of_predictions_and_knows_regressions(tmp_path, capsys):
    rng = np.random.default_rng(3)
    y = rng.normal(10, 2, 3000)
    old = pl.DataFrame({"id": np.arange(3000), "prediction": y + rng.normal(0, 1, 3000), "truth": y})
    good = pl.DataFrame({"id": np.arange(3000), "prediction": y + rng.normal(0, 0.9, 3000)})[rng.permutation(3000)]
    bad = good.with_columns(pl.col("prediction") + 1.5)
    for name, frame in (("old", old), ("good", good), ("bad", bad), ("short", good[:2000])):
        frame.write_parquet(tmp_path / f"{name}.parquet")

    def run(candidate, *more):
        arguments = ["gate", str(tmp_path / "old.parquet"), str(tmp_path / f"{candidate}.parquet"), "--id", "id", "--label", "truth", *more]
        return cli.main(arguments), capsys.readouterr()

    junit, summary = tmp_path / "gate.xml", tmp_path / "summary.md"
    assert run("good")[0] == 0
    code, out = run("bad", "--junit", str(junit), "--summary", str(summary))
    assert code == 1
    assert "absolute_error" in out.out
    assert ElementTree.parse(junit).getroot()[0].get("failures") == "2"
    assert "failed" in summary.read_text()
    code, out = run("short")
    assert code == 2
    assert "1000 ids of the current one are missing" in out.err
    assert run("good", "--limit", "absolute_error=x")[0] == 2
    (tmp_path / "garbage.parquet").write_bytes(b"no parquet at all")
    assert run("garbage")[0] == 2
    assert run("absent")[0] == 2
    for name in ("old", "good"):
        pl.read_parquet(tmp_path / f"{name}.parquet").sort("id")[:10].write_parquet(tmp_path / f"{name}10.parquet")
    assert cli.main(["gate", str(tmp_path / "old10.parquet"), str(tmp_path / "good10.parquet"), "--id", "id", "--label", "truth"]) == 3
    capsys.readouterr()
    code, out = run("good", "--limit", "absolute_error=0.0", "--limit", "squared_error=none", "--json")
    assert json.loads(out.out)["passed"] is (True if code == 0 else None)


def test_the_gate_compares_by_value_and_knows_counts_from_classes():
    # Compared as text, 1 and 1.0 or true differ in every row of both models: any candidate passed.
    rng = np.random.default_rng(0)
    y, guesses = rng.integers(0, 2, 4000), rng.integers(0, 2, 4000)
    for truth, old, new in ((y, y.astype(float), guesses.astype(float)), (y.astype(bool), y, guesses), (y, y, guesses.astype(float))):
        report = gate(pl.DataFrame({"y": truth, "prediction": old}), pl.DataFrame({"prediction": new}), label="y")
        rows = {row["check"]: row for row in report.to_dict()["checks"]}
        assert report.passed is False
        assert [rows["error"]["current"], rows["error"]["candidate"]] == pytest.approx([0.0, np.mean(y != guesses)])
        assert rows["unknown_outputs"]["verdict"] == "passed"
    counts = rng.poisson(50, 4000)
    frames = [pl.DataFrame({"y": counts, "prediction": counts + rng.normal(0, spread, 4000)}) for spread in (1, 10)]
    assert gate(*frames, label="y").to_frame().filter(verdict="failed")["check"].to_list() == ["absolute_error", "squared_error"]
    classes = rng.integers(0, 3, 4000)
    frames = [pl.DataFrame({"y": classes, "prediction": np.where(rng.random(4000) < wrong, 0, classes)}) for wrong in (0.1, 0.4)]
    assert "error" in gate(*frames, label="y", task="multiclass").to_frame().filter(verdict="failed")["check"]
    with pytest.raises(InvalidArgumentError, match="comparable"):
        gate(frames[0].with_columns(y=pl.col("y").cast(pl.String)), frames[1], label="y")


def test_nothing_passes_unjudged():
    # Few rows that both models separate, labels that no metric fits, answers that are not finite.
    split = pl.DataFrame({"y": [0] * 15 + [1] * 15, "score": [0.1] * 15 + [0.9] * 15})
    only_auc = {"brier": None}
    assert gate(split, split, label="y", limits=only_auc).passed is None
    rng = np.random.default_rng(0)
    scored = pl.DataFrame({"y": rng.integers(0, 10, 500), "score": rng.random(500)})
    assert gate(scored, scored, label="y").to_frame().filter(check="label")["verdict"].to_list() == ["open"]
    assert gate(scored, scored).passed is True
    for odd in (float("nan"), float("inf")):
        broken = scored.with_columns(score=pl.when(pl.int_range(500) < 5).then(odd).otherwise("score"))
        report = gate(scored, broken)
        assert report.to_frame().filter(verdict="failed")["check"].to_list() == ["null_predictions"]
        json.dumps(report.to_dict(), allow_nan=False)


def test_the_gate_holds_the_schema():
    frame = inputs(200)
    schema = bg.Schema.infer(frame.select("x", "c"))
    settings = {"label": "y", "limits": {"latency": None}, "schema": schema}

    def reason(given, candidate=None):
        report = gate(Model(2.0), candidate or Model(2.0), given, **settings)
        return report.to_frame().row(by_predicate=pl.col("check") == "schema", named=True)

    assert reason(frame)["verdict"] == "passed"
    assert reason(frame.drop("c"))["reason"] == "column 'c' is missing"
    assert "column 'c' is number, not category" in reason(frame.with_columns(c=pl.int_range(200) * 0.5))["reason"]
    assert (
        reason(frame, lambda rows: rows["x"].to_numpy() > 0)["reason"]
        == "prediction is boolean, not number; only the current model gives a score"
    )
    report = gate(Model(2.0), Model(2.0), frame.drop("c"), **{**settings, "limits": {"latency": None, "schema": None}})
    assert "schema" not in report.to_frame()["check"]


def test_what_breaks_the_contract_fails_the_gate():
    frame = pl.DataFrame({"prediction": ["a", "b", "a", "b"] * 50})
    nulls = frame.with_columns(pl.when(pl.int_range(200) < 3).then(None).otherwise("prediction").alias("prediction"))
    unknown = frame.with_columns(pl.col("prediction").replace("b", "z"))
    assert gate(frame, frame).passed is True
    assert gate(frame, nulls).passed is False
    assert gate(frame, nulls, limits={"null_predictions": 0.02}).passed is True
    assert gate(frame, unknown).passed is False
    assert gate(frame, frame.reverse(), limits={"disagreement": 0.5}).passed is False
    for wrong, message in (
        (lambda: gate(frame, frame[:3]), "as many rows"),
        (lambda: gate(frame, frame, limits={"eror": 1}), "no check"),
        (lambda: gate(frame, frame, limits={"error": -1}), "must not be negative"),
        (lambda: gate(frame, frame, label="y"), "neither frame has column 'y'"),
        (lambda: gate(frame.rename({"prediction": "x"}), frame), "`current` must have a column"),
        (lambda: gate(print, frame), "`current` must be a frame"),
        (lambda: gate(frame, frame, confidence=7.0), "`confidence`"),
        (lambda: gate(frame, frame, task="ranking"), "`task`"),
        (lambda: gate(Model(1), Model(1), inputs(50), features=["z"]), "names column 'z'"),
        (lambda: gate(frame.with_columns(id=pl.int_range(200)), frame.with_columns(id=pl.int_range(200).cast(str)), id="id"), "one kind"),
        (lambda: gate(object(), Model(1), inputs(100), label="y"), "`current` must be callable"),
        (lambda: gate(Model(1), lambda rows: [1], inputs(100), label="y", features=["x"]), "one prediction per row|one score per row"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            wrong()
