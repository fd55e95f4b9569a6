"""What a verdict promises, on seeded data."""

import barograph as bg
import numpy as np
import polars as pl
import pytest


def normal(n, seed, mean=0.0):
    return np.random.default_rng(seed).normal(mean, 1, n)


def verdicts(reference, current, **settings):
    report = bg.compare(bg.Reference({"x": reference}), {"x": current}, **settings)
    return dict(report.to_frame().select("method", "verdict").iter_rows()), report


@pytest.mark.parametrize("unions", [10, 20])
def test_half_a_standard_deviation_is_a_warning_and_a_quarter_is_info(unions):
    assert verdicts(normal(50_000, 1), normal(50_000, 2, 0.5), unions=unions)[0]["psi"] == "warning"
    assert verdicts(normal(50_000, 1), normal(50_000, 2, 0.25), unions=unions)[0]["psi"] == "info"
    assert verdicts(normal(50_000, 1), normal(50_000, 2, 1.0), unions=unions)[0]["psi"] == "critical"


def test_one_outlier_moves_nothing():
    a, b, c = normal(50_000, 1), normal(50_000, 2, 0.5), normal(50_000, 3)
    out = np.append
    assert verdicts(out(a, 1e6), b)[1].drifted
    assert verdicts(a, out(b, 1e6))[1].drifted
    assert not verdicts(out(a, 1e6), c)[1].drifted
    assert not verdicts(a, out(c, 1e6))[1].drifted
    plain, with_outlier = (bg.compare(bg.Reference({"x": a}), {"x": x}).to_dict()["rows"][0]["value"] for x in (c, out(c, 1e6)))
    assert abs(plain - with_outlier) < 1e-3


def test_nulls_on_one_side_are_critical_and_the_values_stay_ok():
    a, c = normal(50_000, 1), normal(50_000, 3)
    nulls = pl.Series(c).set(pl.Series(np.random.default_rng(0).random(50_000) < 0.3), None)
    for reference, current in ((a, nulls), (nulls, a)):
        found, report = verdicts(reference, current)
        assert (found["null_share"], found["psi"], report.verdict) == ("critical", "ok", "critical")
        assert report.to_frame().filter(pl.col("method") == "psi_total")["value"][0] == pytest.approx(2.5, abs=0.6)


def test_nulls_on_both_sides_do_not_dilute_a_shift():
    mask = pl.Series(np.random.default_rng(0).random(50_000) < 0.6)
    a, b = (pl.Series(normal(50_000, seed, mean)).set(mask, None) for seed, mean in ((1, 0.0), (2, 0.5)))
    found, _ = verdicts(a, b)
    assert (found["psi"], found["null_share"]) == ("warning", "ok")


def test_few_rows_are_insufficient_not_ok():
    found, report = verdicts(normal(5000, 1), normal(90, 2))
    assert found["psi"] == "insufficient"
    assert report.unjudged == ["x"]


def adjusted(report, column, method="psi"):
    frame = report.to_frame().filter(pl.col("column") == column, pl.col("method") == method)
    return frame["p_value"][0], frame["adjusted_p"][0]


def test_p_values_are_combined_inside_a_column_and_over_columns():
    a, b = normal(3000, 1), normal(3000, 2, 0.42)
    p, alone = adjusted(bg.compare(bg.Reference({"x": a}), {"x": b}), "x")
    # Four tested rows: PSI and three shares.
    assert alone == pytest.approx(4 * p)
    steady = {f"s{i}": normal(3000, 10 + i) for i in range(9)}
    moved = {f"s{i}": normal(3000, 30 + i) for i in range(9)}
    _, among_ten = adjusted(bg.compare(bg.Reference({"x": a} | steady), {"x": b} | moved), "x")
    assert among_ten == pytest.approx(min(1, 10 * alone))
    _, by = adjusted(bg.compare(bg.Reference({"x": a} | steady), {"x": b} | moved, combination="by"), "x")
    assert by == pytest.approx(min(1, among_ten * sum(1 / j for j in range(1, 11))))


def test_a_column_with_too_few_values_does_not_weaken_the_others():
    a, b = normal(3000, 1), normal(3000, 2, 0.42)
    thin = pl.Series([*normal(50, 3), *[None] * 2950])
    _, alone = adjusted(bg.compare(bg.Reference({"x": a}), {"x": b}), "x")
    sides = [{"x": x} | {f"thin{i}": thin for i in range(3)} for x in (a, b)]
    report = bg.compare(bg.Reference(sides[0]), sides[1])
    assert adjusted(report, "x")[1] == alone
    assert report.unjudged == ["thin0", "thin1", "thin2"]


def test_duplicated_columns_do_not_change_the_verdict():
    a, b = normal(3000, 1), normal(3000, 2, 0.5)
    report = bg.compare(bg.Reference({f"x{i}": a for i in range(8)}), {f"x{i}": b for i in range(8)})
    assert {column["verdict"] for column in report.to_dict()["columns"]} == {"warning"}


def test_ids_times_labels_and_text_never_drift():
    def rows(start):
        n = 2000
        return pl.DataFrame(
            {
                "flight_id": np.arange(start, start + n),
                "y_true": [int(start > 0)] * n,
                "note": [f"sentence number {start + i} with many words inside" for i in range(n)],
                "at": pl.Series(np.arange(start, start + n)).cast(pl.Datetime("us")),
                "x": normal(n, start),
            }
        )

    report = bg.compare(bg.Reference(rows(0)), rows(10**6))
    assert not report.drifted
    assert {c["column"]: c["verdict"] for c in report.to_dict()["columns"]}["y_true"] is None
    label = report.to_frame().filter(pl.col("column") == "y_true", pl.col("method") == "total_variation")
    assert label["value"][0] is not None


def test_unseen_names_are_a_share():
    reference = {"c": ["a", "b", "c"] * 1000}
    report = bg.compare(bg.Reference(reference), {"c": ["a", "b", "d"] * 1000})
    row = report.to_frame().filter(pl.col("method") == "unseen_share")
    assert row["value"][0] == pytest.approx(1 / 3)
    assert report.drifted


def test_a_profile_made_without_the_reference_is_compared_cell_by_cell():
    a, b, c = normal(50_000, 1), normal(50_000, 2, 0.5), normal(50_000, 3)
    reference = bg.Reference({"x": a})
    assert bg.compare(reference, bg.profile({"x": b})).drifted
    report = bg.compare(reference, bg.profile({"x": c}))
    assert not report.drifted
    assert any("without this reference" in note for note in report.to_dict()["notes"])
    assert bg.compare(bg.Reference(bg.profile({"x": a})), {"x": b}).drifted
    assert not bg.compare(bg.Reference(bg.profile({"x": a})), {"x": c}).drifted


def test_twenty_columns_at_the_boundary_alarm_at_most_at_the_stated_rate():
    # PSI 0.1 is a mean shift of 0.3174 sd with ten bins; ten columns without any shift beside ten at the boundary.
    fired = 0
    reference = bg.Reference({f"x{i}": normal(20_000, i) for i in range(20)})
    for seed in range(150):
        current = {f"x{i}": normal(2000, 1000 + 20 * seed + i, 0.31 if i < 10 else 0.0) for i in range(20)}
        fired += bg.compare(reference, current).drifted
    # 150 draws at 1 %: more than 6 would happen once in 1,000.
    assert fired <= 6, fired


def test_intervals_hold_what_scipy_computes():
    from scipy import stats

    rng = np.random.default_rng(5)
    for make in (lambda: rng.normal(size=3000), lambda: rng.lognormal(sigma=2, size=3000), lambda: rng.integers(0, 5, 3000).astype(float)):
        a, b = make(), make() * 1.1
        report = bg.compare(bg.Reference({"x": a}), {"x": b}).to_frame()
        rows = {row["method"]: row for row in report.iter_rows(named=True)}
        for method, want in (
            ("kolmogorov_smirnov", stats.ks_2samp(a, b, method="asymp").statistic),
            ("wasserstein", stats.wasserstein_distance(a, b)),
        ):
            assert rows[method]["lower"] - 1e-12 <= want <= rows[method]["upper"] + 1e-12, method
        edges, counts = bg.Reference({"x": a}).bins("x")
        heaviest = max((c for c, lo, hi in zip(counts[1:-1], edges, edges[1:], strict=False) if np.nextafter(lo, np.inf) != hi), default=0)
        assert rows["kolmogorov_smirnov"]["upper"] - rows["kolmogorov_smirnov"]["lower"] <= heaviest / len(a) + 1e-12


@pytest.mark.parametrize("combination", ["bh", "by"])
def test_every_row_that_moved_says_so_not_only_the_strongest(combination):
    rng = np.random.default_rng(0)
    more = {f"x{i}": rng.normal(size=5000) for i in range(6)}
    reference = {"c": rng.choice(["a", "b"], 5000), **more}
    # Half of the names are new: what is left has another mix, too.
    current = {"c": rng.choice(["a", "d"], 5000), **more}
    rows = bg.compare(reference, current, combination=combination).to_frame().filter(column="c")
    verdicts = dict(rows.select("method", "verdict").iter_rows())
    assert (verdicts["psi"], verdicts["unseen_share"], verdicts["null_share"]) == ("critical", "critical", "ok")
    tested = rows.drop_nulls("p_value")
    assert (tested["adjusted_p"] >= tested["p_value"]).all()
    assert tested.filter(method="unseen_share")["adjusted_p"].item() < 1e-10
