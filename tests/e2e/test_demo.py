"""The demo: real flights, the same numbers every time but for latency."""

import io
import re

import numpy as np
import polars as pl
import pytest
from barograph import cli, demo


def without_clock(text):
    text = re.sub(r"\d+\.\d\d ms", "- ms", text)
    return [line for line in text.splitlines() if not line.startswith(("took", "model"))]


def test_flights_from_fit_to_report(tmp_path):
    out = [io.StringIO(), io.StringIO()]
    for at, stream in enumerate(out):
        assert demo.run(html=str(tmp_path / f"{at}.html"), out=stream) == 0
    first, second = (without_clock(re.sub(r"\d\.html", "N.html", stream.getvalue())) for stream in out)
    assert [re.sub(r" +", " ", line) for line in first] == [re.sub(r" +", " ", line) for line in second]
    text = out[0].getvalue()
    assert len(re.findall(r"^2013-\d\d ", text, re.M)) == 8
    for word in ("opened", "resolved", "AUC", "score 0.", "roc_auc"):
        assert word in text
    # Of 336,776 flights 9,430 never get a label; those of May to December are missing at the end.
    events = sum(int(n.replace(",", "")) for n in re.findall(r"^2013-\d\d +([\d,]+)", text, re.M))
    assert events == 227_657
    assert (tmp_path / "0.html").stat().st_size > 20_000


def test_your_own_file(tmp_path, capsys):
    rng = np.random.default_rng(0)
    n = 6000
    score = rng.random(n)
    frame = pl.DataFrame(
        {
            "x": rng.normal(size=n) + np.repeat([0, 1], [4000, 2000]),
            "p": score,
            "y": (rng.random(n) < score).astype(int),
            "at": pl.Series(np.arange(n) * 300 * 10**6).cast(pl.Datetime("us")),
        }
    )
    frame.write_parquet(tmp_path / "mine.parquet")
    arguments = [
        "demo",
        "--data",
        str(tmp_path / "mine.parquet"),
        "--label",
        "y",
        "--score",
        "p",
        "--time",
        "at",
        "--html",
        str(tmp_path / "r.html"),
    ]
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert re.search(r"alert 1 +opened +x ", text), text
    assert (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "none.parquet", "--label", "y", "--score", "p", "--time", "t"], "no such file"),
        (["--data", "none.parquet"], "--label, --score, --time"),
        (["--label", "y"], "--data"),
    ],
)
def test_what_is_missing_is_named(arguments, message, capsys):
    assert cli.main(["demo", *arguments]) == 2
    assert message in capsys.readouterr().err
