"""Reports as gates read them."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import barograph as bg
import numpy as np
import polars as pl
import pytest
from barograph.testing import assert_no_drift

ODD = "a|b<c>&\x01 *bold*"
A = pl.DataFrame({"x": np.random.default_rng(0).normal(size=3000), ODD: np.random.default_rng(1).normal(size=3000), "few": 1.0})
B = pl.DataFrame({"x": np.random.default_rng(2).normal(1, 1, 3000), ODD: np.random.default_rng(3).normal(size=3000)})


def test_junit_has_a_case_per_tested_column():
    report = bg.compare(bg.Reference(A), B)
    suite = ElementTree.fromstring(report.to_junit()).find("testsuite")
    cases = {case.get("name"): case for case in suite}
    assert suite.attrib == {"name": "barograph", "tests": "3", "failures": "1", "errors": "1", "skipped": "0"}
    assert cases["x"].find("failure").get("type") == "critical"
    assert "->" in cases["x"].find("failure").text
    assert cases["few"].find("error").get("message").startswith("missing")
    assert len(cases[ODD.replace("\x01", "\ufffd")]) == 0
    info = bg.compare(bg.Reference(A), A.with_columns(pl.col("x") + 0.47))
    assert ElementTree.fromstring(info.to_junit("critical")).find("testsuite").get("failures") == "0"
    assert ElementTree.fromstring(info.to_junit()).find("testsuite").get("failures") == "1"


def test_markdown_keeps_odd_names_in_their_cells():
    text = bg.compare(bg.Reference(A), B).to_markdown()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert table[2].startswith("| x | ▲ critical |") or "critical" in table[2]
    odd = next(line for line in table if "bold" in line)
    assert "a\\|b\\<c\\>" in odd
    assert "\\*bold\\*" in odd


def test_the_command_writes_both(tmp_path):
    A.select("x").write_parquet(tmp_path / "a.parquet")
    B.select("x").write_parquet(tmp_path / "b.parquet")
    command = str(Path(sys.executable).with_name("barograph"))
    arguments = [command, "compare", "a.parquet", "b.parquet", "--junit", "j.xml", "--summary", "s.md"]
    for _ in range(2):
        assert subprocess.run(arguments, cwd=tmp_path, capture_output=True).returncode == 1
    assert ElementTree.parse(tmp_path / "j.xml").getroot().find("testsuite").get("failures") == "1"
    assert (tmp_path / "s.md").read_text().count("### barograph") == 2


def test_the_assertion_says_what_moved():
    assert not assert_no_drift(A.select("x"), A.select("x")).drifted
    with pytest.raises(AssertionError, match=r"x .*critical"):
        assert_no_drift(A.select("x"), B.select("x"))
    with pytest.raises(AssertionError, match="could not be judged"):
        assert_no_drift(A, A.select("x", ODD))
    assert assert_no_drift(A, A.select("x", ODD), inconclusive=False).unjudged == ["few"]
    assert_no_drift(bg.Reference(A.select("x")), A.select(pl.col("x") + 0.47), fail_on="critical")
    with pytest.raises(bg.errors.InvalidArgumentError, match="fail_on"):
        assert_no_drift(A, A, fail_on="info")
